"""Tables of results in the paper's layout: Markdown, CSV and LaTeX, in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.errors import UnknownNameError
from clm_data.eval.metrics import PARTS
from clm_data.eval.results import CellResult, Results, Setting
from clm_data.records import LANGUAGES

NUMBERS = (
    "zh_score",
    "en_score",
    *(f"{lang}_{part}" for lang in LANGUAGES for part in PARTS),
    "trans",
)
"""The numeric columns, in the paper's order; all are better where they are larger."""
METHOD_NAMES = {
    "memit": "MEMIT",
    "alphaedit": "AlphaEdit",
    "pmet": "PMET",
    "rome": "ROME",
    "ft": "FT-L",
}
"""As printed."""
EXTRA = ("exact_match", "prefers_new", "p_new", "p_old")
"""Beyond the paper, by language."""


def variant_name(variant: Sequence[str]) -> str:
    """A variant of a method (method, protocol, mode, layers) as a heading: ``MEMIT [4 5]``."""
    method, protocol, mode, layers = variant
    parts = [METHOD_NAMES.get(method, method)]
    parts += [protocol] if protocol != "native" else []
    parts += [mode] if mode != "batch" else []
    parts += [f"[{layers}]"] if layers else []
    return " ".join(parts)


@dataclass(frozen=True)
class Row:
    """A printed row.

    Attributes:
        model: As in tables.
        method: As printed.
        language: Of the edits.
        batch_size: Facts edited at once.
        values: By column, in percent; None where there is none.
        note: Layers, mode and protocol where they are not the usual; or why the cell failed.
    """

    model: str
    method: str
    language: str
    batch_size: int
    values: Mapping[str, float | None]
    note: str = ""


def rows_of(results: Results) -> list[Row]:
    """Rows of all cells, in order; a failed cell has no values and says why."""
    return [row_of(cell) for cell in results.cells]


def row_of(cell: CellResult) -> Row:
    """The printed row of one cell."""
    values: dict[str, float | None] = {}
    for name in NUMBERS:
        found = cell.after.get(name)
        values[name] = None if found is None else 100 * found.mean
    return Row(
        cell.setting.model,
        METHOD_NAMES.get(cell.setting.method, cell.setting.method),
        cell.setting.language,
        cell.setting.batch_size,
        values,
        f"failed: {cell.error}" if cell.status == "failed" else _note(cell.setting),
    )


def _note(setting: Setting) -> str:
    parts = [] if setting.protocol == "native" else [setting.protocol]
    if setting.mode != "batch":
        parts.append(setting.mode)
    if setting.layers is not None:
        parts.append("layers " + ",".join(map(str, setting.layers)))
    return "; ".join(parts)


def best_of(rows: Sequence[Row]) -> dict[tuple[int, str], bool]:
    """By row index and column: whether a printed value is the best of its model's rows."""
    best: dict[tuple[int, str], bool] = {}
    for model in dict.fromkeys(row.model for row in rows):
        mine = [i for i, row in enumerate(rows) if row.model == model]
        for name in NUMBERS:
            shown = {i: number(rows[i].values.get(name)) for i in mine}
            known = [float(text) for text in shown.values() if text != _NONE]
            for i, text in shown.items():
                best[i, name] = len(known) > 1 and text != _NONE and float(text) == max(known)
    return best


_NONE = "-"


def number(value: float | None) -> str:
    """Two decimals, as the paper prints."""
    return _NONE if value is None else f"{value:.2f}"


HEADINGS = (
    "model", "method", "edit", "batch", "zh_score", "en_score",
    "zh rel.", "zh gen.", "zh loc.", "en rel.", "en gen.", "en loc.", "trans",
)  # fmt: skip


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; the best values of each model are bold."""
    best, noted = best_of(rows), any(row.note for row in rows)
    heads = [*HEADINGS, *(["note"] if noted else [])]
    lines = [_cells(heads), _cells(["---"] * 4 + ["---:"] * len(NUMBERS) + ["---"] * noted)]
    for i, row in enumerate(rows):
        values = [_bold(number(row.values.get(n)), best[i, n]) for n in NUMBERS]
        lead = [row.model, row.method, row.language, str(row.batch_size)]
        note = [row.note.replace("|", "\\|")] if noted else []
        lines.append(_cells([*lead, *values, *note]))
    return "\n".join(lines) + "\n"


def _cells(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def csv_table(rows: Sequence[Row]) -> str:
    """CSV with a column `best` that names the columns in which the row is its model's best."""
    best = best_of(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "method", "edit_language", "batch_size", *NUMBERS, "best", "note"])
    for i, row in enumerate(rows):
        values = ["" if row.values.get(n) is None else number(row.values.get(n)) for n in NUMBERS]
        names = " ".join(n for n in NUMBERS if best[i, n])
        lead = [row.model, row.method, row.language, row.batch_size]
        writer.writerow([*lead, *values, names, row.note])
    return out.getvalue()


