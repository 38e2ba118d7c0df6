"""The tables of a report as files: CSV and LaTeX, the same cells as on the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from clm_data.eval.report.parts import (
    NONE,
    BilingualText,
    Column,
    Examples,
    Missing,
    Picture,
    Section,
    Table,
    Text,
    columns,
    tables_of,
)
from clm_data.eval.tables import tex_text
from clm_data.languages import has_han

_LONG = 28
"""A column of LaTeX with longer texts than this is set as a paragraph."""


def all_tables(sections: Sequence[Section]) -> list[Table]:
    """The tables of a page and those that repeat what else has numbers: texts, pictures, examples.

    So every number of the page is in one of them.
    """
    return [
        *tables_of(sections),
        _statements(sections),
        _pictures(sections),
        _examples(sections),
        _missing(sections),
    ]


def write_tables(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Write ``NAME.csv`` and ``NAME.tex`` of each table that has a row.

    Raises:
        OSError: They cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        for suffix, text in ((".csv", as_csv(table)), (".tex", as_latex(table))):
            if table.rows:
                file = folder / f"{table.name}{suffix}"
                file.write_text(text, encoding="utf-8", newline="\n")
                written.append(file)
    return written


def as_csv(table: Table) -> str:
    """The keys of the columns, then the rows; an empty cell where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow(["" if cell == NONE else cell for cell in row])
    return out.getvalue()


def as_latex(table: Table) -> str:
    r"""A ``tabular`` (package `booktabs`; `ctex` where there are Chinese texts)."""
    spec = "".join(_align(table, i, column) for i, column in enumerate(table.columns))
    head = " & ".join(tex_text(column.title.en) for column in table.columns)
    lines = [
        f"% {table.title.en}",
        *(["% needs \\usepackage{ctex}"] if any(map(has_han, _cells(table))) else []),
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
    ]
    for i, row in enumerate(table.rows):
        cells = [_cell(cell, (i, j) in table.best) for j, cell in enumerate(row)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cells(table: Table) -> list[str]:
    return [cell for row in table.rows for cell in row]


def _align(table: Table, index: int, column: Column) -> str:
    if column.numeric:
        return "r"
    longest = max((len(row[index]) for row in table.rows), default=0)
    return "l" if longest <= _LONG else "p{5cm}"


def _cell(text: str, best: bool) -> str:
    plain = "--" if text == NONE else " ".join(tex_text(text).split())
    return rf"\textbf{{{plain}}}" if best else plain


def _statements(sections: Sequence[Section]) -> Table:
    rows = [
        (section.id, str(number), name, value)
        for section in sections
        for number, part in enumerate(section.parts, 1)
        if isinstance(part, Text)
        for name, value in part.values.items()
    ]
    return Table(
        "statements",
        BilingualText("正文中的数值", "Values in the running text"),
        columns(
            ("section", "章节", "section", False),
            ("part", "段落", "part"),
            ("name", "名称", "name", False),
            ("value", "数值", "value", False),
        ),
        tuple(rows),
    )


def _pictures(sections: Sequence[Section]) -> Table:
    rows = [
        (
            part.name,
            part.paper or NONE,
            part.title.zh,
            part.title.en,
            part.caption.zh,
            part.caption.en,
            " ".join(part.sources),
        )
        for section in sections
        for part in section.parts
        if isinstance(part, Picture)
    ]
    return Table(
        "figures",
        BilingualText("图表目录", "List of figures"),
        columns(
            ("name", "文件名", "file", False),
            ("paper", "论文图号", "figure of the paper", False),
            ("title_zh", "中文标题", "title in Chinese", False),
            ("title_en", "英文标题", "title", False),
            ("caption_zh", "中文说明", "caption in Chinese", False),
            ("caption_en", "英文说明", "caption", False),
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
            side.truth,
            side.new,
            side.before,
            side.after,
            side.verdict,
            side.reliability,
        )
        for section in sections
        for part in section.parts
        if isinstance(part, Examples)
        for example in part.examples
        for side in example.sides
    ]
    return Table(
        "examples",
        BilingualText("迁移与失败的例子", "Examples of transfers and failures"),
        columns(
            ("group", "类别", "group", False),
            ("cell", "实验", "cell", False),
            ("id", "条目", "record", False),
            ("domain", "领域", "domain", False),
            ("lang", "语言", "language", False),
            ("edited", "是否编辑", "edited", False),
            ("prompt", "提示", "prompt", False),
            ("ground_truth", "真实答案", "true answer", False),
            ("target_new", "新答案", "new answer", False),
            ("said_before", "编辑前回答", "said before", False),
            ("said_after", "编辑后回答", "said after", False),
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
        if isinstance(part, Missing)
    ]
    return Table(
        "missing",
        BilingualText("缺少的内容", "What is missing"),
        columns(
            ("section", "章节", "section", False),
            ("what_zh", "缺少什么", "what, in Chinese", False),
            ("what_en", "缺少什么（英文）", "what", False),
            ("command", "补全命令", "how to make it", False),
        ),
        tuple(rows),
    )
