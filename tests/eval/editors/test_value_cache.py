"""Target values that cells share: found once, the same for all, there again after a stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (what follows needs torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import TEXTS, small_model, small_params

from clm_data.errors import InputFileError
from clm_data.eval.editors import make_editor
from clm_data.eval.editors import multilayer as spread
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import given_contexts
from clm_data.eval.editors.covariance import second_moments
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.value_cache import KeptValues
from clm_data.eval.editors.values import Values
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import NATIVE

REQUESTS = [
    EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张三"),
    EditRequest("b", "en", "The capital of France is", "France", "Rome"),
    EditRequest("c", "zh", "长江发源于", "长江", "黄山"),
]
CONTEXTS = given_contexts({"zh": ("{}", "天气。{}"), "en": ("{}", "The wind. {}")})
PARAMS = small_params("memit").values
LAYER = 2


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model("llama")


@pytest.fixture(scope="module")
def facts(model: LoadedModel) -> list[PlacedFact]:
    return place_facts(model, REQUESTS, NATIVE, CONTEXTS)[0]


class Finder:
    """Counts instead of optimising: the n-th fact that is asked for has the value (n, n)."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, facts: Sequence[PlacedFact]) -> Values:
        self.asked += [fact.request.id for fact in facts]
        numbers = range(len(self.asked) - len(facts), len(self.asked))
        return Values(torch.tensor([[n, n] for n in numbers]).float(), tuple(numbers))


def test_a_fact_is_asked_for_once_and_each_gets_its_own(facts: list[PlacedFact]) -> None:
    kept, find = KeptValues("m"), Finder()
    first = kept.values(facts[:2], LAYER, PARAMS, ("layer",), find)
    assert first.steps == (0, 1)
    again = kept.values([facts[2], *facts[1::-1], facts[2]], LAYER, PARAMS, ("layer",), find)
    assert find.asked == ["a", "b", "c"]
    assert again.targets[:, 0].tolist() == [2, 1, 0, 2]
    assert again.steps == (2, 1, 0, 2)


def test_what_bears_on_a_value_tells_values_apart(facts: list[PlacedFact]) -> None:
    kept, find = KeptValues("m"), Finder()
    kept.values(facts, LAYER, PARAMS, ("layer",), find)
    kept.values(facts, LAYER - 1, PARAMS, ("layer",), find)
    kept.values(facts, LAYER, replace(PARAMS, lr=0.1), ("layer",), find)
    kept.values(facts, LAYER, PARAMS, ("mlp", "attn"), find)
    changed = replace(facts[0], rows=facts[0].rows[:1])
    kept.values([changed], LAYER, PARAMS, ("layer",), find)
    assert find.asked == ["a", "b", "c"] * 4 + ["a"]


def test_they_are_there_again_bit_for_bit(facts: list[PlacedFact], tmp_path: Path) -> None:
    folder, find = tmp_path / "values", Finder()
    kept = KeptValues(["m", "float32"], folder)
    one = kept.values(facts[:1], LAYER, PARAMS, ("layer",), find)
    whole = kept.values(facts, LAYER, PARAMS, ("layer",), find)
    read = KeptValues(["m", "float32"], folder).values(facts, LAYER, PARAMS, ("layer",), find)
    assert len(find.asked) == 3
    assert torch.equal(read.targets, whole.targets)
    assert read.steps == whole.steps
    assert torch.equal(one.targets[0], read.targets[0])
    KeptValues(["m", "bfloat16"], folder).values(facts, LAYER, PARAMS, ("layer",), find)
    assert len(find.asked) == 6


def test_what_is_not_finite_is_not_kept(facts: list[PlacedFact], tmp_path: Path) -> None:
    kept = KeptValues("m", tmp_path)
    with pytest.raises(EditError, match="NaN"):
        kept.values(
            facts, LAYER, PARAMS, ("layer",), lambda _: Values(torch.full((3, 2), torch.nan), (1,))
        )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(InputFileError, match=r"x\.safetensors holds no target values.*delete it"):
        KeptValues("m", tmp_path)


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the facts whose values were optimised."""
    ids: list[str] = []
    real = spread.target_values

    def counted(loaded: LoadedModel, facts: Sequence[PlacedFact], *rest: Any, **more: Any) -> Any:
        ids.extend(fact.request.id for fact in facts)
        return real(loaded, facts, *rest, **more)

    monkeypatch.setattr(spread, "target_values", counted)
    return ids


def test_editors_share_them_and_an_edit_is_the_same(
    model: LoadedModel, optimised: list[str]
) -> None:
    moments = second_moments(model, {"all": TEXTS}, (1, 2))
    alone = Setup(NATIVE, CONTEXTS, moments)
    shared = replace(alone, kept=KeptValues("m"))
    alphaedit = replace(small_params("alphaedit"), threshold=0.5)

    def edit(method: str, params: Any, setup: Setup, **more: Any) -> Any:
        return make_editor(method, params, setup).edit(model, REQUESTS, **more)

    plain = edit("memit", small_params("memit"), alone)
    kept = edit("memit", small_params("memit"), shared)
    assert len(optimised) == 6
    for path, delta in plain.weights.items():
        assert torch.equal(delta.dense(), kept.weights[path].dense())
    assert kept.steps == plain.steps
    edit("alphaedit", alphaedit, shared)
    assert len(optimised) == 6
    edit("pmet", small_params("pmet"), shared)
    assert len(optimised) == 9
    edit("memit", small_params("memit"), shared, past=plain)
    assert len(optimised) == 12, "the edited model has values of its own"
