"""A small dataset folder, written without a store."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clm_data import layouts
from clm_data.card import render_card
from clm_data.chart import draw_domains
from clm_data.config import Settings
from clm_data.dataset_stats import statistics
from clm_data.manifest import Manifest, content_settings, file_hashes, read_manifest
from helpers.example_records import example_domains, example_records

COUNT = 6
"""Number of records."""


def write_dataset(folder: Path) -> None:
    """Write the files of a build."""
    records = example_records(COUNT)
    for name, rows in layouts.CONFIGURATIONS.items():
        (folder / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows(records)), folder / name / "test.parquet")
    for name, content in layouts.published(records).items():
        text = json.dumps(content, ensure_ascii=False, indent=2)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "rejected.jsonl").write_text('{"stage": "parse"}\n', encoding="utf-8")
    settings = Settings()
    manifest = Manifest(
        clm_data="0.0.0",
        packages={},
        settings=content_settings(settings),
        domains_sha256="0" * 64,
        prompt_versions={"generate": "1"},
        prompt_hashes={},
        sources=[],
        stages={},
        reviewed={"unreviewed": COUNT},
        reviewed_only=False,
        files={},
    )
    stats = statistics(records, [], [], example_domains())
    draw_domains(stats, folder / "domains.png")
    card = render_card(stats, settings.dataset, manifest)
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    manifest.model_copy(update={"files": file_hashes(folder)}).write(folder)


def change_file(folder: Path, name: str, text: str) -> None:
    """Change a file and its hash in the manifest, as another build would."""
    (folder / name).write_text(text, encoding="utf-8")
    write_manifest(folder, read_manifest(folder))
