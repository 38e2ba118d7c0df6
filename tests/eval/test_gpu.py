"""The evaluation on a GPU: the same numbers as on a CPU, no waiting, memory as estimated.

Each test also runs on the CPU as far as it can, so that it works when a GPU is there.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.example_records import example_records
from helpers.saved_folders import dataset_folder, model_folder
from helpers.small_models import CONTEXTS, REQUESTS, small_model, small_params

from clm_data.eval.editors import make_editor
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.moments import LanguageMoments, second_moments
from clm_data.eval.editors.value_optimizer import STEPS_PER_CHECK, _ValueOptimizer
from clm_data.eval.estimate.run import estimate_evaluation
from clm_data.eval.memory import free_memory
from clm_data.eval.model.activations import DEFAULT_TOKENS, choose_batch_tokens
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import NATIVE
from clm_data.eval.sweep.evaluate import evaluate

WEIGHT_METHODS = ("memit", "alphaedit", "langedit", "pmet", "rome", "ft", "lora", "ultraedit")
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason="torch.cuda is not available: there is no GPU, or torch is built without CUDA",
    ),
]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=on_gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model_on(device: str, dtype: str = "float32") -> LoadedModel:
    model = small_model("llama", dtype=dtype)
    model.model.to(device)
    return model


def edit(model: LoadedModel, method: str) -> Deltas:
    texts = {
        "zh": ["鲁迅的原名是周树人", "长江发源于青藏高原"],
        "en": ["Water boils at 100 degrees"],
    }
    layers = (1, 2)
    moments = second_moments(model, texts, layers)
    by_language = {
        lang: second_moments(model, {lang: group}, layers) for lang, group in texts.items()
    }
    setup = Setup(NATIVE, CONTEXTS, moments, language_moments=LanguageMoments(by_language))
    found = make_editor(method, small_params(method), setup).edit(model, REQUESTS)
    assert isinstance(found, Deltas)
    return found


@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_weight_changes_are_those_of_a_cpu(device: str, method: str) -> None:
    here, there = edit(model_on(device), method), edit(model_on("cpu"), method)
    assert here.weights.keys() == there.weights.keys()
    for path, change in there.weights.items():
        found, expected = here.weights[path].dense(), change.dense()
        assert (found - expected).norm() <= 1e-2 * expected.norm(), path


@pytest.mark.parametrize("method", ["memit", "ft"])
def test_an_edit_in_bfloat16_is_undone_bit_for_bit(device: str, method: str) -> None:
    model = model_on(device, "bfloat16")
    before = model.fingerprint()
    found = edit(model, method)
    assert model.fingerprint() == before
    with applied(model, found) as edited:
        assert edited.base.fingerprint() != before
    assert model.fingerprint() == before


@pytest.fixture
def reported_waits(device: str) -> Iterator[None]:
    """Makes each wait for the GPU a warning."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
    yield
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("reported_waits")
def test_a_step_of_the_search_does_not_wait_for_the_gpu(device: str) -> None:
    model = model_on(device)
    facts, _ = place_facts(model, REQUESTS, NATIVE, CONTEXTS)
    counts = []
    for steps in (3, 13):
        params = replace(small_params("memit").values, steps=steps, stop_at=-1.0)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            values = _ValueOptimizer(model, facts, 2, params, ("layer",)).optimize(1_000)
        counts.append(len(found))
        assert [count for _, count in values] == [steps - 1] * len(facts)
    assert counts[0] == counts[1]


def test_target_values_are_those_of_a_cpu_that_checks_every_step(device: str) -> None:
    found = {}
    for where, steps_per_check in ((device, STEPS_PER_CHECK), ("cpu", 1)):
        model = model_on(where)
        facts, _ = place_facts(model, REQUESTS, NATIVE, CONTEXTS)
        params = replace(small_params("memit").values, stop_at=5.85)
        optimizer = _ValueOptimizer(model, facts, 2, params, ("layer",))
        found[steps_per_check] = optimizer.optimize(steps_per_check)
    for (value, steps), (expected, expected_steps) in zip(*found.values(), strict=True):
        assert abs(steps - expected_steps) <= 1
        assert (value - expected).norm() <= 2e-2 * expected.norm()


def test_the_tokens_per_batch_are_chosen_and_said(device: str) -> None:
    said: list[str] = []
    chosen = choose_batch_tokens(model_on(device), said.append)
    if device == "cpu":
        assert (chosen, said) == (DEFAULT_TOKENS, [])
        return
    assert chosen.bit_count() == 1
    assert len(said) == 1
    assert said[0].startswith(f"{chosen} tokens per batch: ")


def test_a_sweep_runs_and_its_memory_is_estimated(device: str, tmp_path: Path) -> None:
    dataset_folder(tmp_path / "set", example_records(6))
    width = 512 if device == "cuda" else 64  # weights that count beside cuBLAS's workspace
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "vocab_size": 20_000}
    model_folder(tmp_path / "small", **sizes)
    request: dict[str, Any] = {
        "dataset": tmp_path / "set",
        "model": str(tmp_path / "small"),
        "params": "tiny",
        "methods": ["memit", "ft"],
        "languages": "zh",
        "corpus": "dataset",
        "device": device,
        "cache": tmp_path / "cache",
        "out": tmp_path / "out",
    }
    (expected,) = estimate_evaluation(**request).models
    assert expected.peak is not None
    assert expected.free is not None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    results = evaluate(**request)
    assert [cell.error for cell in results.cells] == [None, None]
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
        assert peak / 3 < expected.peak < 3 * peak
        assert (free_memory(device) or 0) > 0
