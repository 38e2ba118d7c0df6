"""What a sweep keeps for the report, and the whole way from a sweep to the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")
pytest.importorskip("sklearn", reason="the extra eval is not installed")

from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.eval.analysis.run import analyze_folder
from clm_data.eval.csv_tables import read_rows
from clm_data.eval.dataset import EvalSet
from clm_data.eval.recipe import Recipe
from clm_data.eval.report.chapters.run import recipe_text
from clm_data.eval.results import Results, read_cell
from clm_data.eval.sweep.runner import run_sweep

DATASET = EvalSet("made", tuple(RECORDS))
RECIPE = Recipe.model_validate(
    {
        "models": [{"name": "tiny"}],
        "methods": ["memit"],
        "batch_sizes": [4],
        "params": {"memit": {"values": {"steps": 4}}},
        "resamples": 20,
    }
)


@pytest.fixture(scope="module")
def out(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with its weight changes."""
    folder = tmp_path_factory.mktemp("answers") / "out"
    run_sweep(
        RECIPE,
        DATASET,
        out=folder,
        cache=tiny_folder.parent,
        save_deltas=True,
        tiny_config=CONFIG,
    )
    return folder


def results(out: Path) -> Results:
    return Results.model_validate_json((out / "results.json").read_text(encoding="utf-8"))


def test_what_the_model_said_is_kept_before_and_after_in_both_languages(out: Path) -> None:
    before = json.loads((out / "before" / "tiny-native.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in before] == [record.id for record in RECORDS]
    for row, record in zip(before, RECORDS, strict=True):
        for lang in ("zh", "en"):
            knew = row["continuation"][lang].startswith(record.fact(lang).ground_truth)
            assert knew == (row[lang]["truth_exact"] == 1)
    assert any(row["continuation"]["zh"] for row in before)
    for cell in results(out).cells:
        stored = read_cell(out, cell.key)
        assert stored is not None
        assert all(set(item.continuation) == {"zh", "en"} for item in stored.items)


def test_the_results_keep_the_recipe_that_makes_them_again(out: Path) -> None:
    import yaml

    found = results(out)
    assert Recipe.model_validate(yaml.safe_load(recipe_text(found))) == RECIPE


def test_the_whole_analysis_writes_its_tables_and_the_same_again(
    out: Path, tiny_folder: Path
) -> None:
    def tables() -> dict[str, bytes]:
        done = analyze_folder(out, dataset=DATASET, cache=tiny_folder.parent, tiny_config=CONFIG)
        assert done.left_out == []
        return {file.name: file.read_bytes() for file in done.tables}

    first = tables()
    wanted = {"geometry", "factors", "transfer", "language_layers", "language_points", "venn"}
    assert {f"{name}.csv" for name in wanted} <= set(first)
    assert {row["comparison"] for row in read_rows(out / "analysis" / "geometry.csv")} >= {
        "zh-en", "sum-mix", "null-zh-en"
    }  # fmt: skip
    assert tables() == first


def test_states_need_the_dataset_that_was_edited(out: Path, tiny_folder: Path) -> None:
    cache = tiny_folder.parent
    done = analyze_folder(out, cache=cache)
    assert any("--dataset" in reason for reason in done.left_out)
    assert {file.name for file in done.tables} >= {"geometry.csv"}
    with pytest.raises(InputFileError, match="not the dataset"):
        analyze_folder(out, dataset=EvalSet("other", tuple(RECORDS[::-1])), cache=cache)
    with pytest.raises(UnknownNameError, match="tiny"):
        analyze_folder(out, dataset=DATASET, models=["tinny"], cache=cache)


def test_of_a_longer_dataset_the_tiny_model_knows_what_was_edited(
    out: Path, tiny_folder: Path
) -> None:
    cache = tiny_folder.parent
    trained = sorted(cache.glob("tiny-*"))
    more = (record.model_copy(update={"id": f"{record.id}-again"}) for record in RECORDS)
    longer = EvalSet("longer", (*RECORDS, *more))
    done = analyze_folder(out, dataset=longer, cache=cache, tiny_config=CONFIG)
    assert done.left_out == []
    assert sorted(cache.glob("tiny-*")) == trained


def test_a_sweep_without_weight_changes_has_nothing_but_states(
    out: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_bytes((out / "results.json").read_bytes())
    with pytest.raises(InputFileError, match="--save-deltas"):
        analyze_folder(tmp_path, states=False, cache=tiny_folder.parent)
    done = analyze_folder(tmp_path, dataset=DATASET, cache=tiny_folder.parent, tiny_config=CONFIG)
    assert any(reason.startswith("geometry:") for reason in done.left_out)
    assert (tmp_path / "analysis" / "language_layers.csv").is_file()
