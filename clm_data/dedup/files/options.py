"""The options of :func:`clm_data.dedup.files.run.deduplicate`."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from clm_data.dedup.files.policies import BY_SUBJECT, KEEP_BEST, POLICIES
from clm_data.errors import ConfigError, UnknownNameError


@dataclass(frozen=True)
class DedupOptions:
    """What to compare and which rows to keep.

    Attributes:
        source: Name of the source, for the report.
        fields: Columns to compare.
        threshold: Rows are near-duplicates if their similarity is strictly above it.
        policy: One of :data:`~clm_data.dedup.files.policies.POLICIES`.
        each_field: Compare each field on its own instead of their concatenation.
        normalize: Compare texts in NFKC with whitespace collapsed.
        score: Column of numbers for ``keep-best``; higher is better.
        subject: Column that must be equal for a removal (``by-subject``) or for a comparison of
            embeddings (``semantic``).
        semantic: Name of the embedding model.
        semantic_threshold: Minimum cosine of semantic duplicates.
    """

    source: str
    fields: tuple[str, ...]
    threshold: float
    policy: str
    each_field: bool = False
    normalize: bool = False
    score: str | None = None
    subject: str | None = None
    semantic: str | None = None
    semantic_threshold: float | None = None

    def column_name(self, column: int) -> str:
        """The field, or the joined fields, whose texts are compared as one column."""
        return self.fields[column] if self.each_field else " + ".join(self.fields)

    def check(self) -> None:
        """Check that the options fit together.

        Raises:
            UserError: They do not.
        """
        if self.policy not in POLICIES:
            raise UnknownNameError("policy", self.policy, POLICIES)
        if not all(isinstance(field, str) and field for field in self.fields):
            raise ConfigError("a column to compare has no name; pass texts such as zh.prompt")
        if not self.fields:
            raise ConfigError("no column to compare; specify one with --field")
        if len(set(self.fields)) < len(self.fields):
            raise ConfigError("--field names the same column twice; use each column once")
        if not isinstance(self.threshold, Real):
            raise ConfigError(f"threshold is {self.threshold!r}; pass a number from 0 to 0.9999")
        if not 0 <= self.threshold < 1:
            raise ConfigError(
                f"--threshold {self.threshold:g} is not in [0, 1); for exact duplicates only, "
                "use 0.9999"
            )
        if (self.policy == KEEP_BEST) != (self.score is not None):
            raise ConfigError(f"--policy {KEEP_BEST} and --score COLUMN must be used together")
        if self.policy == BY_SUBJECT and self.subject is None:
            raise ConfigError(f"--policy {BY_SUBJECT} requires --subject COLUMN")
        if self.semantic is not None and self.subject is None:
            raise ConfigError("--semantic compares rows of one subject; add --subject COLUMN")
        if self.subject is not None and self.policy != BY_SUBJECT and self.semantic is None:
            raise ConfigError(f"--subject requires --policy {BY_SUBJECT} or --semantic")
