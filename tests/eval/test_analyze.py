"""Analyzing the edits of a real sweep: its tables, its figures, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")
pytest.importorskip("sklearn", reason="the extra eval is not installed")

from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.eval.analysis.run import analyze_folder
from clm_data.eval.analyze import analyze
from clm_data.eval.baselines import read_baseline
from clm_data.eval.csv_tables import read_rows
from clm_data.eval.dataset import EvalSet
from clm_data.eval.recipe import Recipe
from clm_data.eval.report.chapters.reproduce import recipe_text
from clm_data.eval.results import read_cell, read_results
from clm_data.eval.sweep.runner import run_sweep

DATASET = EvalSet("example", tuple(RECORDS))
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
    """Folder of a sweep with its weight changes."""
    folder = tmp_path_factory.mktemp("analyze") / "out"
    cache = tiny_folder.parent
    run_sweep(RECIPE, DATASET, out=folder, cache=cache, save_deltas=True, tiny_config=CONFIG)
    return folder


def test_a_first_analysis_draws_the_figures_of_the_evaluation(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("results.json", "cells", "deltas", "before"):
        (folder / name).symlink_to(out / name)
    done = analyze(folder, states=False)
    assert {file.name for file in done.tables} >= {"geometry.csv", "evaluation_long.csv"}
    assert {file.name for file in done.figures} >= {
        "geometry_independence.en.svg", "evaluation_measures.en.svg"
    }  # fmt: skip
    assert all(file.is_file() for file in (*done.tables, *done.figures))
    assert len(done.left_out) == 1
    assert done.left_out[0].startswith("states:")


def test_answers_before_and_after_the_edit_are_saved_in_both_languages(out: Path) -> None:
    cells = read_results(out).cells
    baseline = read_baseline(out, cells[0])
    assert list(baseline) == [record.id for record in RECORDS]
    for record in RECORDS:
        answers = baseline[record.id]
        for lang in ("zh", "en"):
            known = answers.continuation[lang].startswith(record.fact(lang).ground_truth)
            assert known == (answers.measures(lang)["truth_exact"] == 1)
    assert any(answers.continuation["zh"] for answers in baseline.values())
    for cell in cells:
        stored = read_cell(out, cell.key)
        assert stored is not None
        assert stored.items
        assert all(set(item.continuation) == {"zh", "en"} for item in stored.items)


def test_the_recipe_in_the_results_repeats_the_sweep(out: Path) -> None:
    import yaml

    assert Recipe.model_validate(yaml.safe_load(recipe_text(read_results(out)))) == RECIPE


def test_a_second_analysis_writes_the_same_tables(out: Path, tiny_folder: Path) -> None:
    def tables() -> dict[str, bytes]:
        done = analyze_folder(out, dataset=DATASET, cache=tiny_folder.parent, tiny_config=CONFIG)
        assert done.left_out == []
        return {file.name: file.read_bytes() for file in done.tables}

    first = tables()
    names = {"geometry", "factors", "transfer", "language_layers", "language_points", "venn"}
    assert {f"{name}.csv" for name in names} <= set(first)
    comparisons = {row["comparison"] for row in read_rows(out / "analysis" / "geometry.csv")}
    assert comparisons >= {"zh-en", "sum-mix", "null-zh-en"}
    assert tables() == first


def test_without_the_dataset_states_are_left_out(out: Path, tiny_folder: Path) -> None:
    done = analyze_folder(out, cache=tiny_folder.parent)
    assert any("--dataset" in reason for reason in done.left_out)
    assert {file.name for file in done.tables} >= {"geometry.csv"}


def test_another_dataset_or_model_is_rejected(out: Path, tiny_folder: Path) -> None:
    cache = tiny_folder.parent
    with pytest.raises(InputFileError, match="not the dataset"):
        analyze_folder(out, dataset=EvalSet("other", tuple(RECORDS[::-1])), cache=cache)
    with pytest.raises(UnknownNameError, match="tiny"):
        analyze_folder(out, dataset=DATASET, models=["tinny"], cache=cache)


def test_the_tiny_model_that_was_edited_is_reused_for_a_longer_dataset(
    out: Path, tiny_folder: Path
) -> None:
    cache = tiny_folder.parent
    trained = sorted(cache.glob("tiny-*"))
    more = (record.model_copy(update={"id": f"{record.id}-again"}) for record in RECORDS)
    longer = EvalSet("longer", (*RECORDS, *more))
    done = analyze_folder(out, dataset=longer, cache=cache, tiny_config=CONFIG)
    assert done.left_out == []
    assert sorted(cache.glob("tiny-*")) == trained


def test_without_weight_changes_only_states_are_analyzed(
    out: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_bytes((out / "results.json").read_bytes())
    with pytest.raises(InputFileError, match="--save-deltas"):
        analyze_folder(tmp_path, states=False, cache=tiny_folder.parent)
    done = analyze_folder(tmp_path, dataset=DATASET, cache=tiny_folder.parent, tiny_config=CONFIG)
    assert any(reason.startswith("geometry:") for reason in done.left_out)
    assert (tmp_path / "analysis" / "language_layers.csv").is_file()


def test_edits_of_input_projections_have_geometry_but_no_tables_of_neurons(
    tiny_folder: Path, tmp_path: Path
) -> None:
    changes = {
        "methods": ("memit", "ultraedit"),
        "languages": ("zh", "en"),
        "max_batches": 1,
        "generate": False,
        "params": {**RECIPE.params, "ultraedit": {"gate": [1], "up": [1], "down": []}},
    }
    recipe, cache, out = RECIPE.model_copy(update=changes), tiny_folder.parent, tmp_path / "out"
    run_sweep(recipe, DATASET, out=out, cache=cache, save_deltas=True, tiny_config=CONFIG)
    done = analyze_folder(out, dataset=DATASET, cache=cache, tiny_config=CONFIG)
    assert done.left_out == [
        "edited states of tiny ultraedit native batch 4: other weights than the MLP's output "
        "projections are edited"
    ]
    methods = {row["method"] for row in read_rows(out / "analysis" / "geometry.csv")}
    assert methods == {"memit", "ultraedit"}
    assert {row["method"] for row in read_rows(out / "analysis" / "activation.csv")} == {"memit"}
