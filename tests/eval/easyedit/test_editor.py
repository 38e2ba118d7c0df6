"""EasyEdit as an editor: the real driver in a process of its own, with a package in its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.fake_easyedit import fake_checkout

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import REQUESTS, small_model

from clm_data.eval.easyedit.editor import EasyEditEditor, EasyEditEngine, unfit
from clm_data.eval.easyedit.found import EasyEdit, find_easyedit
from clm_data.eval.editors import params_for
from clm_data.eval.editors.base import EditorParams, Setup
from clm_data.eval.editors.contexts import contexts_from
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.ft import FineTuningParams
from clm_data.eval.editors.moments import Moments
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EASYEDIT

FT = FineTuningParams(layer=2, epochs=3, lr=0.01, limit=0.5)
CONTEXTS = contexts_from({"en": ("{}", "The wind. {}", "The sea. {}")})


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> EasyEdit:
    home = fake_checkout(tmp_path_factory.mktemp("easyedit"))
    return find_easyedit(sys.executable, {"EASYEDIT_HOME": str(home)})


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


@pytest.fixture(scope="module")
def engine(
    environment: EasyEdit, model: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EasyEditEngine]:
    engine = EasyEditEngine(environment, model, tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


def edit(
    engine: EasyEditEngine,
    method: str,
    params: EditorParams,
    requests: list[EditRequest],
    *,
    past: Deltas | None = None,
    moments: Moments | None = None,
) -> Deltas:
    setup = Setup(EASYEDIT, CONTEXTS, moments)
    editor = EasyEditEditor(method, params, setup, engine)
    return editor.edit(engine.model, requests, past=past)


def test_the_change_is_what_easyedit_did_to_its_copy(engine: EasyEditEngine) -> None:
    before = engine.model.fingerprint()
    found = edit(engine, "ft", FT, REQUESTS)
    [(path, delta)] = found.weights.items()
    assert path == engine.model.layout.weight(2)
    # Each fact is in one call, and the batch size is their number.
    assert torch.allclose(delta.dense(), torch.tensor(0.01 * 3 * 3), rtol=1e-5)
    assert found.edited == ("a", "b", "c")
    assert found.method == "ft"
    assert "EasyEdit" in found.seconds
    assert engine.model.fingerprint() == before


def test_an_edit_starts_from_the_original_model_unless_it_goes_on(engine: EasyEditEngine) -> None:
    rome = params_for("rome", "tiny")
    original = engine.model.model.get_parameter(engine.model.layout.weight(1))
    first = edit(engine, "rome", rome, REQUESTS[:1])
    again = edit(engine, "rome", rome, REQUESTS[:1])
    more = edit(engine, "rome", rome, REQUESTS[2:], past=again)
    both = edit(engine, "rome", rome, [REQUESTS[0], REQUESTS[2]])  # one call for each fact
    [change], [second], [third], [last] = (
        [delta.dense() for delta in one.weights.values()] for one in (first, again, more, both)
    )
    assert torch.allclose(change, original)
    assert torch.equal(change, second)
    assert torch.allclose(third, 2 * original)
    assert torch.allclose(last, 3 * original)


def test_an_edit_on_top_of_something_else_is_refused(engine: EasyEditEngine) -> None:
    past = edit(engine, "ft", FT, REQUESTS[:1])
    edit(engine, "ft", FT, REQUESTS[2:])
    with pytest.raises(EditError, match="it can only go on from its own last edit"):
        edit(engine, "ft", FT, REQUESTS[2:], past=past)


def test_easyedit_reads_our_second_moments_and_contexts(engine: EasyEditEngine) -> None:
    params = replace(params_for("memit", "tiny"), layers=(1, 2))
    size = engine.model.mlp_out(1).weight.shape[1]
    moments = {layer: layer * torch.eye(size) + 0.1 for layer in (1, 2)}
    found = edit(engine, "memit", params, REQUESTS, moments=Moments(moments, "key"))
    for layer, moment in moments.items():
        change = found.weights[engine.model.layout.weight(layer)].dense()
        assert torch.allclose(change, (2 * moment.diagonal()).expand_as(change), atol=1e-6)


def test_a_singular_second_moment_gets_the_ridge_that_ours_needs(engine: EasyEditEngine) -> None:
    params = replace(params_for("memit", "tiny"), layers=(1,))
    size = engine.model.mlp_out(1).weight.shape[1]
    moments = Moments({1: torch.ones(size, size)}, "singular")
    found = edit(engine, "memit", params, REQUESTS, moments=moments)
    change = found.weights[engine.model.layout.weight(1)].dense() / 2
    ridge = float((moments.factor(1, torch.device("cpu")) ** 2).sum(dim=1).mean()) - 1
    assert ridge > 0
    assert torch.allclose(change, torch.tensor(1 + ridge), rtol=1e-7)


def test_an_error_is_one_line_with_the_last_line_that_easyedit_printed(
    engine: EasyEditEngine,
) -> None:
    with pytest.raises(EditError) as error:
        edit(engine, "rome", params_for("rome", "tiny"), REQUESTS[1:2])
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"EasyEdit checkout {engine.environment.source}: AssertionError")
    assert "(rome_main.py:" in message
    assert message.endswith("it last printed: no solution for Rome")
    # The process goes on, and the half-made change is gone.
    found = edit(engine, "ft", FT, REQUESTS[:1])
    assert torch.allclose(next(iter(found.weights.values())).dense(), torch.tensor(0.01), rtol=1e-4)


def test_a_message_of_pages_is_shortened(engine: EasyEditEngine) -> None:
    with pytest.raises(EditError) as error:
        edit(engine, "rome", params_for("rome", "tiny"), [replace(REQUESTS[1], target="Bern")])
    message = str(error.value)
    assert "ValueError: size mismatch size mismatch" in message
    assert message.endswith(" ...")
    assert "it last printed: no line no line" in message
    assert len(message) < 700
    assert "\n" not in message


def test_a_package_that_easyedit_lacks_is_named_when_it_is_used(engine: EasyEditEngine) -> None:
    request = replace(REQUESTS[1], target="Oslo")
    with pytest.raises(EditError, match="EasyEdit needs the package a_package_for_images: No mod"):
        edit(engine, "rome", params_for("rome", "tiny"), [request])


def test_a_method_that_this_easyedit_lacks(engine: EasyEditEngine) -> None:
    moments = Moments({1: torch.eye(engine.model.mlp_out(1).weight.shape[1])}, "pmet")
    params = replace(params_for("pmet", "tiny"), layers=(1,))
    with pytest.raises(EditError, match="this EasyEdit has no PMET; it has FT, MEMIT, ROME"):
        edit(engine, "pmet", params, REQUESTS, moments=moments)


def test_facts_that_easyedit_cannot_take_are_refused_with_a_reason(engine: EasyEditEngine) -> None:
    twice = EditRequest("d", "en", "France is not France but", "France", "Rome")
    braces = EditRequest("e", "en", "The set {} of France is", "France", "Rome")
    found = edit(engine, "ft", FT, [twice, braces, *REQUESTS])
    assert found.edited == ("a", "b", "c")
    assert [one for one, _ in found.refused] == ["d", "e"]
    assert "once in the prompt" in found.refused[0][1]
    assert "no braces" in found.refused[1][1]
    assert not any(unfit(request) for request in REQUESTS)
    with pytest.raises(EditError, match="no fact can be edited by EasyEdit: d:"):
        edit(engine, "ft", FT, [twice])


def test_a_process_that_dies_is_reported(
    environment: EasyEdit, model: LoadedModel, tmp_path: Path
) -> None:
    engine = EasyEditEngine(environment, model, tmp_path)
    try:
        with pytest.raises(EditError) as error:
            edit(engine, "ft", FT, [replace(REQUESTS[1], target="die")])
        message = str(error.value)
        assert "ended with exit code 9" in message
        assert message.endswith("it last printed: training ['die']")
        found = edit(engine, "ft", FT, REQUESTS[:1])  # a new process
        assert found.edited == ("a",)
    finally:
        engine.close()
    assert not list(tmp_path.iterdir())


def test_an_edit_that_takes_too_long_is_given_up(
    environment: EasyEdit, model: LoadedModel, tmp_path: Path
) -> None:
    engine = EasyEditEngine(environment, model, tmp_path)
    try:
        edit(engine, "ft", FT, REQUESTS[:1])
        driver = engine._driver
        assert driver is not None
        driver.environment = replace(environment, timeout=0.5)
        with pytest.raises(EditError) as error:
            edit(engine, "ft", FT, [replace(REQUESTS[1], target="sleep")])
        message = str(error.value)
        assert "no answer within 0.5 seconds (EASYEDIT_TIMEOUT)" in message
        assert message.endswith("it last printed: training ['sleep']")
        assert not driver.alive
    finally:
        engine.close()


def test_a_folder_that_cannot_be_written(environment: EasyEdit, model: LoadedModel) -> None:
    with pytest.raises(
        EditError, match="/proc/clm: the model for EasyEdit cannot be written there"
    ):
        EasyEditEngine(environment, model, Path("/proc/clm"))


def test_a_model_that_the_environment_computes_differently_is_refused_once(
    environment: EasyEdit, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EasyEditEngine(environment, model, tmp_path)
    weight = model.model.model.norm.weight
    original = model.model.save_pretrained

    def save_another(folder: Path) -> None:  # as an older transformers that ignores a setting
        weight.mul_(1.5)
        original(folder)
        weight.div_(1.5)

    monkeypatch.setattr(model.model, "save_pretrained", save_another)
    try:
        for _ in range(2):
            with pytest.raises(EditError, match="the model computes something else") as error:
                edit(engine, "ft", FT, REQUESTS)
            assert "\n" not in str(error.value)
        assert not (engine.folder / "1.safetensors").exists()
    finally:
        engine.close()


def test_a_model_in_half_precision_is_refused(environment: EasyEdit, tmp_path: Path) -> None:
    half = small_model()
    half.model.to(torch.bfloat16)
    engine = EasyEditEngine(environment, half, tmp_path)
    with pytest.raises(EditError, match="the model is in bfloat16; add --dtype float32"):
        edit(engine, "ft", FT, REQUESTS)
    engine.close()
