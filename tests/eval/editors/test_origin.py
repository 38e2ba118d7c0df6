"""What was computed from one model is refused by another of the same shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import CONTEXTS, LAYERS, REQUESTS, TEXTS, small_model, small_params

from clm_data import bank
from clm_data.eval.editors import METHODS, make_editor
from clm_data.eval.editors.base import Setup, TrainedEditor
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.moments import LanguageMoments, second_moments
from clm_data.eval.editors.origin import model_id
from clm_data.eval.editors.value_cache import TargetValueCache
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import NATIVE


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model("llama")


@pytest.fixture
def other() -> LoadedModel:
    """A model of the same shape with other weights."""
    found = small_model("llama")
    with torch.no_grad():
        found.model.model.norm.weight.mul_(1.5)
    return replace(found, name="another")


@pytest.fixture(scope="module")
def setup(model: LoadedModel) -> Setup:
    return Setup(NATIVE, CONTEXTS, second_moments(model, {"all": TEXTS}, LAYERS))


@pytest.fixture(scope="module")
def deltas(model: LoadedModel, setup: Setup) -> Deltas:
    return make_editor("memit", small_params("memit"), setup).edit(model, REQUESTS)


def test_deltas_are_applied_to_their_own_model_only(
    model: LoadedModel, other: LoadedModel, deltas: Deltas, tmp_path: Path
) -> None:
    deltas.save(tmp_path / "deltas")
    for one in (deltas, Deltas.load(tmp_path / "deltas")):
        with applied(replace(model, name="another label"), one):
            pass
        with pytest.raises(EditError, match=rf"{model.name} \(.*another \("), applied(other, one):
            pass


def test_deltas_of_an_earlier_version_are_compared_by_name(
    model: LoadedModel, other: LoadedModel, deltas: Deltas
) -> None:
    old = replace(deltas, origin="")
    with applied(model, old):
        pass
    with pytest.raises(EditError, match="another"), applied(other, old):
        pass


@pytest.mark.parametrize("method", sorted(METHODS))
def test_past_edits_of_another_model_are_refused(
    other: LoadedModel, deltas: Deltas, method: str
) -> None:
    moments = second_moments(other, {"all": TEXTS}, LAYERS)
    languages = LanguageMoments({"zh": moments, "en": moments})
    setup = Setup(NATIVE, CONTEXTS, moments, language_moments=languages)
    editor = make_editor(method, small_params(method), setup)
    if isinstance(editor, TrainedEditor):
        editor = editor.fit(other, bank.load_domain(bank.domain_ids()[0]))
    with pytest.raises(EditError, match=r"an edit of the model .* cannot be used with another"):
        editor.edit(other, REQUESTS, past=deltas)


def test_deltas_of_two_models_with_one_name_are_not_added(
    model: LoadedModel, other: LoadedModel, deltas: Deltas
) -> None:
    same_name = replace(deltas, origin=model_id(other))
    with pytest.raises(EditError, match="cannot be added"):
        deltas.plus(same_name)


def test_second_moments_of_another_model_are_refused(other: LoadedModel, setup: Setup) -> None:
    editor = make_editor("memit", small_params("memit"), setup)
    with pytest.raises(EditError, match=r"second moments of the model .* used with another"):
        editor.edit(other, REQUESTS)


def test_second_moments_from_the_cache_know_their_model(
    model: LoadedModel, other: LoadedModel, tmp_path: Path
) -> None:
    for _ in range(2):
        moments = second_moments(model, {"all": TEXTS}, LAYERS, cache=tmp_path)
        assert moments.origin == model_id(model) != model_id(other)


def test_a_cache_of_target_values_serves_one_model(
    model: LoadedModel, other: LoadedModel, setup: Setup
) -> None:
    cached = replace(setup, value_cache=TargetValueCache("m"))
    make_editor("memit", small_params("memit"), cached).edit(model, REQUESTS)
    moments = second_moments(other, {"all": TEXTS}, LAYERS)
    editor = make_editor("memit", small_params("memit"), replace(cached, moments=moments))
    with pytest.raises(EditError, match=r"target values of the model .* used with another"):
        editor.edit(other, REQUESTS)


def test_the_dtype_is_part_of_the_model(model: LoadedModel) -> None:
    assert model_id(small_model("llama", dtype="bfloat16")) != model_id(model)


def test_second_moments_depend_on_the_config(model: LoadedModel) -> None:
    key = second_moments(model, {"all": TEXTS}, LAYERS).key
    changed = small_model("llama")
    changed.model.config.rms_norm_eps = 0.5
    assert second_moments(changed, {"all": TEXTS}, LAYERS).key != key


def test_a_model_is_the_same_while_it_is_edited(model: LoadedModel, deltas: Deltas) -> None:
    with applied(model, deltas):
        assert model_id(model) == deltas.origin
