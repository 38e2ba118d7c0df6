"""The chapters on the paper's figures, on settings and hashes, and on how to make it all again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clm_data.eval import paper
from clm_data.eval.metrics import PAPER_MEASURES
from clm_data.eval.report.chapters.evaluation import CELL, NUMBER_COLUMNS, lead
from clm_data.eval.report.parts import (
    NONE,
    BilingualText,
    Part,
    Section,
    Table,
    Text,
    columns,
    decimals,
)
from clm_data.eval.results import CellResult, Results
from clm_data.eval.tables import rows_of
from clm_data.files import sha256_file
from clm_data.version import __version__

RECIPE_NAME = "recipe.yaml"
_PACKAGES = ("numpy", "scikit-learn", "torch", "transformers", "safetensors", "matplotlib")


def paper_section(results: Results) -> Section:
    """Our rows beside the paper's."""
    return Section(
        "paper", BilingualText("与论文对照", "Beside the paper"), tuple(_paper_parts(results))
    )


def _paper_parts(results: Results) -> list[Part]:
    pairs = paper.compare(rows_of(results))
    if not pairs:
        models = sorted({row.model for rows in paper.paper_rows().values() for row in rows})
        words = BilingualText(
            "论文的表中没有与这些结果对应的行（模型、方法、编辑语言与批大小都须相同）。论文评测了"
            "{models}。",
            "No row of the paper’s tables has the model, method, edit language and batch size of "
            "one of these results. The paper has {models}.",
        )
        return [Text(words, {"models": ", ".join(models)}, "note")]
    rows: list[tuple[str, ...]] = []
    for pair in pairs:
        about = (pair.table, pair.ours.model, pair.ours.method, pair.ours.language)
        batch = str(pair.ours.batch_size)
        for whose, values in (
            ("ours", [decimals(pair.ours.values.get(name), 2) for name in PAPER_MEASURES]),
            ("paper", [decimals(pair.paper.values.get(name), 2) for name in PAPER_MEASURES]),
            ("difference", [_signed(pair.difference(name)) for name in PAPER_MEASURES]),
        ):
            rows.append((*about, batch, whose, *values))
    table = Table(
        "paper_comparison",
        BilingualText("与论文的表对照，百分数", "Beside the paper’s tables, in percent"),
        (
            *columns(("table", "论文的表", "table", False)),
            *CELL[:-1],
            *columns(("whose", "来源", "whose", False)),
            *NUMBER_COLUMNS,
        ),
        tuple(rows),
    )
    source = BilingualText("论文数值来源：{source}。", "The paper’s figures: {source}.")
    return [table, Text(source, {"source": paper.paper_source()})]


def _signed(value: float | None) -> str:
    return NONE if value is None else f"{value:+.2f}"


def settings_section(
    results: Results, cells: Sequence[CellResult], files: Sequence[Path]
) -> Section:
    """Settings, versions and hashes.

    Args:
        results: The summary.
        cells: Its cells, whole.
        files: What the page was made from.
    """
    parts = [
        _run(results),
        _cells(results),
        _params(cells),
        _contexts(cells),
        _versions(),
        _files(files),
    ]
    title = BilingualText("设置与哈希", "Settings and hashes")
    return Section("settings", title, tuple(part for part in parts if part.rows))


def _named(
    name: str, title: BilingualText, rows: Iterable[tuple[str, str]], *, folded: bool
) -> Table:
    return Table(
        name,
        title,
        columns(("name", "名称", "name", False), ("value", "值", "value", False)),
        tuple(rows),
        plain=frozenset({"name", "value"}),
        folded=folded,
    )


def _run(results: Results) -> Table:
    about = results.model_dump(mode="json", exclude={"cells", "recipe"})
    recipe = {name: value for name, value in results.recipe.items() if value not in ("", {}, None)}
    rows = [(name, _text(value)) for name, value in (about | recipe).items()]
    return _named("settings_run", BilingualText("本次评测", "This run"), rows, folded=False)


