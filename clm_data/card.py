"""The dataset card, ``README.md`` on the Hub.

The text comes from the template ``dataset_card.md``. All numbers in it are computed.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, StrictUndefined, TemplateError

from clm_data.codes import CODES
from clm_data.config import DatasetSettings
from clm_data.dataset_stats import Stats
from clm_data.errors import ConfigError
from clm_data.layouts import PUBLISHED_FILES
from clm_data.manifest import Manifest
from clm_data.records import LANGUAGES
from clm_data.resources import read_text

TEMPLATE_NAME = "dataset_card.md"

# https://huggingface.co/docs/hub/repositories-licenses: the Hub rejects cards with any other.
_HUB_LICENSES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0
    cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0
    etalab-2.0 eupl-1.1 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr lppl-1.3c
    mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail osl-3.0 pddl postgresql unlicense wtfpl
    zlib
"""
_UNKNOWN = "unknown"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class _Named(NamedTuple):
    name: str
    en: str
    zh: str
    rows_per_record: int = 1


_CONFIGURATIONS = (
    _Named("parallel", "one entry in both languages", "一个条目，中英并列"),
    _Named("zh", "one entry in Chinese", "一个条目的中文部分"),
    _Named("en", "one entry in English", "一个条目的英文部分"),
    _Named(
        "mix", "one entry in one language; Chinese and English rows alternate", "中英文逐行交替", 2
    ),
)
_FIELDS = (
    _Named(
        "id",
        "stable id of the entry, derived from its content",
        "条目编号，由内容生成，不随版本变化",
    ),
    _Named("case_id", "position in the dataset, counted from 1", "在数据集中的序号，从 1 开始"),
    _Named("domain", "id of the domain", "领域编号"),
    _Named("language", "language of the row; only in `mix`", "该行的语言，仅见于 `mix`"),
    _Named("prompt", "a cloze that the answer completes", "题干：待补全的陈述，答案接在后面"),
    _Named(
        "subject",
        "what the fact is about; appears verbatim in `prompt`",
        "主语，原样出现在 `prompt` 中",
    ),
    _Named("ground_truth", "the true answer", "真实答案"),
    _Named(
        "target_new", "the false answer to edit into a model", "反事实答案：要写入模型的虚构答案"
    ),
    _Named("rephrase_prompt", "`prompt` in other words", "改写题干：同一题干的另一种说法"),
    _Named("loc", "locality probe: an unrelated question", "局部性探针：与编辑无关的问题"),
    _Named(
        "loc_ans",
        "the answer to `loc`, which must survive the edit",
        "探针的答案，编辑后应保持不变",
    ),
    _Named("review", "`accepted`, `fixed` or `unreviewed`", "人工审校：通过、修改后通过或未审校"),
    _Named(
        "origin",
        "kind, name, prompt hash and license of the source; only in `parallel`",
        "来源的种类、名称、提示词哈希和许可证，仅见于 `parallel`",
    ),
)
_ORIGINS = {
    "model": _Named("model", "chat model", "对话模型"),
    "bank": _Named("bank", "the bank bundled with clm-data", "clm-data 自带的题库"),
    "import": _Named("import", "imported file", "导入文件"),
}


def render_card(stats: Stats, dataset: DatasetSettings, manifest: Manifest) -> str:
    """Render the card as Markdown with YAML front matter.

    Args:
        stats: Counts over the dataset.
        dataset: Name, title and license.
        manifest: Provenance of the dataset. ``files`` may be empty.

    Raises:
        ConfigError: The template cannot be rendered.
    """
    # No autoescape: the output is Markdown. The filter ``cell`` escapes what could break a table.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"cell": _cell, "number": _number}
    metadata = front_matter(stats, dataset)
    try:
        return environment.from_string(read_text(TEMPLATE_NAME)).render(
            front_matter=yaml.safe_dump(metadata, allow_unicode=True, sort_keys=False),
            stats=stats,
            dataset=dataset,
            manifest=manifest,
            has_imports=any(origin.kind == "import" for origin in stats.origins),
            license_known=_is_stated(dataset.licence),
            configurations=_CONFIGURATIONS,
            fields=_FIELDS,
            origin_kinds=_ORIGINS,
            json_files=", ".join(f"`{name}`" for name in PUBLISHED_FILES),
            codes=CODES,
        )
    except TemplateError as error:
        raise ConfigError(f"{TEMPLATE_NAME}: {error}; reinstall clm-data") from error


def front_matter(stats: Stats, dataset: DatasetSettings) -> dict[str, Any]:
    """Metadata of the card as defined by the Hub."""
    return {
        "language": list(LANGUAGES),
        **_license_metadata(dataset.licence),
        "pretty_name": " ".join(dataset.title.split()),
        "size_categories": [_size(stats.records)],
        "task_categories": ["text-generation"],
        "tags": ["knowledge-editing", "counterfactual", "cross-lingual", "bilingual", "benchmark"],
        "configs": [
            {
                "config_name": configuration.name,
                "data_files": [{"split": "test", "path": f"{configuration.name}/test.parquet"}],
                **({"default": True} if index == 0 else {}),
            }
            for index, configuration in enumerate(_CONFIGURATIONS)
        ],
    }


def _is_stated(license: str) -> bool:
    return license.strip().lower() not in ("", _UNKNOWN)


def _license_metadata(license: str) -> dict[str, str]:
    """Metadata for a license: its identifier if the Hub knows it, else ``other`` with a name."""
    identifier = license.strip().lower()
    if not _is_stated(license):
        return {"license": _UNKNOWN}
    if identifier in _HUB_LICENSES.split():
        return {"license": identifier}
    name = re.sub(r"[^a-z0-9.]+", "-", identifier).strip("-")
    return {"license": "other"} | ({"license_name": name} if name else {})


def _size(count: int) -> str:
    return next((name for limit, name in _SIZES if count < limit), "n>1M")


def _cell(text: str) -> str:
    """Escape text for a Markdown table cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _number(value: float) -> str:
    return f"{value:g}"
