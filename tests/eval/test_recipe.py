"""Recipes and their grids."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.paths import ROOT

from clm_data.errors import ConfigError, UnknownNameError
from clm_data.eval.editors import METHODS, params_for
from clm_data.eval.paper import paper_rows
from clm_data.eval.recipe import Recipe, bundled_recipes, guess_params, parse_recipe, read_recipe
from clm_data.eval.tables import METHOD_NAMES


def test_a_grid_has_a_cell_for_every_combination_grouped_by_model() -> None:
    recipe = parse_recipe(
        {
            "models": [{"name": "a"}, {"name": "b"}],
            "methods": ["memit", "pmet"],
            "languages": ["zh", "mix"],
            "batch_sizes": [1, "all"],
            "layers": [None, [1, 2]],
        },
        "test",
    )
    cells = recipe.settings(40)
    assert len(cells) == len({setting for _, setting in cells}) == 2 * 2 * 2 * 2 * 2
    assert [spec.name for spec, _ in cells] == ["a"] * 16 + ["b"] * 16
    assert {setting.batch_size for _, setting in cells} == {1, 40}


def test_single_mode_ignores_the_batch_sizes() -> None:
    recipe = Recipe.model_validate(
        {"models": [{"name": "a"}], "modes": ["single"], "batch_sizes": [10, 100]}
    )
    assert [setting.batch_size for _, setting in recipe.settings(5)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"models": []}, "models"),
        ({"models": [{"name": "a"}], "langauges": ["zh"]}, "langauges"),
        ({"models": [{"name": "a"}], "languages": ["fr"]}, "languages.0"),
        ({"models": [{"name": "x/a"}, {"name": "y/a"}]}, "the same label"),
        ({"models": [{"name": "a"}], "batch_sizes": [0]}, "batch_sizes.0"),
        ({"models": [{"name": "a"}], "params": {"memitt": {}}}, "params of memitt"),
        (["a list"], "the recipe"),
    ],
)
def test_an_invalid_recipe_is_a_one_line_error_that_names_the_field(
    value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_recipe(value, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe(str(tmp_path / "mine.yaml"))


def test_an_unknown_recipe_name_suggests_a_bundled_one() -> None:
    with pytest.raises(UnknownNameError, match="table1"):
        read_recipe("tabel1")


@pytest.mark.parametrize("name", bundled_recipes())
def test_each_bundled_recipe_has_known_methods_and_hyperparameters(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.about
    for spec in recipe.models:
        for method in recipe.methods:
            assert params_for(method, spec.params_name)


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_the_recipe_of_a_table_has_a_cell_for_each_row_of_the_table(name: str) -> None:
    cells = {
        (s.model, METHOD_NAMES[s.method], s.language, s.batch_size)
        for _, s in read_recipe(name).settings(1010)
    }
    rows = {(r.model, r.method, r.language, r.batch_size) for r in paper_rows()[name]}
    assert cells == rows


def test_every_method_has_a_printed_name() -> None:
    assert METHODS.keys() == METHOD_NAMES.keys()


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
        ("Qwen/Qwen2-7B", "qwen2-7b"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("FlagAlpha/Llama2-Chinese-7b-Chat", "llama2-chinese-7b"),
        ("gguf:smollm2", "smollm2-135m"),
        ("tiny", "tiny"),
    ],
)
def test_hyperparameters_are_guessed_from_the_name_of_the_model(name: str, params: str) -> None:
    assert guess_params(name) == params


def test_an_unknown_model_name_asks_for_params() -> None:
    with pytest.raises(UnknownNameError, match="--params"):
        guess_params("my-own-model")


@pytest.mark.parametrize("name", bundled_recipes())
def test_the_readme_names_each_bundled_recipe(name: str) -> None:
    assert f"--recipe {name} " in (ROOT / "eval" / "README.md").read_text(encoding="utf-8")
