"""The chapter with the commands that reproduce the results and the page."""

from __future__ import annotations

from clm_data.eval.bilingual import BilingualText
from clm_data.eval.report.commands import Commands
from clm_data.eval.report.parts import Paragraph, Section, Table, columns
from clm_data.eval.results import Results

_SAME_DATASET = BilingualText(
    "须使用同一数据集（记录的 sha256 为 {key}）。输入相同，则表与图逐字节相同。",
    "The dataset must be the same (sha256 of its records: {key}). The same input gives the same "
    "tables and figures, byte for byte.",
)


def reproduce_section(results: Results, commands: Commands) -> Section:
    """The commands, in order."""
    rows = [
        ("1", "安装", "install", commands.install),
        ("2", "编辑与评测", "edit and evaluate", commands.evaluate),
        ("3", "分析", "analyze", commands.analyze),
        ("4", "生成本页", "write this page", commands.report),
    ]
    table = Table(
        "reproduce",
        BilingualText("命令", "Commands"),
        columns(
            ("step", "步骤", "step"),
            ("what_zh", "内容", "what (Chinese)", False),
            ("what_en", "内容（英文）", "what", False),
            ("command", "命令", "command", False),
        ),
        tuple(rows),
        code=frozenset({"command"}),
    )
    title = BilingualText("如何复现", "How to reproduce")
    return Section(
        "reproduce", title, (table, Paragraph(_SAME_DATASET, {"key": results.dataset_key}))
    )


def recipe_text(results: Results) -> str:
    """The recipe as YAML; empty if the results do not contain it."""
    import yaml

    if not results.recipe:
        return ""
    return yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True)