def _cells(results: Results) -> Table:
    rows = [
        (
            *lead(cell),
            cell.status,
            str(cell.facts),
            str(cell.batches),
            str(cell.left_out),
            str(len(cell.refused)),
            cell.key or NONE,
            cell.moments or NONE,
        )
        for cell in results.cells
    ]
    return Table(
        "settings_cells",
        BilingualText("各项实验", "The cells"),
        (
            *CELL,
            *columns(
                ("status", "状态", "status", False),
                ("facts", "条目", "facts"),
                ("batches", "批数", "batches"),
                ("left_out", "余下未用", "left out"),
                ("refused", "无法编辑", "refused"),
                ("key", "键（sha256）", "key (sha256)", False),
                ("moments", "二阶矩的键", "key of second moments", False),
            ),
        ),
        tuple(rows),
        plain=frozenset({"key", "moments"}),
        folded=True,
    )


def _params(cells: Sequence[CellResult]) -> Table:
    seen: dict[tuple[str, ...], None] = {}
    for cell in cells:
        setting = cell.setting
        layers = " ".join(map(str, setting.layers or ())) or NONE
        for name, value in _flat(cell.params):
            seen[setting.model, setting.method, layers, name, _text(value)] = None
    return Table(
        "settings_params",
        BilingualText("超参数", "Hyperparameters"),
        columns(
            ("model", "模型", "model", False),
            ("method", "方法", "method", False),
            ("layers", "指定的层", "layers asked for", False),
            ("name", "名称", "name", False),
            ("value", "值", "value", False),
        ),
        tuple(seen),
        plain=frozenset({"name", "value"}),
        folded=True,
    )


def _flat(value: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for name, one in value.items():
        if isinstance(one, Mapping):
            yield from _flat(one, f"{before}{name}.")
        else:
            yield before + name, one


def _contexts(cells: Sequence[CellResult]) -> Table:
    seen: dict[tuple[str, str, str], None] = {}
    for cell in cells:
        for name, value in _flat(cell.contexts or {}):
            seen[cell.setting.model, f"{cell.setting.protocol} {name}", _text(value)] = None
    return Table(
        "settings_contexts",
        BilingualText("放在提示前的上下文", "Contexts put before prompts"),
        columns(
            ("model", "模型", "model", False),
            ("name", "名称", "name", False),
            ("value", "值", "value", False),
        ),
        tuple(seen),
        plain=frozenset({"name"}),
        folded=True,
    )


def _versions() -> Table:
    rows = [("clm-data", __version__)]
    for name in _PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, NONE))
    title = BilingualText("制作本页时的版本", "Versions when this page was made")
    return _named("settings_versions", title, rows, folded=True)


def _files(files: Sequence[Path]) -> Table:
    rows = [(file.name, sha256_file(file)) for file in files if file.is_file()]
    title = BilingualText("本页所用的文件（sha256）", "What this page was made from (sha256)")
    return _named("settings_files", title, rows, folded=True)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def recipe_text(results: Results) -> str:
    """The recipe as YAML; empty where the results keep none."""
    import yaml

    if not results.recipe:
        return ""
    return yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True)


def reproduce_section(
    results: Results, *, folder: str, page: str, tables: str, dataset: str | None
) -> Section:
    """The exact commands.

    Args:
        results: For the recipe.
        folder: Of the results, as it was named.
        page: The page, likewise.
        tables: Where the recipe is written.
        dataset: As it was named.
    """
    data = dataset or "DATASET"
    recipe = f"{tables}{RECIPE_NAME}" if results.recipe else "RECIPE"
    given = "" if dataset is None else f" --dataset {dataset}"
    rows = [
        ("1", "安装", "install", f"pip install 'clm-data[eval]=={__version__}'"),
        (
            "2",
            "编辑与测量",
            "edit and measure",
            f"clm-data eval-baselines --recipe {recipe} --dataset {data} --out {folder} "
            "--save-deltas",
        ),
        ("3", "分析", "analyse", f"clm-data analyze {folder} --dataset {data}"),
        ("4", "生成本页", "make this page", f"clm-data report {folder} --html {page}{given}"),
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
        plain=frozenset({"command"}),
    )
    same = BilingualText(
        "数据集须与本次相同：记录的 sha256 为 {key}。同样的输入得到逐字节相同的表与图。",
        "The dataset must be the same: sha256 of its records {key}. Equal input gives tables and "
        "figures equal byte for byte.",
    )
    title = BilingualText("如何复现", "How to make it again")
    return Section("reproduce", title, (table, Text(same, {"key": results.dataset_key})))
