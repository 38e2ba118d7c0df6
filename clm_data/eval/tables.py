"""Result tables in the paper's layout, as Markdown, CSV and LaTeX. Values are in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_data.errors import UnknownNameError
from clm_data.eval.engines import EngineRow, engine_rows
from clm_data.eval.intervals import Interval
from clm_data.eval.metrics import PAPER_MEASURES
from clm_data.eval.results import EASYEDIT, CellResult, Results, Summary
from clm_data.files import atomic_file
from clm_data.records import LANGUAGES

METHOD_NAMES = {
    "memit": "MEMIT",
    "alphaedit": "AlphaEdit",
    "langedit": "LangEdit",
    "pmet": "PMET",
    "rome": "ROME",
    "ft": "FT-L",
    "ft-m": "FT-M",
    "locft-bf": "LocFT-BF",
    "lora": "LoRA",
    "ultraedit": "UltraEdit",
    "grace": "GRACE",
    "wise": "WISE",
    "ice-oracle": "ICE oracle",
    "ice-retrieved": "ICE retrieved",
    "ike": "IKE",
}
"""Names of the methods in tables."""
EXTRA_MEASURES = ("exact_match", "prefers_new", "p_new", "p_old")
"""Measures of each language that the paper does not have."""


def method_title(method: str) -> str:
    """A method as printed: `MEMIT`, or `MEMIT (EasyEdit)` for `memit (EasyEdit)`."""
    name, engine = method.removesuffix(f" ({EASYEDIT})"), f" ({EASYEDIT})"
    return METHOD_NAMES.get(name, name) + (engine if method.endswith(engine) else "")


def variant_name(variant: Sequence[str]) -> str:
    """A variant of a method (method, protocol, mode, layers) as a heading: `MEMIT [4 5]`."""
    method, protocol, mode, layers = variant
    parts = [method_title(method)]
    parts += [protocol] if protocol != "native" else []
    parts += [mode] if mode != "batch" else []
    parts += [f"[{layers}]"] if layers else []
    return " ".join(parts)


@dataclass(frozen=True)
class TableRow:
    """A row of a result table.

    Attributes:
        model: Label of the model.
        method: Name of the method as printed.
        language: Language of the edits: zh, en or mix.
        batch_size: Facts per edit.
        values: Percentages by column; None if there is no value.
        note: Layers, mode and protocol if they are not the default, or why the cell failed.
    """

    model: str
    method: str
    language: str
    batch_size: int
    values: Mapping[str, float | None]
    note: str = ""


def rows_of(results: Results) -> list[TableRow]:
    """One row per cell; the row of a failed cell has no values, and the reason as its note."""
    return [row_of(cell) for cell in results.cells]


def row_of(cell: CellResult) -> TableRow:
    """The row of a cell."""
    values: dict[str, float | None] = {}
    for name in PAPER_MEASURES:
        found = cell.after.get(name)
        values[name] = None if found is None else 100 * found.mean
    return TableRow(
        cell.setting.model,
        method_title(cell.setting.engine_method),
        cell.setting.language,
        cell.setting.batch_size,
        values,
        f"failed: {cell.error}" if cell.status == "failed" else _note(cell),
    )


def _note(cell: CellResult) -> str:
    setting = cell.setting
    parts = [] if setting.protocol == "native" else [f"protocol {setting.protocol}"]
    if setting.mode != "batch":
        parts.append(setting.mode)
    if setting.layers is not None:
        parts.append("layers " + ",".join(map(str, setting.layers)))
    if cell.engine_version:
        parts.append(cell.engine_version)
    return "; ".join(parts)


def best_of(rows: Sequence[TableRow]) -> dict[tuple[int, str], bool]:
    """By row index and column: whether a value is the best of its model, as printed.

    Equal printed values are all best; a column with a single value has no best.
    """
    best: dict[tuple[int, str], bool] = {}
    for model in dict.fromkeys(row.model for row in rows):
        mine = [i for i, row in enumerate(rows) if row.model == model]
        for name in PAPER_MEASURES:
            values = {i: rows[i].values.get(name) for i in mine}
            printed = {i: float(format_value(v)) for i, v in values.items() if v is not None}
            for i in mine:
                best[i, name] = len(printed) > 1 and printed.get(i) == max(printed.values())
    return best


MISSING = "-"


def format_value(value: float | None, missing: str = MISSING) -> str:
    """A value with two decimals, as in the paper; `missing` for None."""
    return missing if value is None else f"{value:.2f}"


def format_difference(value: float | None, missing: str = MISSING) -> str:
    """A difference with sign and two decimals; `missing` for None."""
    return missing if value is None else f"{value:+.2f}"


HEADINGS = (
    "model", "method", "edit", "batch", "zh_score", "en_score",
    "zh rel.", "zh gen.", "zh loc.", "en rel.", "en gen.", "en loc.", "trans",
)  # fmt: skip


def markdown(rows: Sequence[TableRow]) -> str:
    """A Markdown table. The best values of each model are bold."""
    best, has_notes = best_of(rows), any(row.note for row in rows)
    heads = [*HEADINGS, *(["note"] if has_notes else [])]
    lines = [
        _cells(heads),
        _cells(["---"] * 4 + ["---:"] * len(PAPER_MEASURES) + ["---"] * has_notes),
    ]
    for i, row in enumerate(rows):
        values = [_bold(format_value(row.values.get(n)), best[i, n]) for n in PAPER_MEASURES]
        lead = [row.model, row.method, row.language, str(row.batch_size)]
        note = [row.note.replace("|", "\\|")] if has_notes else []
        lines.append(_cells([*lead, *values, *note]))
    return "\n".join(lines) + "\n"


def _cells(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def csv_table(rows: Sequence[TableRow]) -> str:
    """CSV. The column `best` names the columns in which the row is the best of its model."""
    best = best_of(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["model", "method", "edit_language", "batch_size", *PAPER_MEASURES, "best", "note"]
    )
    for i, row in enumerate(rows):
        values = [format_value(row.values.get(n), missing="") for n in PAPER_MEASURES]
        names = " ".join(n for n in PAPER_MEASURES if best[i, n])
        lead = [row.model, row.method, row.language, row.batch_size]
        writer.writerow([*lead, *values, names, row.note])
    return out.getvalue()


def latex(rows: Sequence[TableRow]) -> str:
    r"""A LaTeX table with a rule between models; needs the packages `booktabs` and `multirow`."""
    best = best_of(rows)
    head = [
        r"\begin{tabular}{lllr" + "r" * len(PAPER_MEASURES) + "}",
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
        texts = {name: format_value(row.values.get(name), missing="--") for name in PAPER_MEASURES}
        values = [rf"\textbf{{{texts[n]}}}" if best[i, n] else texts[n] for n in PAPER_MEASURES]
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
    """A text with the special characters of LaTeX escaped."""
    return "".join(_TEX.get(mark, mark) for mark in text)


FORMATS: dict[str, tuple[str, Callable[[Sequence[TableRow]], str]]] = {
    "markdown": ("table.md", markdown),
    "csv": ("table.csv", csv_table),
    "latex": ("table.tex", latex),
}
"""By name of the format: the file name and the function that renders it."""


def as_text(rows: Sequence[TableRow], format: str) -> str:
    """Render a table in one of :data:`FORMATS`.

    Raises:
        UnknownNameError: There is no such format.
    """
    if format not in FORMATS:
        raise UnknownNameError("table format", format, FORMATS)
    return FORMATS[format][1](rows)


def write_tables(folder: Path, results: Results) -> None:
    """Write the table in every format; the Markdown file is :func:`page`."""
    rows = rows_of(results)
    for name, (file, make) in FORMATS.items():
        text = page(results) if name == "markdown" else make(rows)
        with atomic_file(folder / file, overwrite=True) as draft:
            draft.write_text(text, encoding="utf-8")


def page(results: Results) -> str:
    """The Markdown page of a sweep: the table, further measures, refused edits and failures."""
    rows = rows_of(results)
    lines = [
        f"# {results.title}",
        "",
        f"{results.records} records of {results.dataset}. Values are in percent; the best of each "
        "model is bold. Formulas: docs/reference/metrics.md.",
        "",
        markdown(rows),
    ]
    if notices := [*results.losses, *results.warnings]:
        lines += ["Missing from these numbers, or to be read with care:", ""]
        lines += [*(f"- {line}" for line in notices[:20])]
        more = len(notices) - 20
        lines += [f"- and {more} more; see results.json"] if more > 0 else []
        lines.append("")
    done = [cell for cell in results.cells if cell.status == "done"]
    if done:
        lines += [
            "## Before and after the edit, with 95 % confidence intervals",
            "",
            _further_measures(done),
        ]
    if pairs := engine_rows(results):
        lines += [f"## {EASYEDIT} and clm-data on the same settings", "", engine_table(pairs)]
    refused = [(cell, one) for cell in done for one in cell.refused]
    if refused:
        lines += ["## Refused edits", ""]
        lines += [f"- {cell.setting.label}: {one.id}: {one.reason}" for cell, one in refused[:20]]
        more = len(refused) - 20
        lines += [f"- and {more} more; see results.json"] if more > 0 else []
        lines.append("")
    if results.failed:
        lines += ["## Failed cells", ""]
        lines += [f"- {cell.setting.label}: {cell.error}" for cell in results.failed]
        lines.append("")
    return "\n".join(lines)


ENGINE_HEADINGS = ("cell", *PAPER_MEASURES, "change: rel. diff.", "change: cosine", "version")


def engine_fields(row: EngineRow) -> tuple[str, ...]:
    """A row under :data:`ENGINE_HEADINGS`: differences in percentage points."""
    return (
        row.setting.model_copy(update={"backend": "clm-data"}).label,
        *(format_difference(row.differences[name]) for name in PAPER_MEASURES),
        MISSING if row.relative is None else f"{row.relative:.1e}",
        MISSING if row.cosine is None else f"{row.cosine:.6f}",
        row.version,
    )


def engine_table(rows: Sequence[EngineRow]) -> str:
    """EasyEdit's cells minus ours, as Markdown."""
    lines = [
        f"Measures: {EASYEDIT} minus clm-data, in percentage points. Changes of weights, or keys "
        "and values of a codebook: the largest relative difference of one, and the smallest "
        "cosine; they need --save-deltas.",
        "",
        _cells(ENGINE_HEADINGS),
        _cells(["---"] + ["---:"] * (len(ENGINE_HEADINGS) - 2) + ["---"]),
        *(_cells(engine_fields(row)) for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _further_measures(cells: Sequence[CellResult]) -> str:
    columns = [
        f"{lang} {name}"
        for lang in LANGUAGES
        for name in ("reliability", "known before", *EXTRA_MEASURES[:2], "p(new)", "p(old)")
    ]
    lines = [_cells(["cell", *columns]), _cells(["---"] + ["---:"] * len(columns))]
    for cell in cells:
        shown = []
        for lang in LANGUAGES:
            shown.append(_interval(cell.after.get(f"{lang}_reliability")))
            shown.append(_mean(cell.before, f"{lang}_truth"))
            for name in EXTRA_MEASURES:
                before, after = (_mean(s, f"{lang}_{name}") for s in (cell.before, cell.after))
                shown.append(f"{before} → {after}")
        lines.append(_cells([cell.setting.label, *shown]))
    return "\n".join(lines) + "\n"


def _mean(summary: Summary, name: str) -> str:
    found = summary.get(name)
    return MISSING if found is None else f"{100 * found.mean:.1f}"


def _interval(found: Interval | None) -> str:
    if found is None:
        return MISSING
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def one_line(cell: CellResult) -> str:
    """Reliability and locality of a cell in one line, for progress messages."""
    texts = [
        f"{lang} {_mean(cell.after, f'{lang}_reliability')}/{_mean(cell.after, f'{lang}_locality')}"
        for lang in LANGUAGES
    ]
    refused = f", {len(cell.refused)} refused" if cell.refused else ""
    return f"reliability/locality {', '.join(texts)}{refused}"
