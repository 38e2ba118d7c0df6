"""What a deduplication did, for people and programs: as JSON, as a table, as one web page.

Rows are numbered from 1, in the order of the file. The JSON has everything; table and page show the
first :data:`SHOWN` clusters and flagged rows, and say how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from clm_data.dedup.files.policies import Cluster, NearDuplicate, Outcome, Review, View
from clm_data.dedup.files.semantic import SemanticTwin
from clm_data.languages import has_han, has_latin
from clm_data.text import visible

SHOWN = 1_000
_OF_A_CLUSTER = 50
SEPARATOR = "\x1f"
"""Stands between the texts of fields that are compared as one."""
_LONGEST_DIFFERENCE = 1_000
"""Characters of a text that are compared character by character for display."""
_CONTEXT = 60
"""Characters that are shown on either side of a difference."""


class Segment(NamedTuple):
    """A stretch of two texts laid over each other: ``same``, ``kept`` only or ``removed`` only."""

    kind: str
    text: str


class Compared(NamedTuple):
    """Two rows side by side, as the page shows them."""

    row: int
    twin: int
    ratio: float
    field: str
    segments: tuple[Segment, ...]
    lang: str | None


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    file: str
    fields: tuple[str, ...]
    threshold: float
    policy: str
    each_field: bool = False
    normalised: bool = False
    score: str | None = None
    subject: str | None = None
    semantic: str | None = None
    semantic_threshold: float | None = None

    def view_name(self, view: int) -> str:
        """The field or fields that a view compares."""
        return self.fields[view] if self.each_field else " + ".join(self.fields)


@dataclass(frozen=True)
class Report:
    """What a deduplication did.

    Attributes:
        settings: What was asked for.
        views: The texts that were compared.
        outcome: What became of the rows.
        semantic: Semantic twins, if they were asked for.
        subjects_left_out: Subjects with too many rows for the search of semantic twins.
    """

    settings: Settings
    views: tuple[View, ...]
    outcome: Outcome
    semantic: tuple[SemanticTwin, ...] = ()
    subjects_left_out: int = 0

    def summary(self) -> dict[str, Any]:
        """Settings and counts."""
        rows = len(self.outcome.stays)
        settings = {
            "file": self.settings.file,
            "fields": list(self.settings.fields),
            "threshold": self.settings.threshold,
            "policy": self.settings.policy,
            "each_field": self.settings.each_field,
            "normalised": self.settings.normalised,
            "score": self.settings.score,
            "subject": self.settings.subject,
        }
        counts: dict[str, Any] = {
            "rows": rows,
            "kept": rows - len(self.outcome.removed),
            "removed": len(self.outcome.removed),
            "flagged_rows": len(self.outcome.review),
            "flagged_pairs": self.outcome.pairs_to_review,
            "not_compared": self.not_compared,
        }
        if self.settings.semantic is not None:
            settings["semantic"] = self.settings.semantic
            settings["semantic_threshold"] = self.settings.semantic_threshold
            counts["semantic_twins"] = len(self.semantic)
            counts["subjects_left_out"] = self.subjects_left_out
        return settings | counts

    @property
    def not_compared(self) -> int:
        """Rows without any text; they stay."""
        units = zip(*(view.units for view in self.views), strict=True)
        return sum(max(each) < 0 for each in units)

    def texts(self, row: int) -> list[str]:
        """What was compared of a row, field by field."""
        if self.settings.each_field:
            return [view.text(row) for view in self.views]
        joined = self.views[0].text(row)
        return joined.split(SEPARATOR) if len(self.settings.fields) > 1 else [joined]

    def write(self, path: Path, form: str) -> None:
        """Write the report.

        Args:
            path: A file.
            form: ``json``, ``html`` or ``table``.

        Raises:
            OSError: It cannot be written.
        """
        with path.open("w", encoding="utf-8", newline="\n") as into:
            self.write_to(into, form)

    def write_to(self, into: IO[str], form: str) -> None:
        """Write the report to an open text stream."""
        if form == "json":
            into.writelines(self._json())
        elif form == "html":
            into.writelines(self._html())
        else:
            self._table(into)

    def _json(self) -> Iterator[str]:
        """Piece by piece: one cluster or flagged row a line."""
        yield _dumped(self.summary(), indent=1)[:-2] + ","
        parts: dict[str, Iterator[dict[str, Any]]] = {
            "clusters": (self._cluster(cluster) for cluster in self.outcome.clusters()),
            "review": (self._review(review) for review in self.outcome.review),
        }
        if self.settings.semantic is not None:
            parts["semantic"] = (self._semantic(twin) for twin in self.semantic)
        comma = ""
        for name, items in parts.items():
            yield f'{comma}\n "{name}": ['
            comma = ","
            between = "\n  "
            for item in items:
                yield between + _dumped(item)
                between = ",\n  "
            yield "\n ]"
        yield "\n}\n"

    def _row(self, row: int) -> dict[str, Any]:
        return {"row": row + 1, "texts": self.texts(row)}

    def _twin(self, twin: NearDuplicate) -> dict[str, Any]:
        return {
            "ratio": round(twin.ratio, 6),
            "field": self.settings.view_name(twin.view),
        }

    def _cluster(self, cluster: Cluster) -> dict[str, Any]:
        return {
            "representative": self._row(cluster.representative),
            "removed": [self._row(each.row) | self._twin(each.twin) for each in cluster.removed],
        }

    def _review(self, review: Review) -> dict[str, Any]:
        closest = [self._row(twin.row) | self._twin(twin) for twin in review.closest]
        return self._row(review.row) | {"twins": review.twins, "closest": closest}

    def _semantic(self, twin: SemanticTwin) -> dict[str, Any]:
        left, right = self._row(twin.left), self._row(twin.right)
        return {"rows": [left, right], "cosine": round(twin.cosine, 6)}

    def _table(self, into: IO[str]) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = Console(file=into, width=None if into.isatty() else 120)
        rows = [
            (twin.row + 1, row + 1, twin.ratio, self._quoted(twin.row), self._quoted(row), what)
            for row, twin, what in islice(self._lines(), SHOWN)
        ]
        table = Table(title=self.in_words(), title_justify="left")
        for name in ("kept row", "row", "ratio"):
            table.add_column(name, justify="right")
        for name in ("kept", "its twin", "what"):
            table.add_column(name, overflow="fold")
        for kept, row, ratio, text, other, what in rows:
            cells = (escape(cell) for cell in (text, other, what))
            table.add_row(str(kept), str(row), f"{ratio:.4f}", *cells)
        console.print(table)
        lines = len(self.outcome.removed) + len(self.outcome.review) + len(self.semantic)
        if lines > SHOWN:
            console.print(f"the first {SHOWN} of {lines}; a report in JSON has all")

    def _lines(self) -> Iterator[tuple[int, NearDuplicate, str]]:
        for cluster in self.outcome.clusters():
            for removal in cluster.removed:
                yield removal.row, removal.twin, "removed"
        for review in self.outcome.review:
            more = f" (and {review.twins - 1} more)" if review.twins > 1 else ""
            yield review.row, review.closest[0], f"review: other subject{more}"
        for twin in self.semantic:
            yield twin.right, NearDuplicate(twin.left, twin.cosine, 0), "semantic twin"

    def in_words(self) -> str:
        """One line: what was kept and what was not."""
        found = self.summary()
        words = f"{found['rows']} rows: {found['kept']} kept, {found['removed']} removed"
        if self.settings.subject is not None and self.outcome.review:
            words += f", {found['flagged_rows']} flagged for review"
        if self.settings.semantic is not None:
            words += f", {len(self.semantic)} pairs of semantic twins"
            if self.subjects_left_out:
                words += f" ({self.subjects_left_out} subjects with too many rows left out)"
        if found["not_compared"]:
            words += f"; {found['not_compared']} without text are kept and not compared"
        return words

    def _quoted(self, row: int) -> str:
        text = visible(" | ".join(self.texts(row)))
        return text if len(text) <= 2 * _CONTEXT else f"{text[: 2 * _CONTEXT - 1]}…"

    def _html(self) -> Iterator[str]:
        from jinja2 import Environment, StrictUndefined

        source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        clusters = (
            (
                len(cluster.removed),
                [self._compared(each.row, each.twin) for each in cluster.removed[:_OF_A_CLUSTER]],
            )
            for cluster in islice(self.outcome.clusters(), SHOWN)
        )
        review = (
            (review.twins, [self._compared(review.row, twin) for twin in review.closest])
            for review in self.outcome.review[:SHOWN]
        )
        semantic = (
            self._compared(twin.right, NearDuplicate(twin.left, twin.cosine, 0))
            for twin in self.semantic[:SHOWN]
        )
        yield from environment.from_string(source).generate(
            report=self,
            settings=self.settings,
            counts=self.summary(),
            cluster_count=len({removal.twin.row for removal in self.outcome.removed}),
            clusters=clusters,
            review=review,
            semantic=semantic,
            shown=SHOWN,
            visible=visible,
        )

    def _compared(self, row: int, twin: NearDuplicate) -> Compared:
        view = twin.view if self.settings.each_field else 0
        kept, other = (
            self.views[view].text(each).replace(SEPARATOR, " | ") for each in (twin.row, row)
        )
        return Compared(
            row + 1,
            twin.row + 1,
            twin.ratio,
            self.settings.view_name(twin.view),
            tuple(_shortened(differences(kept, other))),
            _language(kept),
        )


def _dumped(value: Any, indent: int | None = None) -> str:
    """JSON; half of a surrogate pair, which JSON texts may hold, as an escape."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def differences(kept: str, removed: str) -> list[Segment]:
    """Two texts laid over each other, with as much the same as can be.

    What is same at the beginning and the end of long texts is found first; a middle that is still
    long is given as a whole.
    """
    from rapidfuzz.distance import Indel

    start = _common(kept, removed)
    end = _common(
        kept[: start - 1 if start else None : -1], removed[: start - 1 if start else None : -1]
    )
    one, two = kept[start : len(kept) - end], removed[start : len(removed) - end]
    found = [Segment("same", kept[:start])]
    if max(len(one), len(two)) > _LONGEST_DIFFERENCE:
        found += [Segment("removed", two), Segment("kept", one)]
    else:
        for step in Indel.opcodes(one, two):
            if step.tag == "equal":
                found.append(Segment("same", one[step.src_start : step.src_end]))
            else:
                found.append(Segment("removed", two[step.dest_start : step.dest_end]))
                found.append(Segment("kept", one[step.src_start : step.src_end]))
    found.append(Segment("same", kept[len(kept) - end :]))
    return [segment for segment in found if segment.text]


def _common(left: str, right: str) -> int:
    """How many characters two texts begin with in common."""
    size = min(len(left), len(right))
    return next((at for at in range(size) if left[at] != right[at]), size)


def _shortened(segments: list[Segment]) -> Iterator[Segment]:
    """Segments with the middle of long ones left out."""
    for kind, text in segments:
        room = 2 * _CONTEXT if kind == "same" else _LONGEST_DIFFERENCE
        cut = len(text) > room
        yield Segment(kind, f"{text[: room // 2]} … {text[-room // 2 :]}" if cut else text)


def _language(text: str) -> str | None:
    """For the page's ``lang``: by script; None where nothing tells."""
    if has_han(text):
        return "zh"
    return "en" if has_latin(text) else None
