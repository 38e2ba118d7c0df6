"""Recipes and their grids."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.paths import ROOT

from clm_data.errors import ConfigError, UnknownNameError
from clm_data.eval.editors import METHODS, params_for
from clm_data.eval.editors.known_models import KNOWN_MODELS, params_for_config
from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.paper import paper_rows
from clm_data.eval.recipe import Recipe, bundled_recipes, parse_recipe, read_recipe
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
            assert params_for(method, spec.params or spec.name)


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


SIZES = ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")


def config_of(*values: object) -> dict[str, object]:
    return dict(zip(SIZES, values, strict=True))


@pytest.mark.parametrize(
    ("name", "config", "params"),
    [
        ("/martiny/8b", config_of("llama", 32, 4096, 14336, 128256), "llama-3-8b"),
        (
            "extended",
            config_of("llama", 32, 4096, 14336, 128256) | {"max_position_embeddings": 8192},
            "llama-3-8b",
        ),
        (
            "chat-3.1",
            config_of("llama", 32, 4096, 14336, 128256) | {"max_position_embeddings": 131072},
            "llama-3.1-8b",
        ),
        ("Qwen/Qwen2-7B", config_of("qwen2", 28, 3584, 18944, 152064), "qwen2-7b"),
        ("mine", config_of("qwen3", 36, 4096, 12288, 151936), "qwen3-8b"),
        ("/llama3-8b-exp/x", config_of("mistral", 32, 4096, 14336, 32000), "mistral-7b"),
        ("chat", config_of("llama", 32, 4096, 11008, 32000), "llama2-chinese-7b"),
        ("small", config_of("llama", 30, 576, 1536, 49152), "smollm2-135m"),
        ("mine", config_of("llama", 4, 192, 768, 900), "tiny"),
        (
            "EleutherAI/gpt-j-6b",
            {"model_type": "gptj", "n_layer": 28, "n_embd": 4096, "vocab_size": 50400},
            "gpt-j-6b",
        ),
        ("mine", {"model_type": "gpt2", "n_layer": 48, "n_embd": 1600}, "gpt2-xl"),
    ],
)
def test_hyperparameters_are_chosen_by_the_config_of_the_model(
    name: str, config: dict[str, object], params: str
) -> None:
    assert params_for_config(name, config) == params


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("TinyLlama-1.1B", config_of("llama", 22, 2048, 5632, 32000)),
        ("Qwen2-57B-A14B", config_of("qwen2_moe", 28, 3584, 18944, 151936)),
        ("TinyStories-33M", {"model_type": "gpt_neo", "num_layers": 4, "hidden_size": 768}),
        ("llama3-8b", config_of("llama", 16, 2048, 8192, 128256)),
        ("SmolLM2-360M", config_of("llama", 32, 960, 2560, 49152)),
        ("gpt2-large", {"model_type": "gpt2", "n_layer": 36, "n_embd": 1280}),
        ("Mistral-7B", {}),
    ],
)
def test_a_model_whose_config_fits_no_hyperparameters_asks_for_params(
    name: str, config: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=r"--params: gpt-j-6b, .*llama-3-8b, .*tiny$") as caught:
        params_for_config(name, config)
    assert "\n" not in str(caught.value)


def test_the_message_names_the_sizes_of_a_config() -> None:
    with pytest.raises(ConfigError, match=r"config \(model_type gpt2, n_layer 36, n_embd 1280\)"):
        params_for_config("gpt2-large", {"model_type": "gpt2", "n_layer": 36, "n_embd": 1280})


def test_a_mixture_of_experts_is_named_before_the_hyperparameters() -> None:
    config = {**config_of("mixtral", 32, 4096, 14336, 32000), "num_local_experts": 8}
    with pytest.raises(ConfigError, match=r"mixture of experts \(num_local_experts 8\).*--params"):
        params_for_config("mixtral", config)


def test_the_config_of_the_tiny_model_is_known() -> None:
    tiny = TinyConfig()
    assert KNOWN_MODELS["tiny"] == {
        "model_type": "llama",
        "num_hidden_layers": tiny.layers,
        "hidden_size": tiny.hidden_size,
        "intermediate_size": tiny.intermediate_size,
    }


@pytest.mark.parametrize("name", bundled_recipes())
def test_the_readme_names_each_bundled_recipe(name: str) -> None:
    assert f"--recipe {name} " in (ROOT / "eval" / "README.md").read_text(encoding="utf-8")


def test_the_recipe_of_all_methods_has_all_methods() -> None:
    assert set(read_recipe("all-methods").methods) == set(METHODS)
