"""Recipes and the grid they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.paths import ROOT

from clm_data.errors import ConfigError, UnknownNameError
from clm_data.eval.editors import METHODS, params_for
from clm_data.eval.paper import paper_rows
from clm_data.eval.recipe import Recipe, as_recipe, bundled, guess_params, read_recipe
from clm_data.eval.tables import METHOD_NAMES


def test_a_grid_is_every_combination_model_by_model() -> None:
    recipe = as_recipe(
        {
            "models": [{"name": "a"}, {"name": "b"}],
            "methods": ["memit", "pmet"],
            "languages": ["zh", "mix"],
            "batch_sizes": [1, "all"],
            "layers": [None, [1, 2]],
        },
        "here",
    )
    cells = recipe.settings(40)
    assert len(cells) == len({s for _, s in cells}) == 2 * 2 * 2 * 2 * 2
    assert [spec.name for spec, _ in cells] == ["a"] * 16 + ["b"] * 16
    assert {setting.batch_size for _, setting in cells} == {1, 40}


def test_single_has_one_cell_whatever_the_batch_sizes() -> None:
    recipe = Recipe.model_validate(
        {"models": [{"name": "a"}], "modes": ["single"], "batch_sizes": [10, 100]}
    )
    assert [s.batch_size for _, s in recipe.settings(5)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"models": []}, "models"),
        ({"models": [{"name": "a"}], "langauges": ["zh"]}, "langauges"),
        ({"models": [{"name": "a"}], "languages": ["fr"]}, "languages.0"),
        ({"models": [{"name": "x/a"}, {"name": "y/a"}]}, "one label"),
        ({"models": [{"name": "a"}], "batch_sizes": [0]}, "batch_sizes.0"),
        ({"models": [{"name": "a"}], "params": {"memitt": {}}}, "params of memitt"),
        (["a list"], "the recipe"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_the_field(value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        as_recipe(value, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe(str(tmp_path / "mine.yaml"))
    with pytest.raises(UnknownNameError, match="table1"):
        read_recipe("tabel1")


@pytest.mark.parametrize("name", bundled())
def test_each_bundled_recipe_has_known_methods_and_hyperparameters(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.about
    for spec in recipe.models:
        for method in recipe.methods:
            assert params_for(method, spec.params_name)


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_a_papers_recipe_has_a_cell_for_each_of_its_rows(name: str) -> None:
    made = {
        (s.model, METHOD_NAMES[s.method], s.language, s.batch_size)
        for _, s in read_recipe(name).settings(1010)
    }
    printed = {(r.model, r.method, r.language, r.batch_size) for r in paper_rows()[name]}
    assert made == printed


def test_every_method_has_a_printed_name() -> None:
    assert METHODS.keys() == METHOD_NAMES.keys()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
        ("Qwen/Qwen2-7B", "qwen2-7b"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("FlagAlpha/Llama2-Chinese-7b-Chat", "llama2-chinese-7b"),
        ("gguf:smollm2", "smollm2-135m"),
        ("tiny", "tiny"),
    ],
)
def test_hyperparameters_are_told_from_the_models_name(name: str, known: str) -> None:
    assert guess_params(name) == known


def test_a_name_that_tells_nothing_asks_for_params() -> None:
    with pytest.raises(UnknownNameError, match="--params"):
        guess_params("my-own-model")


@pytest.mark.parametrize("name", bundled())
def test_the_page_on_evaluation_names_each_recipe(name: str) -> None:
    assert f"--recipe {name} " in (ROOT / "eval" / "README.md").read_text()
