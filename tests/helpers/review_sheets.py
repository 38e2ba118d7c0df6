"""Candidates to review, and review sheets that are exported, edited and imported."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clm_data.records import Candidate, LooseFact, Origin
from clm_data.review.decisions import current_contents
from clm_data.review.intake import ImportReport, import_sheet
from clm_data.review.queue import item_of
from clm_data.review.sheet import COLUMNS, write_csv
from clm_data.store import Store
from helpers.example_records import example_fact

Row = dict[str, str]


def candidate(number: int, **zh: str | None) -> Candidate:
    """A candidate about river ``number``, with Chinese texts replaced by keywords."""
    facts = {lang: example_fact(lang, number).model_dump() for lang in ("zh", "en")}
    return Candidate(
        id=f"clm-{number:012x}",
        domain="rivers" if number % 2 else "hills",
        origin=Origin(kind="bank", name="bank-1"),
        zh=LooseFact(**(facts["zh"] | zh)),
        en=LooseFact(**facts["en"]),
    )


def candidates(count: int) -> list[Candidate]:
    """Candidates about the rivers 1 to ``count``."""
    return [candidate(number) for number in range(1, count + 1)]


def exported_rows(contents: Iterable[Candidate]) -> list[Row]:
    """The rows of an exported sheet, with cells as a spreadsheet program shows them."""
    text = write_csv([item_of(content) for content in contents]).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def csv_bytes(
    rows: Sequence[Row],
    *,
    columns: Sequence[str] = COLUMNS,
    encoding: str = "utf-8-sig",
    delimiter: str = ",",
    line_end: str = "\r\n",
) -> bytes:
    """A CSV file with these rows, as a spreadsheet program might save it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    writer.writerow(columns)
    writer.writerows([row.get(column, "") for column in columns] for row in rows)
    return out.getvalue().encode(encoding)


class ReviewFolder:
    """A folder with a store of decisions on some candidates, and the sheets to import."""

    def __init__(self, folder: Path, contents: Sequence[Candidate]) -> None:
        self.folder = folder
        self.candidates = list(contents)
        self.store = Store(f"sqlite:///{folder / 'clm.db'}")

    def export_rows(self) -> list[Row]:
        """The rows of a sheet exported now."""
        decisions = self.store.decisions()
        contents = current_contents(self.candidates, decisions)
        items = [
            item_of(content, decisions=sum(d.entry_id == content.id for d in decisions))
            for content in contents.values()
        ]
        text = write_csv(items).decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def import_rows(
        self,
        sheet: Sequence[Row] | bytes,
        *,
        reviewer: str | None = "Li Na",
        dry_run: bool = False,
        name: str = "sheet.csv",
        check: Callable[[Candidate], list[object]] | None = None,
    ) -> ImportReport:
        """Save rows or the bytes of a file as a sheet, and import it."""
        path = self.folder / name
        path.write_bytes(sheet if isinstance(sheet, bytes) else csv_bytes(sheet))
        return import_sheet(
            self.store,
            self.candidates,
            path,
            reviewer=reviewer,
            dry_run=dry_run,
            check=check,  # type: ignore[arg-type]
        )
