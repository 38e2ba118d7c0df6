"""LangEdit: AlphaEdit with directions to protect from each language and from earlier edits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import BARE_CONTEXTS, LAYERS, REQUESTS, TEXTS, small_model, small_params

from clm_data.eval.editors.alphaedit import AlphaEdit
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.langedit import LangEdit, LangEditParams
from clm_data.eval.editors.moments import LanguageMoments, Moments, second_moments
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import NATIVE


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model("llama")


@pytest.fixture(scope="module")
def moments(model: LoadedModel) -> LanguageMoments:
    return LanguageMoments(
        {
            "zh": second_moments(model, {"zh": TEXTS[:3]}, LAYERS),
            "en": second_moments(model, {"en": TEXTS[3:]}, LAYERS),
        }
    )


def langedit(moments: LanguageMoments | None, **changes: Any) -> LangEdit:
    params = replace(small_params("langedit"), threshold=0.5, ridge=1e-3, **changes)
    return LangEdit(params, Setup(NATIVE, BARE_CONTEXTS, language_moments=moments))


def alphaedit(moments: Moments) -> AlphaEdit:
    params = replace(small_params("alphaedit"), threshold=0.5, ridge=1e-3)
    return AlphaEdit(params, Setup(NATIVE, BARE_CONTEXTS, moments))


def equal(one: Deltas, two: Deltas) -> bool:
    return all(
        torch.equal(delta.dense(), two.weights[path].dense()) for path, delta in one.weights.items()
    )


def test_with_one_language_and_no_past_it_is_alphaedit(
    model: LoadedModel, moments: LanguageMoments
) -> None:
    for lang, other in (("zh", "en"), ("en", "zh")):
        editor = langedit(moments, **{f"{lang}_weight": 0.3, f"{other}_weight": 0.0})
        expected = alphaedit(moments.by_language[lang]).edit(model, REQUESTS)
        assert equal(editor.edit(model, REQUESTS), expected)
        assert not equal(langedit(moments).edit(model, REQUESTS), expected)


def test_equal_weights_give_the_moments_of_balanced_text(
    model: LoadedModel, moments: LanguageMoments
) -> None:
    balanced = second_moments(model, {"zh": TEXTS[:3], "en": TEXTS[3:]}, LAYERS)
    mean = moments.weighted({"zh": 2.0, "en": 2.0})
    for layer in LAYERS:
        assert torch.allclose(mean.moment(layer), balanced.moment(layer), rtol=1e-5, atol=1e-7)
    assert mean.origin == balanced.origin
    assert moments.weighted({"zh": 2.0, "en": 2.0}) is mean
    assert len({moments.key, balanced.key, *(m.key for m in moments.by_language.values())}) == 4


def test_the_protected_directions_are_those_of_the_sum_with_the_mean_of_the_past_keys(
    model: LoadedModel, moments: LanguageMoments
) -> None:
    layer = LAYERS[0]
    editor = langedit(moments, zh_weight=3.0, en_weight=1.0, past_weight=2.0)
    keys = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
    zh, en = (moments.by_language[lang].moment(layer).double() for lang in ("zh", "en"))
    total = 0.75 * zh + 0.25 * en + 2.0 * (keys.double() @ keys.double().T) / 4
    values, vectors = torch.linalg.eigh(total)
    expected = vectors[:, values >= 0.5]
    found = editor.protected_basis(layer, keys)
    assert found.shape == expected.shape
    assert torch.allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    twice = editor.protected_basis(layer, torch.cat([keys, keys], dim=1))
    assert torch.allclose(twice @ twice.T, found @ found.T, atol=1e-6)


def test_a_later_edit_leaves_the_outputs_at_keys_of_earlier_ones(
    model: LoadedModel, moments: LanguageMoments
) -> None:
    editor = langedit(moments)
    first = editor.edit(model, REQUESTS[:2])
    path = model.layout.weight(LAYERS[0])
    keys = first.keys[path]

    def effect(later: Deltas) -> float:
        change = later.weights[path].dense()
        return float((change @ keys).norm() / change.norm() / keys.norm())

    second = editor.edit(model, REQUESTS[2:], past=first)
    heavy = langedit(moments, past_weight=1e6).edit(model, REQUESTS[2:], past=first)
    free = editor.edit(model, REQUESTS[2:], past=replace(first, keys={}))
    assert effect(heavy) < 1e-5
    assert effect(second) < 0.2 * effect(free)


def test_languages_of_another_model_and_missing_moments_are_refused(
    model: LoadedModel, moments: LanguageMoments
) -> None:
    with pytest.raises(EditError, match="langedit needs second moments of each language"):
        langedit(None).edit(model, REQUESTS)
    with pytest.raises(EditError, match="second moments of the model llama-0"):
        langedit(moments).edit(small_model("llama", seed=1), REQUESTS)
    english = LanguageMoments({"en": moments.by_language["en"]})
    with pytest.raises(EditError, match=r"no language with second moments \(en\) has a weight"):
        langedit(english, en_weight=0.0).edit(model, REQUESTS)


def test_its_hyperparameters_are_those_of_alphaedit() -> None:
    for name, params in LangEdit.PARAMS.items():
        assert isinstance(params, LangEditParams)
        assert params.moments_by_language
        assert not AlphaEdit.PARAMS[name].moments_by_language
        assert (params.layers, params.threshold) == (
            AlphaEdit.PARAMS[name].layers,
            AlphaEdit.PARAMS[name].threshold,
        )


def test_moments_of_a_language_have_a_file_of_their_own(model: LoadedModel, tmp_path: Path) -> None:
    both = {"zh": TEXTS[:3], "en": TEXTS[3:]}
    second_moments(model, both, LAYERS, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    for lang, texts in both.items():
        second_moments(model, {lang: texts}, LAYERS, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert file.is_file()
