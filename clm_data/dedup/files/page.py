"""The web page of a deduplication: differences between texts, and the page that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from clm_data.languages import has_han, has_latin
from clm_data.text import visible

MAX_SHOWN = 1_000
"""Clusters, flagged rows and semantic duplicates shown in a table or page."""
_MAX_DIFF_LENGTH = 1_000
"""Longest text compared character by character for display."""
_CONTEXT_LENGTH = 60
"""Characters shown on either side of a difference."""
_LABELS = {"normalised": "normalized", "semantic_twins": "semantic duplicates"}
"""How the page names entries of the summary, if not by their key."""


class Segment(NamedTuple):
    """A segment of the alignment of two texts: ``same``, only in ``kept``, only in ``removed``."""

    kind: str
    text: str


class RowDiff(NamedTuple):
    """Two similar rows as the page shows them; row numbers start at 1."""

    row: int
    duplicate_of: int
    ratio: float
    field: str
    segments: tuple[Segment, ...]
    lang: str | None


def row_diff(rows: tuple[int, int], texts: tuple[str, str], ratio: float, field: str) -> RowDiff:
    """Compare the texts of two similar rows.

    Args:
        rows: Positions, from 0, of the kept row and the other one.
        texts: Their texts in the same order.
        ratio: Their similarity.
        field: The compared field or fields.
    """
    segments = tuple(_shortened(differences(*texts)))
    return RowDiff(rows[1] + 1, rows[0] + 1, ratio, field, segments, _language(texts[0]))


def render_page(
    title: str,
    headline: str,
    counts: dict[str, Any],
    clusters: Iterable[tuple[int, list[RowDiff]]],
    flagged: Iterable[tuple[int, list[RowDiff]]],
    semantic: Iterable[RowDiff],
    cluster_count: int,
) -> Iterator[str]:
    """The page, in chunks of HTML.

    Args:
        title: What was deduplicated.
        headline: The result as one line.
        counts: Options and counts.
        clusters: The number of removed rows of each cluster, and some of them.
        flagged: The number of near-duplicates of each flagged row, and the closest.
        semantic: Pairs of semantic duplicates.
        cluster_count: Number of clusters in all.
    """
    from jinja2 import Environment, StrictUndefined

    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    yield from environment.from_string(template).generate(
        title=title,
        headline=headline,
        counts=counts,
        clusters=clusters,
        flagged=flagged,
        semantic=semantic,
        cluster_count=cluster_count,
        max_shown=MAX_SHOWN,
        labels=_LABELS,
        visible=visible,
    )


def differences(kept: str, removed: str) -> list[Segment]:
    """Align two texts with as many characters in common as possible.

    The common prefix and suffix of long texts are found first; if the rest is still long, it is
    returned as two segments.
    """
    from rapidfuzz.distance import Indel

    start = _common_prefix(kept, removed)
    stop = start - 1 if start else None
    end = _common_prefix(kept[:stop:-1], removed[:stop:-1])
    kept_rest, removed_rest = kept[start : len(kept) - end], removed[start : len(removed) - end]
    found = [Segment("same", kept[:start])]
    if max(len(kept_rest), len(removed_rest)) > _MAX_DIFF_LENGTH:
        found += [Segment("removed", removed_rest), Segment("kept", kept_rest)]
    else:
        for step in Indel.opcodes(kept_rest, removed_rest):
            if step.tag == "equal":
                found.append(Segment("same", kept_rest[step.src_start : step.src_end]))
            else:
                found.append(Segment("removed", removed_rest[step.dest_start : step.dest_end]))
                found.append(Segment("kept", kept_rest[step.src_start : step.src_end]))
    found.append(Segment("same", kept[len(kept) - end :]))
    return [segment for segment in found if segment.text]


def _common_prefix(left: str, right: str) -> int:
    """Length of the common prefix."""
    size = min(len(left), len(right))
    return next((at for at in range(size) if left[at] != right[at]), size)


def _shortened(segments: list[Segment]) -> Iterator[Segment]:
    """Replace the middle of long segments with an ellipsis."""
    for kind, text in segments:
        limit = 2 * _CONTEXT_LENGTH if kind == "same" else _MAX_DIFF_LENGTH
        cut = len(text) > limit
        yield Segment(kind, f"{text[: limit // 2]} … {text[-limit // 2 :]}" if cut else text)


def _language(text: str) -> str | None:
    """The ``lang`` attribute for a text, by its script; None if it has neither."""
    if has_han(text):
        return "zh"
    return "en" if has_latin(text) else None
