"""The part of the chapter on the dataset that says where the records come from."""

from __future__ import annotations

import json
from typing import Any

from clm_data.dataset_stats import Stats, stage_position
from clm_data.eval.bilingual import BilingualText
from clm_data.eval.report.chapters.settings import name_value_table
from clm_data.eval.report.parts import NO_VALUE, MissingPart, Part, Table, columns
from clm_data.manifest import Manifest

_ORIGINS = {
    "model": BilingualText("对话模型", "chat model"),
    "bank": BilingualText("内置题库", "bundled bank"),
    "import": BilingualText("导入文件", "imported file"),
}
_NO_MANIFEST = BilingualText(
    "该数据集没有可读的 manifest.json，因此无法得知构建所用的设置与文件。",
    "The dataset has no manifest.json that can be read, so the settings and files that it was "
    "built from are unknown.",
)


def provenance_parts(stats: Stats, manifest: Manifest | None) -> list[Part]:
    """Origins of the records, stages of the build, and the manifest."""
    if manifest is None:
        return [_origins(stats), MissingPart(_NO_MANIFEST, "clm-data build --out DATASET")]
    return [_origins(stats), _stages(manifest), _manifest(manifest)]


def _origins(stats: Stats) -> Table:
    rows = [
        (
            _ORIGINS[origin.kind].zh,
            _ORIGINS[origin.kind].en,
            origin.name,
            origin.licence or NO_VALUE,
            str(origin.records),
            str(len(origin.prompt_hashes)),
        )
        for origin in stats.origins
    ]
    return Table(
        "dataset_origins",
        BilingualText("条目的来源", "Origins of the records"),
        columns(
            ("kind_zh", "类型", "kind (Chinese)", False),
            ("kind_en", "类型（英文）", "kind", False),
            ("name", "名称", "name", False),
            ("licence", "许可证", "license", False),
            ("records", "条目", "records"),
            ("prompts", "不同的提示词", "distinct prompts"),
        ),
        tuple(rows),
    )


def _stages(manifest: Manifest) -> Table:
    rows = [
        (stage, *(str(counts[name]) for name in ("in", "kept", "rejected")))
        for stage, counts in sorted(
            manifest.stages.items(), key=lambda entry: stage_position(entry[0])
        )
    ]
    return Table(
        "dataset_stages",
        BilingualText("构建的各个阶段", "Stages of the build"),
        columns(
            ("stage", "阶段", "stage", False),
            ("in", "输入", "in"),
            ("kept", "保留", "kept"),
            ("rejected", "剔除", "dropped"),
        ),
        tuple(rows),
        code=frozenset({"stage"}),
    )


def _manifest(manifest: Manifest) -> Table:
    rows: list[tuple[str, str]] = [
        ("clm-data", manifest.clm_data),
        *(manifest.packages.items()),
        ("domains.yaml sha256", manifest.domains_sha256),
        *((f"prompt {name}", value) for name, value in manifest.prompt_versions.items()),
        *((f"{name} sha256", value) for name, value in manifest.files.items()),
        *((f"source {_text(source.get('name'))}", _text(source)) for source in manifest.sources),
        *((f"setting {name}", _text(value)) for name, value in manifest.settings.items()),
    ]
    title = BilingualText("数据集清单：版本、哈希与设置", "Manifest: versions, hashes and settings")
    return name_value_table("dataset_manifest", title, rows, collapsed=True)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
