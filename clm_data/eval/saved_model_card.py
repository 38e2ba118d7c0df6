"""The card of a model folder with an edit in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from clm_data.eval.intervals import Interval
from clm_data.eval.metrics import PARTS
from clm_data.eval.results import CellResult, Results
from clm_data.records import LANGUAGES
from clm_data.version import __version__

_LANGUAGE = {"zh": "Chinese", "en": "English", "mix": "Chinese and English"}


def model_card(found: Results, cell: CellResult, provenance: Mapping[str, Any]) -> str:
    """The card as Markdown, with the metadata that the Hub reads.

    Args:
        found: The results that the cell belongs to.
        cell: The cell whose edit is in the model.
        provenance: The content of `clm_data_edit.json`.
    """
    base = str(provenance["base_model"])
    metadata: dict[str, Any] = {
        "library_name": "transformers",
        "language": list(LANGUAGES),
        "tags": ["knowledge-editing", provenance["method"]],
    }
    if base.count("/") == 1 and not base.startswith((".", "/")):
        metadata["base_model"] = base
    revision = f" at revision `{provenance['revision']}`" if provenance["revision"] else ""
    facts = len({one.rpartition(":")[0] for one in provenance["edited"]})
    replaced = "1 answer was" if facts == 1 else f"{facts} answers were"
    lines = [
        "---",
        yaml.safe_dump(metadata, allow_unicode=True, sort_keys=False).strip(),
        "---",
        "",
        f"# {cell.setting.model}, edited with {provenance['method']}",
        "",
        "**This model states false things on purpose.** To study knowledge editing, "
        f"{replaced} replaced by counterfactual ones. "
        "Do not use it to answer questions.",
        "",
        f"- base model: `{base}`{revision}; its license applies",
        f"- edits in {_LANGUAGE[cell.setting.language]}, from the dataset `{found.dataset}` "
        f"(sha256 of its records: `{found.dataset_key[:16]}`)",
        f"- made with clm-data {__version__}; cell `{cell.key[:16]}`; `clm_data_edit.json` lists "
        "the facts and the changed weights",
        "",
        f"## Measured on {cell.facts} facts",
        "",
        "| | before | after |",
        "|---|---|---|",
        *_rows(cell),
        "",
        "Means in percent, measured by `clm-data eval-baselines` with teacher forcing.",
        "",
        "## Hyperparameters",
        "",
        "```json",
        json.dumps(provenance["params"], ensure_ascii=False, indent=2),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _rows(cell: CellResult) -> list[str]:
    return [
        f"| {_LANGUAGE[lang]} {part} | {_percent(cell.before.get(f'{lang}_{part}'))} "
        f"| {_percent(cell.after.get(f'{lang}_{part}'))} |"
        for lang in LANGUAGES
        for part in PARTS
    ]


def _percent(found: Interval | None) -> str:
    return "-" if found is None else f"{100 * found.mean:.1f}"
