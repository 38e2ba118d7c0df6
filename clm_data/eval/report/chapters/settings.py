"""The chapter on settings, versions and hashes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clm_data.eval.bilingual import BilingualText
from clm_data.eval.report.evaluation import CELL_COLUMNS, Evaluation, cell_fields
from clm_data.eval.report.parts import NO_VALUE, Section, Table, columns
from clm_data.eval.results import CellResult, Results
from clm_data.files import sha256_file
from clm_data.version import __version__

_PACKAGES = ("numpy", "scikit-learn", "torch", "transformers", "safetensors", "matplotlib")


def settings_section(evaluation: Evaluation, files: Sequence[Path]) -> Section:
    """Settings of the run and of each cell, versions, and hashes.

    Args:
        evaluation: The results.
        files: The files that the page was made from.
    """
    tables = [
        _run(evaluation.results),
        _cells(evaluation.results),
        _hyperparameters(evaluation.done),
        _contexts(evaluation.done),
        _versions(),
        _files(files),
    ]
    title = BilingualText("设置与哈希", "Settings and hashes")
    return Section("settings", title, tuple(table for table in tables if table.rows))


def name_value_table(
    name: str, title: BilingualText, rows: Iterable[tuple[str, str]], *, collapsed: bool
) -> Table:
    """A table of names and values."""
    return Table(
        name,
        title,
        columns(("name", "名称", "name", False), ("value", "值", "value", False)),
        tuple(rows),
        code=frozenset({"name", "value"}),
        collapsed=collapsed,
    )


def _run(results: Results) -> Table:
    fields = results.model_dump(mode="json", exclude={"cells", "recipe"})
    recipe = {name: value for name, value in results.recipe.items() if value not in ("", {}, None)}
    rows = [(name, _text(value)) for name, value in (fields | recipe).items()]
    title = BilingualText("本次评测", "This run")
    return name_value_table("settings_run", title, rows, collapsed=False)


def _cells(results: Results) -> Table:
    rows = [
        (
            *cell_fields(cell),
            cell.status,
            str(cell.facts),
            str(cell.batches),
            str(cell.left_out),
            str(len(cell.refused)),
            cell.key or NO_VALUE,
            cell.moments or NO_VALUE,
        )
        for cell in results.cells
    ]
    return Table(
        "settings_cells",
        BilingualText("各项实验", "Cells"),
        (
            *CELL_COLUMNS,
            *columns(
                ("status", "状态", "status", False),
                ("facts", "事实数", "facts"),
                ("batches", "批数", "batches"),
                ("left_out", "未用的事实", "facts left out"),
                ("refused", "无法完成的编辑", "edits not made"),
                ("key", "键（sha256）", "key (sha256)", False),
                ("moments", "二阶矩的键", "key of second moments", False),
            ),
        ),
        tuple(rows),
        code=frozenset({"key", "moments"}),
        collapsed=True,
    )


def _hyperparameters(cells: Sequence[CellResult]) -> Table:
    rows: dict[tuple[str, ...], None] = {}
    for cell in cells:
        setting = cell.setting
        layers = " ".join(map(str, setting.layers or ())) or NO_VALUE
        for name, value in _flattened(cell.params):
            rows[setting.model, setting.engine_method, layers, name, _text(value)] = None
    return Table(
        "settings_params",
        BilingualText("超参数", "Hyperparameters"),
        columns(
            ("model", "模型", "model", False),
            ("method", "方法", "method", False),
            ("layers", "指定的层", "layers given", False),
            ("name", "名称", "name", False),
            ("value", "值", "value", False),
        ),
        tuple(rows),
        code=frozenset({"name", "value"}),
        collapsed=True,
    )


def _flattened(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The entries of nested mappings, named ``outer.inner``."""
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flattened(entry, f"{prefix}{name}.")
        else:
            yield prefix + name, entry


def _contexts(cells: Sequence[CellResult]) -> Table:
    rows: dict[tuple[str, str, str], None] = {}
    for cell in cells:
        for name, value in _flattened(cell.contexts or {}):
            rows[cell.setting.model, f"{cell.setting.protocol} {name}", _text(value)] = None
    return Table(
        "settings_contexts",
        BilingualText("编辑时加在题干之前的上下文", "Contexts put before prompts while editing"),
        columns(
            ("model", "模型", "model", False),
            ("name", "名称", "name", False),
            ("value", "值", "value", False),
        ),
        tuple(rows),
        code=frozenset({"name"}),
        collapsed=True,
    )


def _versions() -> Table:
    rows = [("clm-data", __version__)]
    for name in _PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, NO_VALUE))
    title = BilingualText("生成本页时的软件版本", "Versions that wrote this page")
    return name_value_table("settings_versions", title, rows, collapsed=True)


def _files(files: Sequence[Path]) -> Table:
    rows = [(file.name, sha256_file(file)) for file in files if file.is_file()]
    title = BilingualText(
        "生成本页所用的文件（sha256）", "Files that this page was made from (sha256)"
    )
    return name_value_table("settings_files", title, rows, collapsed=True)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
