"""`--revision`: which commit of a model on the Hub is loaded, and what it is called in keys."""

from __future__ import annotations

from pathlib import Path

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.example_records import example_records
from helpers.small_models import small_model

from clm_data.errors import InputFileError
from clm_data.eval.dataset import load_dataset
from clm_data.eval.model.loading import load_model
from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.recipe import ModelSpec, Recipe
from clm_data.eval.sweep.identity import model_config, model_identity
from clm_data.eval.sweep.plan import PlannedCell, plan_cells

NAME = "someone/small"
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's cache with two commits of a model, as after a download."""
    cache = tmp_path_factory.mktemp("hub")
    repo = cache / "models--someone--small"
    (repo / "refs").mkdir(parents=True)
    for seed, (branch, commit) in enumerate(COMMITS.items()):
        (repo / "refs" / branch).write_text(commit)
        saved = small_model("llama", seed=seed)
        saved.model.save_pretrained(repo / "snapshots" / commit)
        saved.tokenizer.save_pretrained(repo / "snapshots" / commit)
    return cache


@pytest.fixture(autouse=True)
def offline(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))


def test_a_revision_is_identified_by_its_commit() -> None:
    assert model_identity(NAME) == model_identity(NAME, "main") == [NAME, COMMITS["main"]]
    assert model_identity(NAME, "v1") == [NAME, COMMITS["v1"]]
    assert model_config(NAME, "v1")["num_hidden_layers"] == 5
    with pytest.raises(InputFileError, match="model someone/small at v9: neither"):
        model_identity(NAME, "v9")


def test_the_weights_of_the_revision_are_loaded() -> None:
    prints = [small_model("llama", seed=seed).fingerprint() for seed in (0, 1)]
    assert load_model(NAME, device="cpu").fingerprint() == prints[0]
    assert load_model(NAME, device="cpu", revision="v1").fingerprint() == prints[1]


def test_a_revision_changes_the_keys_only_if_it_is_another_commit() -> None:
    def key(revision: str | None) -> str:
        spec = ModelSpec(name=NAME, revision=revision, params="tiny")
        recipe = Recipe(models=(spec,), methods=("rome",), languages=("en",))
        (cell,) = plan_cells(recipe, load_dataset(example_records(1)), TinyConfig())
        assert isinstance(cell, PlannedCell), cell.error
        return cell.key

    assert key(None) == key("main")
    assert key(None) != key("v1")


def test_two_revisions_of_a_model_have_labels_of_their_own() -> None:
    recipe = Recipe(models=(ModelSpec(name=NAME), ModelSpec(name=NAME, revision="v1")))
    assert [spec.shown for spec in recipe.models] == ["small", "small@v1"]


def test_a_local_model_has_no_revision(tmp_path: Path) -> None:
    for name in (str(tmp_path), "gguf:smollm2"):
        with pytest.raises(InputFileError, match="a local model has no revision 'v1'"):
            model_identity(name, "v1")
