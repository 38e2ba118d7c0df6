"""The results of a sweep, as the chapters of the report read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from clm_data.domain import Domain
from clm_data.errors import InputFileError
from clm_data.eval import tables
from clm_data.eval.baselines import read_baseline
from clm_data.eval.bilingual import EVALUATION_MEASURES, BilingualText
from clm_data.eval.metrics import PARTS
from clm_data.eval.report.parts import NO_VALUE, Column, columns
from clm_data.eval.results import BaselineResult, CellResult, FactResult, Results, read_cell
from clm_data.records import LANGUAGES, Language

OTHER_LANGUAGE: dict[Language, Language] = {"zh": "en", "en": "zh"}


@dataclass(frozen=True)
class Evaluation:
    """The results of a sweep with the files next to them.

    Attributes:
        folder: Folder of the results.
        results: Content of ``results.json``.
        domains: Domains by id, for their titles.
        unreadable: Why answers before the edit are missing from the page, one message per file.
    """

    folder: Path
    results: Results
    domains: Mapping[str, Domain] = field(default_factory=dict)
    unreadable: dict[str, None] = field(default_factory=dict, init=False)

    @cached_property
    def done(self) -> tuple[CellResult, ...]:
        """The cells that did not fail, with their facts if the files of the cells still exist."""
        cells = [cell for cell in self.results.cells if cell.status == "done"]
        return tuple(self._with_facts(cell) for cell in cells)

    def _with_facts(self, cell: CellResult) -> CellResult:
        """The cell as its file has it, with the label and baseline of this run."""
        found = read_cell(self.folder, cell.key)
        if found is None:
            return cell
        return found.model_copy(update={"setting": cell.setting, "baseline": cell.baseline})

    def baseline(self, cell: CellResult) -> dict[str, BaselineResult]:
        """The unedited model's answers by id of the record; empty if they cannot be read."""
        try:
            return read_baseline(self.folder, cell)
        except InputFileError as error:
            self.unreadable[str(error)] = None
            return {}


def gives_new_answer(item: FactResult, lang: Language) -> bool | None:
    """Whether the edited model gives the new answer: in free generation, or else token by token.

    None if neither was measured.
    """
    measures = item.measures(lang)
    exact = measures.get("exact_match")
    if exact is not None:
        return exact == 1
    reliability = measures.get("reliability")
    return None if reliability is None else reliability == 1


CELL_COLUMNS = columns(
    ("model", "模型", "model", False),
    ("method", "方法", "method", False),
    ("edit", "编辑语言", "edited in", False),
    ("batch_size", "批大小", "batch size"),
    ("note", "备注", "note", False),
)
"""The columns that identify a cell."""
MEASURED_IN = columns(("lang", "测量语言", "measured in", False))


def cell_fields(cell: CellResult) -> tuple[str, ...]:
    """The values of :data:`CELL_COLUMNS`."""
    row = tables.row_of(cell)
    return row.model, row.method, row.language, str(row.batch_size), row.note or NO_VALUE


def _value_columns() -> tuple[Column, ...]:
    chinese = {"zh": "中文", "en": "英文"}
    scores = [
        Column(f"{lang}_score", BilingualText(f"{chinese[lang]}总分", f"{lang} score"))
        for lang in LANGUAGES
    ]
    measures = [
        Column(f"{lang}_{part}", BilingualText(f"{chinese[lang]}{name.zh}", f"{lang} {name.en}"))
        for lang in LANGUAGES
        for part in PARTS
        for name in [EVALUATION_MEASURES[part]]
    ]
    return (*scores, *measures, Column("trans", BilingualText("迁移比", "trans")))


VALUE_COLUMNS = _value_columns()
"""The numeric columns of the paper's tables."""
