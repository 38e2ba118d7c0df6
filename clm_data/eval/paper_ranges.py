"""Ranges that the paper reports for the geometry of edits, for comparison with one's own."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = (
    "CLM-Bench: Benchmarking and Analyzing Cross-lingual Misalignment of LLMs in Knowledge Editing "
    "(Hu, Zhou, Xiao; Tianjin University), Figure 1 and its text (MEMIT)"
)
"""Where the ranges come from."""


@dataclass(frozen=True)
class ReportedRange:
    """A range that the paper reports.

    Attributes:
        comparison: A value of the column ``comparison`` of ``geometry.csv``.
        measures: Values of the column ``measure``; several if the paper does not say which it is.
        low: Lower bound; None if the paper gives none.
        high: Upper bound; None if the paper gives none.
    """

    comparison: str
    measures: tuple[str, ...]
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """The range as text: ``0.027–0.042``, ``> 0.75`` or ``< 0.23``."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g}–{self.high:g}"
        return f"< {self.high:g}" if self.low is None else f"> {self.low:g}"


_JACCARD = ("jaccard_rows", "jaccard_columns", "jaccard_rows_norm", "jaccard_columns_norm")
"""The paper does not say whether a neuron is a row or a column, nor how its change is measured."""
REPORTED_RANGES = (
    ReportedRange("zh-en", ("cosine",), 0.027, 0.042),
    ReportedRange("zh-en", _JACCARD, None, 0.32),
    ReportedRange("sum-mix", ("cosine",), 0.976, None),
    ReportedRange("sum-mix", _JACCARD, 0.75, None),
    ReportedRange("sum-mix", ("relative_error",), None, 0.23),
)


def reported_range(comparison: str, measure: str) -> ReportedRange | None:
    """The range reported for a measure of a comparison; None if the paper reports none."""
    fitting = (
        one for one in REPORTED_RANGES if one.comparison == comparison and measure in one.measures
    )
    return next(fitting, None)
