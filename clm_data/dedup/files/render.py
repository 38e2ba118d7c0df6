"""Write a :class:`~clm_data.dedup.files.report.DedupReport` as JSON, a table or a web page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from clm_data.dedup.files.policies import Cluster, FlaggedRow, NearDuplicate
from clm_data.dedup.files.report import DedupReport
from clm_data.dedup.files.semantic import SemanticDuplicate
from clm_data.dedup.files.tables import dump_json
from clm_data.dedup.files.texts import SEPARATOR
from clm_data.languages import has_han, has_latin
from clm_data.text import visible

MAX_SHOWN = 1_000
"""Clusters, flagged rows and semantic duplicates shown in a table or page."""
_MAX_SHOWN_PER_CLUSTER = 50
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
    """Two similar rows as the page shows them; row numbers are from 1."""

    row: int
    duplicate_of: int
    ratio: float
    field: str
    segments: tuple[Segment, ...]
    lang: str | None


def write_report(report: DedupReport, file: IO[str], format: str) -> None:
    """Write a report; ``format`` is ``json``, ``html`` or ``table``."""
    if format == "json":
        file.writelines(_json(report))
    elif format == "html":
        file.writelines(_html(report))
    else:
        _table(report, file)


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


def _json(report: DedupReport) -> Iterator[str]:
    """Chunks of JSON with one cluster or flagged row per line."""
    yield dump_json(report.summary(), indent=1)[:-2] + ","
    parts: dict[str, Iterator[dict[str, Any]]] = {
        "clusters": (_cluster(report, each) for each in report.selection.clusters()),
        "review": (_flagged(report, each) for each in report.selection.flagged),
    }
    if report.options.semantic is not None:
        parts["semantic"] = (_semantic(report, each) for each in report.semantic)
    comma = ""
    for name, items in parts.items():
        yield f'{comma}\n "{name}": ['
        comma = ","
        item_comma = "\n  "
        for item in items:
            yield item_comma + dump_json(item)
            item_comma = ",\n  "
        yield "\n ]"
    yield "\n}\n"


def _row(report: DedupReport, row: int) -> dict[str, Any]:
    return {"row": row + 1, "texts": report.texts(row)}


def _similarity(report: DedupReport, duplicate: NearDuplicate) -> dict[str, Any]:
    return {
        "ratio": round(duplicate.ratio, 6),
        "field": report.options.column_name(duplicate.column),
    }


def _cluster(report: DedupReport, cluster: Cluster) -> dict[str, Any]:
    return {
        "representative": _row(report, cluster.representative),
        "removed": [
            _row(report, each.row) | _similarity(report, each.duplicate_of)
            for each in cluster.removed
        ],
    }


def _flagged(report: DedupReport, flagged: FlaggedRow) -> dict[str, Any]:
    closest = [_row(report, each.row) | _similarity(report, each) for each in flagged.closest]
    return _row(report, flagged.row) | {"twins": flagged.near_duplicates, "closest": closest}


def _semantic(report: DedupReport, pair: SemanticDuplicate) -> dict[str, Any]:
    rows = [_row(report, pair.left), _row(report, pair.right)]
    return {"rows": rows, "cosine": round(pair.cosine, 6)}


def _table(report: DedupReport, file: IO[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=file, width=None if file.isatty() else 120)
    table = Table(title=str(report), title_justify="left")
    for name in ("kept row", "row", "ratio"):
        table.add_column(name, justify="right")
    for name in ("kept text", "text", "result"):
        table.add_column(name, overflow="fold")
    for row, duplicate, result in islice(_table_rows(report), MAX_SHOWN):
        texts = (_excerpt(report, duplicate.row), _excerpt(report, row), result)
        numbers = (str(duplicate.row + 1), str(row + 1), f"{duplicate.ratio:.4f}")
        table.add_row(*numbers, *map(escape, texts))
    console.print(table)
    selection = report.selection
    count = len(selection.removed) + len(selection.flagged) + len(report.semantic)
    if count > MAX_SHOWN:
        console.print(f"showing the first {MAX_SHOWN} of {count}; a JSON report has all")


def _table_rows(report: DedupReport) -> Iterator[tuple[int, NearDuplicate, str]]:
    for cluster in report.selection.clusters():
        for removal in cluster.removed:
            yield removal.row, removal.duplicate_of, "removed"
    for flagged in report.selection.flagged:
        more = f" (and {flagged.near_duplicates - 1} more)" if flagged.near_duplicates > 1 else ""
        yield flagged.row, flagged.closest[0], f"review: different subject{more}"
    for pair in report.semantic:
        yield pair.right, NearDuplicate(pair.left, pair.cosine, 0), "semantic duplicate"


def _excerpt(report: DedupReport, row: int) -> str:
    text = visible(" | ".join(report.texts(row)))
    return text if len(text) <= 2 * _CONTEXT_LENGTH else f"{text[: 2 * _CONTEXT_LENGTH - 1]}…"


def _html(report: DedupReport) -> Iterator[str]:
    from jinja2 import Environment, StrictUndefined

    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    clusters = (
        (
            len(cluster.removed),
            [
                _row_diff(report, each.row, each.duplicate_of)
                for each in cluster.removed[:_MAX_SHOWN_PER_CLUSTER]
            ],
        )
        for cluster in islice(report.selection.clusters(), MAX_SHOWN)
    )
    flagged = (
        (
            each.near_duplicates,
            [_row_diff(report, each.row, duplicate) for duplicate in each.closest],
        )
        for each in report.selection.flagged[:MAX_SHOWN]
    )
    semantic = (
        _row_diff(report, pair.right, NearDuplicate(pair.left, pair.cosine, 0))
        for pair in report.semantic[:MAX_SHOWN]
    )
    removed = report.selection.removed
    yield from environment.from_string(template).generate(
        report=report,
        options=report.options,
        counts=report.summary(),
        cluster_count=len({removal.duplicate_of.row for removal in removed}),
        clusters=clusters,
        flagged=flagged,
        semantic=semantic,
        max_shown=MAX_SHOWN,
        labels=_LABELS,
        visible=visible,
    )


def _row_diff(report: DedupReport, row: int, duplicate: NearDuplicate) -> RowDiff:
    column = report.columns[duplicate.column]
    kept, text = (column.text(each).replace(SEPARATOR, " | ") for each in (duplicate.row, row))
    return RowDiff(
        row + 1,
        duplicate.row + 1,
        duplicate.ratio,
        report.options.column_name(duplicate.column),
        tuple(_shortened(differences(kept, text))),
        _language(kept),
    )


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
