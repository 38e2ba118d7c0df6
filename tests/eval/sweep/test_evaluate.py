"""`evaluate`: the Python call behind `clm-data eval-baselines`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.saved_folders import dataset_folder, model_folder
from helpers.tiny_dataset import RECORDS

from clm_data.errors import ConfigError, InputFileError, UnknownNameError
from clm_data.eval.editors.adam import adam_step
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import Results, read_results
from clm_data.eval.sweep.evaluate import evaluate

CHEAP: dict[str, Any] = {
    "methods": "ft",
    "languages": "zh",
    "params": "tiny",
    "corpus": "dataset",
}


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("evaluate") / "small"))


def labels(results: Results) -> list[str]:
    return [cell.setting.label for cell in results.cells]


def test_records_in_memory_are_evaluated_and_the_results_are_written(
    small_model: str, tmp_path: Path
) -> None:
    messages: list[str] = []
    results = evaluate(
        RECORDS[:4], model=small_model, **CHEAP, out=tmp_path / "out", log=messages.append
    )
    assert labels(results) == ["small ft zh batch 4"]
    assert not results.failed
    assert results.cells[0].after["zh_reliability"] is not None
    assert [cell.key for cell in read_results(tmp_path / "out").cells] == [
        cell.key for cell in results.cells
    ]
    assert messages


def test_a_folder_is_evaluated_like_its_rows(small_model: str, tmp_path: Path) -> None:
    folder = dataset_folder(tmp_path / "set", RECORDS[:4])
    arguments = {"model": small_model, **CHEAP, "cache": tmp_path / "cache"}
    from_folder = evaluate(folder, **arguments, out=tmp_path / "folder")
    from_text = evaluate(str(folder), **arguments, out=str(tmp_path / "text"))
    assert from_folder.cells[0].key == from_text.cells[0].key
    assert (tmp_path / "folder" / "table.csv").read_bytes() == (
        tmp_path / "text" / "table.csv"
    ).read_bytes()


def test_rows_that_lack_a_text_are_skipped_and_counted(small_model: str, tmp_path: Path) -> None:
    rows = [record.model_dump(mode="json", exclude={"case_id"}) for record in RECORDS[:4]]
    rows[0]["zh_probe"]["loc_ans"] = ""
    messages: list[str] = []
    results = evaluate(rows, model=small_model, **CHEAP, out=tmp_path / "out", log=messages.append)
    assert (results.records, results.skipped_rows) == (3, 1)
    assert "skipped 1 rows that lack a text in one of the languages" in messages
    assert "skipped_rows" not in (tmp_path / "out" / "results.json").read_text(encoding="utf-8")


def test_arguments_override_the_recipe(small_model: str, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "title": "Mine",
            "models": [{"name": "no/such/model", "label": "other"}],
            "methods": ["memit", "pmet"],
            "batch_sizes": [1, 2],
            "generate": False,
        }
    )
    results = evaluate(
        RECORDS,
        recipe=recipe,
        model=[small_model],
        **CHEAP,
        batch_sizes=[2, "all"],
        layers=[1],
        mode=["batch", "sequential"],
        protocol="easyedit",
        facts=4,
        tokens_per_batch=64,
        seed=1,
        out=tmp_path / "out",
    )
    assert results.title == "Mine"
    assert labels(results) == [
        "small ft zh batch 2 easyedit layers 1",
        "small ft zh batch 4 easyedit layers 1",
        "small ft zh batch 2 sequential easyedit layers 1",
        "small ft zh batch 4 sequential easyedit layers 1",
    ]
    read = Recipe.model_validate(results.recipe)
    assert (read.seed, read.facts, read.generate) == (1, 4, False)
    assert read.models[0].tokens_per_batch == 64


def test_several_lists_of_layers_are_compared(small_model: str, tmp_path: Path) -> None:
    results = evaluate(
        RECORDS[:2], model=small_model, **CHEAP, layers=[[1], [2]], out=tmp_path / "out"
    )
    assert labels(results) == ["small ft zh batch 2 layers 1", "small ft zh batch 2 layers 2"]


def test_a_bundled_recipe_keeps_its_models_unless_others_are_given(tmp_path: Path) -> None:
    results = evaluate(
        RECORDS[:2], recipe="table3", methods="fit", batch_sizes=2, out=tmp_path / "out"
    )
    assert {cell.setting.model for cell in results.cells} == {"qwen2-7b", "Llama"}
    assert all("did you mean ft" in (cell.error or "") for cell in results.failed)
    assert len(results.failed) == len(results.cells)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, "no model given"),
        ({"recipe": "tabel1"}, UnknownNameError, "did you mean table1"),
        ({"model": "tiny", "languages": "fr"}, ConfigError, "languages.0"),
        ({"model": "tiny", "dtype": "float99"}, ConfigError, "dtype"),
        ({"model": "tiny", "facts": 9}, InputFileError, "fewer than 9"),
    ],
)
def test_invalid_arguments_are_an_error_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(RECORDS, **arguments, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paths_and_numbers_of_numpy_are_values_as_others(small_model: str, tmp_path: Path) -> None:
    results = evaluate(
        RECORDS[:4],
        model=Path(small_model),  # type: ignore[arg-type]
        batch_sizes=np.int64(2),  # type: ignore[arg-type]
        layers=np.array([1]),  # type: ignore[arg-type]
        **CHEAP,
        out=tmp_path / "out",
    )
    assert labels(results) == ["small ft zh batch 2 layers 1"]
    assert not results.failed


@pytest.mark.parametrize("size", [2.5, np.float64(2.5), [2.5], float("nan"), "two", b"x"])
def test_a_batch_size_that_is_no_whole_number_is_one_line(
    small_model: str, tmp_path: Path, size: Any
) -> None:
    with pytest.raises(ConfigError, match="batch_sizes") as caught:
        evaluate(RECORDS[:4], model=small_model, batch_sizes=size, **CHEAP, out=tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_model_whose_probabilities_are_nan_fails_the_cell(
    tmp_path: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that overflows the weights: finite in float32, but not the states."""

    def step(value: Any, grad: Any, averages: Any, step: int, lr: float) -> Any:
        return adam_step(value, grad, averages, step, 1e38)

    monkeypatch.setattr("clm_data.eval.editors.ft.adam_step", step)
    recipe = Recipe.model_validate(
        {
            "models": [{"name": small_model, "params": "tiny"}],
            "methods": ["ft"],
            "languages": ["zh"],
            "params": {"ft": {"limit": 1e38, "epochs": 1}},
        }
    )
    (cell,) = evaluate(RECORDS[:4], recipe=recipe, out=tmp_path / "out").cells
    assert cell.status == "failed"
    assert "NaN" in (cell.error or "")