def latex(rows: Sequence[Row]) -> str:
    r"""A LaTeX table (packages `booktabs`, `multirow`); models are set apart by rules."""
    best = best_of(rows)
    head = [
        r"\begin{tabular}{lllr" + "r" * len(NUMBERS) + "}",
        r"\toprule",
        r"& & & & & & \multicolumn{3}{c}{Chinese} & \multicolumn{3}{c}{English} & \\",
        r"\cmidrule(lr){7-9} \cmidrule(lr){10-12}",
        r"Model & Method & Edit & Batch & zh\_score & en\_score & Rel. & Gen. & Loc. "
        r"& Rel. & Gen. & Loc. & Trans \\",
    ]
    lines, previous = head, ""
    for i, row in enumerate(rows):
        if row.model != previous:
            span = sum(1 for other in rows[i:] if other.model == row.model)
            lines.append(r"\midrule")
            first = rf"\multirow{{{span}}}{{*}}{{{tex_text(row.model)}}}"
        else:
            first = ""
        previous = row.model
        values = [
            rf"\textbf{{{number(row.values.get(n))}}}"
            if best[i, n]
            else number(row.values.get(n)).replace(_NONE, "--")
            if row.values.get(n) is None
            else number(row.values.get(n))
            for n in NUMBERS
        ]
        lead = [first, tex_text(row.method), row.language, str(row.batch_size)]
        note = f" % {' '.join(row.note.split())}" if row.note else ""
        lines.append(" & ".join([*lead, *values]) + r" \\" + note)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}


def tex_text(text: str) -> str:
    """A text as LaTeX sets it, every mark itself."""
    return "".join(_TEX.get(mark, mark) for mark in text)


FORMATS: dict[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "markdown": ("table.md", markdown),
    "csv": ("table.csv", csv_table),
    "latex": ("table.tex", latex),
}
"""By name: the file it goes to and what makes it."""


def as_text(rows: Sequence[Row], format: str) -> str:
    """A table in one of :data:`FORMATS`.

    Raises:
        UnknownNameError: No such format.
    """
    if format not in FORMATS:
        raise UnknownNameError("table format", format, FORMATS)
    return FORMATS[format][1](rows)


def write_tables(folder: Path, results: Results) -> None:
    """Write the tables in every format; the Markdown page also says what else was measured."""
    rows = rows_of(results)
    for name, (file, make) in FORMATS.items():
        text = page(results) if name == "markdown" else make(rows)
        (folder / file).write_text(text, encoding="utf-8")


def page(results: Results) -> str:
    """The Markdown page of a sweep: table, what lies beyond the paper's columns, failures."""
    rows = rows_of(results)
    lines = [
        f"# {results.title}",
        "",
        f"{results.records} records of {results.dataset}; in percent; the best of each model "
        "is bold. Formulas: docs/reference/metrics.md.",
        "",
        markdown(rows),
    ]
    done = [cell for cell in results.cells if cell.status == "done"]
    if done:
        lines += ["## Before and after, with 95 % intervals", "", _beyond(done)]
    refused = [(cell, one) for cell in done for one in cell.refused]
    if refused:
        lines += ["## Facts that could not be edited", ""]
        lines += [f"- {cell.setting.label}: {one.id}: {one.reason}" for cell, one in refused[:20]]
        more = len(refused) - 20
        lines += [f"- and {more} more, in results.json"] if more > 0 else []
        lines.append("")
    if results.failed:
        lines += ["## Cells that failed", ""]
        lines += [f"- {cell.setting.label}: {cell.error}" for cell in results.failed]
        lines.append("")
    return "\n".join(lines)


def _beyond(cells: Sequence[CellResult]) -> str:
    columns = [
        f"{lang} {name}"
        for lang in LANGUAGES
        for name in ("reliability", "known before", *EXTRA[:2], "p(new)", "p(old)")
    ]
    lines = [_cells(["cell", *columns]), _cells(["---"] + ["---:"] * len(columns))]
    for cell in cells:
        shown = []
        for lang in LANGUAGES:
            shown.append(_range(cell, f"{lang}_reliability"))
            shown.append(_mean(cell.before, f"{lang}_truth"))
            for name in EXTRA:
                before, after = (_mean(s, f"{lang}_{name}") for s in (cell.before, cell.after))
                shown.append(f"{before} → {after}")
        lines.append(_cells([cell.setting.label, *shown]))
    return "\n".join(lines) + "\n"


def _mean(summary: Mapping[str, Any], name: str) -> str:
    found = summary.get(name)
    return _NONE if found is None else f"{100 * found.mean:.1f}"


def _range(cell: CellResult, name: str) -> str:
    found = cell.after.get(name)
    if found is None:
        return _NONE
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def in_words(cell: CellResult) -> str:
    """A cell in a line, for progress."""
    texts = [
        f"{lang} {_mean(cell.after, f'{lang}_reliability')}/{_mean(cell.after, f'{lang}_locality')}"
        for lang in LANGUAGES
    ]
    refused = f", {len(cell.refused)} refused" if cell.refused else ""
    return f"reliability/locality {', '.join(texts)}{refused}"
