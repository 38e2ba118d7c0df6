"""Cached target values: each fact is optimized once, and saved values are reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import CONTEXTS, LAYERS, REQUESTS, TEXTS, small_model, small_params

from clm_data.errors import InputFileError
from clm_data.eval.editors import make_editor, multilayer
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.moments import second_moments
from clm_data.eval.editors.value_cache import TargetValueCache
from clm_data.eval.editors.values import TargetValues
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import NATIVE

PARAMS = small_params("memit").values
LAYER = 2


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model("llama")


@pytest.fixture(scope="module")
def facts(model: LoadedModel) -> list[PlacedFact]:
    return place_facts(model, REQUESTS, NATIVE, CONTEXTS)[0]


class FakeOptimizer:
    """Numbers facts instead of optimizing them: the n-th fact has the value (n, n).

    Attributes:
        optimized: Ids of the facts, in the order in which they were passed.
    """

    def __init__(self) -> None:
        self.optimized: list[str] = []

    def __call__(self, facts: Sequence[PlacedFact]) -> TargetValues:
        self.optimized += [fact.request.id for fact in facts]
        numbers = range(len(self.optimized) - len(facts), len(self.optimized))
        return TargetValues(torch.tensor([[n, n] for n in numbers]).float(), tuple(numbers))


def test_each_fact_is_optimized_once(facts: list[PlacedFact]) -> None:
    cache, optimize = TargetValueCache("m"), FakeOptimizer()
    first = cache.get_or_optimize(facts[:2], LAYER, PARAMS, ("layer",), optimize)
    assert first.steps == (0, 1)
    more = [facts[2], *facts[1::-1], facts[2]]
    again = cache.get_or_optimize(more, LAYER, PARAMS, ("layer",), optimize)
    assert optimize.optimized == ["a", "b", "c"]
    assert again.targets[:, 0].tolist() == [2, 1, 0, 2]
    assert again.steps == (2, 1, 0, 2)


def test_layer_hyperparameters_sites_and_tokens_distinguish_values(facts: list[PlacedFact]) -> None:
    cache, optimize = TargetValueCache("m"), FakeOptimizer()
    cache.get_or_optimize(facts, LAYER, PARAMS, ("layer",), optimize)
    cache.get_or_optimize(facts, LAYER - 1, PARAMS, ("layer",), optimize)
    cache.get_or_optimize(facts, LAYER, replace(PARAMS, lr=0.1), ("layer",), optimize)
    cache.get_or_optimize(facts, LAYER, PARAMS, ("mlp", "attn"), optimize)
    changed = replace(facts[0], sentences=facts[0].sentences[:1])
    cache.get_or_optimize([changed], LAYER, PARAMS, ("layer",), optimize)
    assert optimize.optimized == ["a", "b", "c"] * 4 + ["a"]


def test_saved_values_are_read_bit_for_bit(facts: list[PlacedFact], tmp_path: Path) -> None:
    folder, optimize = tmp_path / "values", FakeOptimizer()

    def values(model: list[str], facts: list[PlacedFact]) -> TargetValues:
        cache = TargetValueCache(model, folder)
        return cache.get_or_optimize(facts, LAYER, PARAMS, ("layer",), optimize)

    one = values(["m", "float32"], facts[:1])
    every = values(["m", "float32"], facts)
    again = values(["m", "float32"], facts)
    assert len(optimize.optimized) == 3
    assert torch.equal(again.targets, every.targets)
    assert again.steps == every.steps
    assert torch.equal(one.targets[0], again.targets[0])
    values(["m", "bfloat16"], facts)
    assert len(optimize.optimized) == 6


def test_values_with_nan_are_not_cached(facts: list[PlacedFact], tmp_path: Path) -> None:
    def diverge(facts: list[PlacedFact]) -> TargetValues:
        return TargetValues(torch.full((len(facts), 2), torch.nan), (1,) * len(facts))

    cache, optimize = TargetValueCache("m", tmp_path), FakeOptimizer()
    with pytest.raises(EditError, match="NaN"):
        cache.get_or_optimize(facts, LAYER, PARAMS, ("layer",), diverge)
    assert list(tmp_path.iterdir()) == []
    cache.get_or_optimize(facts, LAYER, PARAMS, ("layer",), optimize)
    assert optimize.optimized == ["a", "b", "c"]


def test_a_file_without_target_values_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(
        InputFileError, match=r"x\.safetensors contains no target values.*delete it"
    ):
        TargetValueCache("m", tmp_path)


@pytest.fixture
def optimized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the facts whose target values the multi-layer editors optimize."""
    ids: list[str] = []
    optimize = multilayer.optimize_target_values

    def recording(
        loaded: LoadedModel, facts: Sequence[PlacedFact], *args: Any, **kwargs: Any
    ) -> TargetValues:
        ids.extend(fact.request.id for fact in facts)
        return optimize(loaded, facts, *args, **kwargs)

    monkeypatch.setattr(multilayer, "optimize_target_values", recording)
    return ids


def test_editors_share_cached_values_and_edits_stay_the_same(
    model: LoadedModel, optimized: list[str]
) -> None:
    uncached = Setup(NATIVE, CONTEXTS, second_moments(model, {"all": TEXTS}, LAYERS))
    cached = replace(uncached, value_cache=TargetValueCache("m"))

    def edit(method: str, params: Any, setup: Setup, past: Deltas | None = None) -> Deltas:
        return make_editor(method, params, setup).edit(model, REQUESTS, past=past)

    expected = edit("memit", small_params("memit"), uncached)
    found = edit("memit", small_params("memit"), cached)
    assert len(optimized) == 6
    for path, delta in expected.weights.items():
        assert torch.equal(delta.dense(), found.weights[path].dense())
    assert found.steps == expected.steps
    edit("alphaedit", replace(small_params("alphaedit"), threshold=0.5), cached)
    assert len(optimized) == 6
    edit("pmet", small_params("pmet"), cached)
    assert len(optimized) == 9
    edit("memit", small_params("memit"), cached, past=expected)
    assert len(optimized) == 12, "an edited model has target values of its own"
