"""The paper's figures on the geometry of edits, as reference lines."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = (
    "CLM-Bench: Benchmarking and Analyzing Cross-lingual Misalignment of LLMs in Knowledge Editing "
    "(Hu, Zhou, Xiao; Tianjin University), Figure 1 and its text (MEMIT)"
)
"""Where they come from."""


@dataclass(frozen=True)
class PaperLine:
    """A range that the paper states.

    Attributes:
        comparison: As in ``geometry.csv``.
        measures: As in ``geometry.csv``; several where the paper does not say which of them it is.
        low: Lower end; None: none is stated.
        high: Upper end; None: none is stated.
    """

    comparison: str
    measures: tuple[str, ...]
    low: float | None
    high: float | None

    @property
    def words(self) -> str:
        """As the paper puts it."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g}-{self.high:g}"
        return f"under {self.high:g}" if self.low is None else f"over {self.low:g}"


_JACCARD = ("jaccard_rows", "jaccard_columns", "jaccard_rows_norm", "jaccard_columns_norm")
"""The paper does not say whether a neuron is a row or a column, nor how its change is measured."""
PAPER_LINES = (
    PaperLine("zh-en", ("cosine",), 0.027, 0.042),
    PaperLine("zh-en", _JACCARD, None, 0.32),
    PaperLine("sum-mix", ("cosine",), 0.976, None),
    PaperLine("sum-mix", _JACCARD, 0.75, None),
    PaperLine("sum-mix", ("relative_error",), None, 0.23),
)


def line_for(comparison: str, measure: str) -> PaperLine | None:
    """What the paper states of a measure of a comparison; None where it states nothing."""
    fitting = (
        line for line in PAPER_LINES if line.comparison == comparison and measure in line.measures
    )
    return next(fitting, None)
