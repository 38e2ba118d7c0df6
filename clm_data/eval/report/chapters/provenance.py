"""Where a dataset comes from, for the chapter on it."""

from __future__ import annotations

import json
from typing import Any

from clm_data.dataset_stats import Stats, stage_position
from clm_data.eval.report.parts import NONE, BilingualText, Missing, Part, Table, columns
from clm_data.manifest import Manifest

_KINDS = {
    "model": BilingualText("对话模型", "chat model"),
    "bank": BilingualText("自带题库", "bundled bank"),
    "import": BilingualText("导入文件", "imported file"),
}


def provenance(stats: Stats, manifest: Manifest | None) -> list[Part]:
    """Sources, stages of the build, and what its manifest says."""
    parts: list[Part] = [_origins(stats)]
    if manifest is None:
        what = BilingualText(
            "这个数据集没有可读的 manifest.json，因此不知道它由哪些设置和文件构建。",
            "This dataset has no manifest.json that can be read, so the settings and files it was "
            "built from are not known.",
        )
        return [*parts, Missing(what, "clm-data build --out DATASET")]
    return [*parts, _stages(manifest), _manifest(manifest)]


def _origins(stats: Stats) -> Table:
    rows = [
        (
            _KINDS[origin.kind].zh,
            _KINDS[origin.kind].en,
            origin.name,
            origin.licence or NONE,
            str(origin.records),
            str(len(origin.prompt_hashes)),
        )
        for origin in stats.origins
    ]
    return Table(
        "dataset_origins",
        BilingualText("来源", "Where the records come from"),
        columns(
            ("kind_zh", "类型", "kind (Chinese)", False),
            ("kind_en", "类型（英文）", "kind", False),
            ("name", "名称", "name", False),
            ("licence", "许可", "licence", False),
            ("records", "条目", "records"),
            ("prompts", "不同的提示", "different prompts"),
        ),
        tuple(rows),
    )


def _stages(manifest: Manifest) -> Table:
    rows = [
        (stage, *(str(counts[name]) for name in ("in", "kept", "rejected")))
        for stage, counts in sorted(manifest.stages.items(), key=lambda one: stage_position(one[0]))
    ]
    return Table(
        "dataset_stages",
        BilingualText("构建的各个阶段", "The stages of the build"),
        columns(
            ("stage", "阶段", "stage", False),
            ("in", "进入", "in"),
            ("kept", "保留", "kept"),
            ("rejected", "剔除", "rejected"),
        ),
        tuple(rows),
        plain=frozenset({"stage"}),
    )


def _manifest(manifest: Manifest) -> Table:
    rows: list[tuple[str, str]] = [
        ("clm-data", manifest.clm_data),
        *(manifest.packages.items()),
        ("domains.yaml sha256", manifest.domains_sha256),
        *((f"prompt {name}", value) for name, value in manifest.prompt_versions.items()),
        *((f"{name} sha256", value) for name, value in manifest.files.items()),
        *((f"source {_text(one.get('name'))}", _text(one)) for one in manifest.sources),
        *((f"setting {name}", _text(value)) for name, value in manifest.settings.items()),
    ]
    return Table(
        "dataset_manifest",
        BilingualText("清单：版本、哈希与设置", "Manifest: versions, hashes and settings"),
        columns(("name", "名称", "name", False), ("value", "值", "value", False)),
        tuple(rows),
        plain=frozenset({"name", "value"}),
        folded=True,
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
