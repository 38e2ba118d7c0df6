from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from helpers.example_records import example_domains, example_records
from hypothesis import given
from hypothesis import strategies as st

from clm_data import card, layouts
from clm_data.card import front_matter, render_card
from clm_data.config import DatasetSettings, Settings
from clm_data.dataset_stats import Stats, statistics
from clm_data.manifest import Manifest, content_settings
from clm_data.records import Origin, Problem, Record, Rejection

BANK = Origin(kind="bank", name="bank-1", licence="apache-2.0")
IMPORT = Origin(kind="import", name="rows.json")


def example_manifest(**changed: Any) -> Manifest:
    values: dict[str, Any] = {
        "clm_data": "9.8.7",
        "packages": {},
        "settings": content_settings(Settings()),
        "domains_sha256": "0" * 64,
        "prompt_versions": {"generate": "1"},
        "prompt_hashes": {},
        "sources": [],
        "stages": {"parse": {"in": 61, "kept": 60, "rejected": 1}},
        "reviewed": {},
        "reviewed_only": False,
        "files": {},
    }
    return Manifest(**(values | changed))


def counted(records: list[Record], *rejected: Rejection) -> Stats:
    return statistics(records, rejected, [], example_domains())


def rendered(stats: Stats, dataset: DatasetSettings | None = None, **manifest: Any) -> str:
    return render_card(stats, dataset or DatasetSettings(), example_manifest(**manifest))


def metadata(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_front_matter_is_exactly_the_metadata() -> None:
    stats = counted(example_records(4))
    text = rendered(stats)
    assert text.startswith("---\nlanguage:\n- zh\n- en\n")
    assert metadata(text) == front_matter(stats, DatasetSettings())


def test_each_configuration_is_declared_with_its_parquet_file_and_split() -> None:
    declared = metadata(rendered(counted(example_records(4))))["configs"]
    assert [entry["config_name"] for entry in declared] == list(layouts.CONFIGURATIONS)
    for entry in declared:
        path = f"{entry['config_name']}/test.parquet"
        assert entry["data_files"] == [{"split": "test", "path": path}]
    assert [entry.get("default", False) for entry in declared] == [True, False, False, False]


def test_each_column_is_described_in_both_languages() -> None:
    records = example_records(2)
    columns = set()
    for rows in layouts.CONFIGURATIONS.values():
        for name, value in rows(records)[0].items():
            columns |= set(value) if name in ("zh", "en") else {name}
    text = rendered(counted(records))
    for name in columns:
        assert text.count(f"| `{name}` |") >= 2, name


def test_row_counts_match_the_files() -> None:
    records = example_records(7)
    text = rendered(counted(records))
    for name, rows in layouts.CONFIGURATIONS.items():
        assert text.count(f"| `{name}` | {len(rows(records))} |") == 2


def test_the_card_counts_reviewed_and_unreviewed_entries() -> None:
    records = example_records(
        5, review=("accepted", "accepted", "fixed", "unreviewed", "unreviewed")
    )
    text = rendered(counted(records))
    assert "| 2 | 1 | 2 |" in text
    assert "**2 entries are unreviewed:**" in text
    assert "直接通过 2 条，修改后通过 1 条，未审校 2 条" in text
    assert "未审校的 2 条没有经人核对" in text


def test_the_card_of_a_fully_reviewed_dataset_does_not_mention_unreviewed_entries() -> None:
    text = rendered(counted(example_records(3, review=("accepted",))), reviewed_only=True)
    assert "entries are unreviewed" not in text
    assert "没有经人核对" not in text
    assert "The dataset contains only entries that a reviewer accepted or corrected." in text


def test_the_card_lists_sources_with_their_licenses() -> None:
    sources = [{"name": "rows.json", "format": "clm-bench", "sha256": "ab" * 32, "licence": None}]
    text = rendered(counted(example_records(4, origins=(BANK, IMPORT))), sources=sources)
    assert "| the bank bundled with clm-data | bank-1 | apache-2.0 | 2 |" in text
    assert "| imported file | rows.json | unknown | 2 |" in text
    assert "| rows.json | clm-bench | unknown | `abababababab` |" in text
    assert "| 导入文件 | rows.json | 不详 | 2 |" in text


def test_the_card_describes_how_the_dataset_was_built() -> None:
    rejected = Rejection(
        stage="validate",
        id="x",
        domain=None,
        problems=(Problem(code="empty-field", message=""),),
        content={},
    )
    text = rendered(counted(example_records(2), rejected), prompt_hashes={"c" * 64: 2})
    assert "clm-data 9.8.7" in text
    assert "| parse | 61 | 60 | 1 |" in text
    assert "(`empty-field`) | 1 |" in text
    assert f"- `{'c' * 64}`: 2" in text


def test_the_card_cites_the_paper_and_warns_about_false_targets() -> None:
    text = rendered(counted(example_records(1)))
    title = "Benchmarking and Analyzing Cross-lingual Misalignment of {LLMs} in Knowledge Editing"
    assert f"title  = {{{{CLM-Bench}}: {title}}}," in text
    assert "false on purpose" in text
    assert "故意写错" in text


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("unknown", {"license": "unknown"}),
        ("", {"license": "unknown"}),
        ("Our Terms (2)", {"license": "other", "license_name": "our-terms-2"}),
        ("自定义", {"license": "other"}),
    ],
)
def test_the_license_uses_the_vocabulary_of_the_hub(licence: str, expected: dict[str, str]) -> None:
    found = front_matter(counted([]), DatasetSettings(licence=licence))
    assert {name: value for name, value in found.items() if name.startswith("license")} == expected


def test_the_card_says_if_no_license_is_stated() -> None:
    stats = counted(example_records(1))
    assert "**No license is stated for this dataset.**" in rendered(stats)
    stated = rendered(stats, DatasetSettings(licence="cc-by-4.0"))
    assert "states its license as: cc-by-4.0." in stated
    assert "No license is stated" not in stated


@pytest.mark.parametrize(
    ("count", "category"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "n>1M")]
)
def test_size_category(count: int, category: str) -> None:
    stats = counted([]).model_copy(update={"records": count})
    assert front_matter(stats, DatasetSettings())["size_categories"] == [category]


def test_an_empty_dataset_has_a_card() -> None:
    assert "| `parallel` | 0 |" in rendered(counted([]), stages={})


def test_names_with_markup_do_not_break_tables_or_metadata() -> None:
    origin = Origin(kind="import", name="a|b\n<script>")
    dataset = DatasetSettings(title='x: "y"\n---\nz')
    text = rendered(counted(example_records(1, origins=(origin,))), dataset)
    assert metadata(text)["pretty_name"] == 'x: "y" --- z'
    assert "| imported file | a\\|b &lt;script> | unknown | 1 |" in text


@given(st.text(min_size=1))
def test_metadata_round_trips_with_any_title(title: str) -> None:
    found = front_matter(counted([]), DatasetSettings(title=title))
    dumped = yaml.safe_dump(found, allow_unicode=True, sort_keys=False)
    assert yaml.safe_load(dumped) == found


def test_the_template_contains_no_hard_coded_numbers() -> None:
    text = card.read_text(card.TEMPLATE_NAME)
    prose = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|`[^`]*`", "", text)
    assert re.findall(r"\b\d+", prose) == []


def test_the_same_input_gives_the_same_card() -> None:
    records = example_records(9, origins=(BANK, IMPORT))
    assert rendered(counted(records)) == rendered(counted(records))
