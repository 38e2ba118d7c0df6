"""The tables of a report as CSV and LaTeX files, with the same cells as on the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from clm_data.eval.bilingual import BilingualText
from clm_data.eval.report.parts import (
    NO_VALUE,
    Column,
    ExampleGroup,
    Figure,
    MissingPart,
    Paragraph,
    Section,
    Table,
    columns,
    tables_of,
)
from clm_data.eval.tables import tex_text
from clm_data.languages import has_han

_LONG_TEXT = 28
"""Columns with longer texts are set as paragraphs in LaTeX."""


def all_tables(sections: Sequence[Section]) -> list[Table]:
    """The tables of a page, and tables of everything else on it that contains numbers.

    The latter list the values in paragraphs, the figures with their captions, the examples, and
    what is missing, so that every number on the page is in a table.
    """
    return [
        *tables_of(sections),
        _statements(sections),
        _figures(sections),
        _examples(sections),
        _missing(sections),
    ]


def write_tables(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Write ``NAME.csv`` and ``NAME.tex`` for each table that has a row.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        if not table.rows:
            continue
        for suffix, text in ((".csv", as_csv(table)), (".tex", as_latex(table))):
            file = folder / f"{table.name}{suffix}"
            file.write_text(text, encoding="utf-8", newline="\n")
            written.append(file)
    return written


def as_csv(table: Table) -> str:
    """A table as CSV: the keys of the columns, then the rows; missing values are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow(["" if cell == NO_VALUE else cell for cell in row])
    return out.getvalue()


def as_latex(table: Table) -> str:
    r"""A table as a LaTeX ``tabular``; it needs `booktabs`, and `ctex` for Chinese texts."""
    layout = "".join(_alignment(table, i, column) for i, column in enumerate(table.columns))
    head = " & ".join(tex_text(column.title.en) for column in table.columns)
    chinese = any(has_han(cell) for row in table.rows for cell in row)
    lines = [
        f"% {table.title.en}",
        *([r"% needs \usepackage{ctex}"] if chinese else []),
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
    ]
    for i, row in enumerate(table.rows):
        cells = [_latex_cell(cell, (i, j) in table.best) for j, cell in enumerate(row)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _alignment(table: Table, index: int, column: Column) -> str:
    if column.numeric:
        return "r"
    longest = max((len(row[index]) for row in table.rows), default=0)
    return "l" if longest <= _LONG_TEXT else "p{5cm}"


def _latex_cell(text: str, best: bool) -> str:
    cell = "--" if text == NO_VALUE else " ".join(tex_text(text).split())
    return rf"\textbf{{{cell}}}" if best else cell


def _statements(sections: Sequence[Section]) -> Table:
    rows = [
        (section.id, str(number), name, value)
        for section in sections
        for number, part in enumerate(section.parts, 1)
        if isinstance(part, Paragraph)
        for name, value in part.values.items()
    ]
    return Table(
        "statements",
        BilingualText("正文中的数值", "Values in the text"),
        columns(
            ("section", "章节", "section", False),
            ("part", "段落", "part"),
            ("name", "名称", "name", False),
            ("value", "数值", "value", False),
        ),
        tuple(rows),
    )


def _figures(sections: Sequence[Section]) -> Table:
    rows = [
        (
            part.name,
            f"Figure {part.paper}" if part.paper else NO_VALUE,
            part.title.zh,
            part.title.en,
            part.caption.zh,
            part.caption.en,
            " ".join(part.sources),
        )
        for section in sections
        for part in section.parts
        if isinstance(part, Figure)
    ]
    return Table(
        "figures",
        BilingualText("图目录", "List of figures"),
        columns(
            ("name", "文件名", "file", False),
            ("paper", "论文图号", "figure of the paper", False),
            ("title_zh", "中文标题", "title (Chinese)", False),
            ("title_en", "英文标题", "title", False),
            ("caption_zh", "中文图注", "caption (Chinese)", False),
            ("caption_en", "英文图注", "caption", False),
            ("sources", "数据文件", "drawn from", False),
        ),
        tuple(rows),
    )


def _examples(sections: Sequence[Section]) -> Table:
    rows = [
        (
            example.group,
            example.cell,
            example.id,
            example.domain.en,
            side.lang,
            "yes" if side.edited else "no",
            side.prompt,
            side.true_answer,
            side.new_answer,
            side.before,
            side.after,
            side.verdict,
            side.reliability,
        )
        for section in sections
        for part in section.parts
        if isinstance(part, ExampleGroup)
        for example in part.examples
        for side in example.sides
    ]
    return Table(
        "examples",
        BilingualText("迁移成功、未迁移与编辑失败的例子", "Examples of transfers and failures"),
        columns(
            ("group", "类别", "group", False),
            ("cell", "实验", "cell", False),
            ("id", "条目", "record", False),
            ("domain", "领域", "domain", False),
            ("lang", "语言", "language", False),
            ("edited", "是否编辑", "edited", False),
            ("prompt", "题干", "prompt", False),
            ("ground_truth", "真实答案", "true answer", False),
            ("target_new", "反事实答案", "new answer", False),
            ("said_before", "编辑前的回答", "answer before", False),
            ("said_after", "编辑后的回答", "answer after", False),
            ("verdict", "判定", "verdict", False),
            ("reliability", "可靠性（%）", "reliability, %"),
        ),
        tuple(rows),
    )


def _missing(sections: Sequence[Section]) -> Table:
    rows = [
        (section.id, part.what.zh, part.what.en, part.command)
        for section in sections
        for part in section.parts
        if isinstance(part, MissingPart)
    ]
    return Table(
        "missing",
        BilingualText("缺少的内容", "Missing parts"),
        columns(
            ("section", "章节", "section", False),
            ("what_zh", "缺少的内容", "what (Chinese)", False),
            ("what_en", "缺少的内容（英文）", "what", False),
            ("command", "补全命令", "command", False),
        ),
        tuple(rows),
    )
