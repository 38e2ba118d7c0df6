"""Fine-tuning: sentences, minibatches, orders and limits, against plain loops with torch's Adam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import BARE_CONTEXTS, REQUESTS, character_tokenizer, small_model

from clm_data.errors import ConfigError
from clm_data.eval.editors import make_editor, method_class, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.ft import FineTuningParams
from clm_data.eval.editors.training import Sentence, TrainingParams, training_sentences
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EASYEDIT, NATIVE, EditProtocol
from clm_data.eval.sweep.overrides import with_overrides

BASE = FineTuningParams(layer=2, epochs=4, lr=5e-3, objective="answer", stop_at=0.0)


def _edit(
    model: LoadedModel,
    params: FineTuningParams,
    requests: Sequence[EditRequest] = REQUESTS,
    past: Deltas | None = None,
    **setup: Any,
) -> Deltas:
    editor = make_editor("ft", params, Setup(NATIVE, BARE_CONTEXTS, **setup))
    return editor.edit(model, requests, past=past)


def _change(deltas: Deltas) -> torch.Tensor:
    (delta,) = deltas.weights.values()
    return delta.dense().double()


def _sentences(
    model: LoadedModel,
    params: TrainingParams,
    protocol: EditProtocol = NATIVE,
    requests: Sequence[EditRequest] = REQUESTS,
) -> list[Sentence]:
    facts, _ = place_facts(model, requests, protocol, BARE_CONTEXTS)
    return training_sentences(model, facts, protocol, params)[1]


def _plain(model: LoadedModel, params: FineTuningParams) -> torch.Tensor:
    """The change of the weight after whole forward passes, fact by fact, and torch's own Adam."""
    weight = model.mlp_out(params.layer).weight
    start = weight.detach().clone()
    weight.requires_grad_(True)
    adam = torch.optim.Adam([weight], lr=params.lr)
    for _ in range(params.epochs):
        adam.zero_grad()
        losses = []
        for one in _sentences(model, params):
            logits = model.model(input_ids=torch.tensor([one.ids])).logits[0]
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits[list(one.places)], torch.tensor(one.labels)
                )
            )
        torch.stack(losses).mean().backward()
        adam.step()
        if params.limit is not None:
            with torch.no_grad():
                weight.copy_(weight.clamp(start - params.limit, start + params.limit))
    change = weight.detach() - start
    with torch.no_grad():
        weight.copy_(start)
    weight.requires_grad_(False)
    return change.T if model.layout.transposed else change


@pytest.mark.parametrize("append_eos", [False, True])
@pytest.mark.parametrize("limit", [None, 6e-3])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_change_is_that_of_a_plain_loop_with_adam(
    architecture: str, limit: float | None, append_eos: bool
) -> None:
    model = small_model(architecture, dtype="float64")
    params = replace(BASE, limit=limit, append_eos=append_eos)
    found, expected = _change(_edit(model, params)), _plain(model, params)
    assert float((found - expected).abs().max()) < 1e-7
    largest = float(found.abs().max())
    assert largest == pytest.approx(limit) if limit is not None else largest > 6e-3


def test_an_epoch_in_one_minibatch_is_a_step_on_all_facts_bit_for_bit() -> None:
    model = small_model("llama")
    whole = _edit(model, BASE)
    for size in (3, 100):
        assert torch.equal(_change(whole), _change(_edit(model, replace(BASE, batch_size=size))))
    assert whole.steps == (4, 4, 4)


def test_minibatches_are_drawn_by_the_seed_and_take_every_fact_once_an_epoch() -> None:
    model = small_model("llama")
    params = replace(BASE, batch_size=2)
    found = _edit(model, params)
    assert found.steps == (4, 4, 4)
    assert torch.equal(_change(found), _change(_edit(model, params)))
    assert not torch.equal(_change(found), _change(_edit(model, replace(params, seed=1))))
    assert not torch.equal(_change(found), _change(_edit(model, BASE)))


def test_depth_first_training_is_one_edit_on_top_of_another() -> None:
    model = small_model("llama", dtype="float64")
    params = replace(BASE, batch_size=1, order="depth-first", stop_at=1e-2)
    past: Deltas | None = None
    for request in REQUESTS:
        new = _edit(model, replace(params, order="breadth-first"), [request], past)
        past = new if past is None else past.plus(new)
    assert past is not None
    together = _edit(model, params)
    assert float((_change(together) - _change(past)).abs().max()) < 1e-6
    breadth_first = _edit(model, replace(params, order="breadth-first"))
    assert float((_change(together) - _change(breadth_first)).abs().max()) > 1e-3


def test_the_result_does_not_depend_on_how_facts_are_batched() -> None:
    model = small_model("llama", dtype="float64")
    params = replace(BASE, append_eos=True)
    expected = _change(_edit(model, params))
    for setup in ({"tokens_per_batch": 1}, {"tokens_per_batch": 20}):
        assert float((_change(_edit(model, params, **setup)) - expected).abs().max()) < 1e-6
    alone = sum(_gradient(model, params, [request]) for request in REQUESTS)
    assert float((alone / 3 - _gradient(model, params, REQUESTS)).abs().max()) < 1e-7


def _gradient(
    model: LoadedModel, params: FineTuningParams, requests: Sequence[EditRequest]
) -> torch.Tensor:
    from clm_data.eval.editors.training import TrainingInputs, _gradients

    sentences = _sentences(model, params, requests=requests)
    inputs = TrainingInputs(model, sentences, params.layer, 4096)
    every = range(len(sentences))
    weight = model.mlp_out(params.layer).weight
    _, (grad,) = _gradients(model, inputs.batches(every), len(sentences), [weight])
    return grad


def test_the_last_loss_is_on_the_end_of_sequence_token() -> None:
    model = small_model("llama")
    end = model.tokenizer.eos_token_id
    without = _sentences(model, BASE)
    for short, long in zip(without, _sentences(model, replace(BASE, append_eos=True)), strict=True):
        assert long.labels == (*short.labels, end)
        assert long.ids == (*short.ids, short.labels[-1])
        assert long.places == (*short.places, len(long.ids) - 1)


def test_a_tokenizer_without_end_of_sequence_token_is_an_error_with_the_fix() -> None:
    model = small_model("llama", tokenizer=character_tokenizer())
    with pytest.raises(EditError, match=r"no end-of-sequence token .* set append_eos to false"):
        _edit(model, replace(BASE, append_eos=True))
    assert _edit(model, BASE).edited == ("a", "b", "c")


def test_an_end_of_sequence_token_after_the_prompt_alone_is_refused() -> None:
    model = small_model("llama")
    params = replace(BASE, objective="protocol", append_eos=True)
    with pytest.raises(EditError, match="set objective to answer"):
        _sentences(model, params, EASYEDIT, REQUESTS[1:2])


def test_the_easyedit_protocol_trains_the_tokens_after_as_many_as_the_prompt_has() -> None:
    model = small_model("llama")
    for request in REQUESTS:
        (one,) = _sentences(model, BASE, EASYEDIT, [request])
        whole = model.tokenizer(f"{request.prompt} {request.target}")["input_ids"]
        before = len(model.tokenizer(request.prompt)["input_ids"])
        assert list(one.labels) == whole[before:]
        assert list(one.ids) == whole[:-1]
        assert list(one.places) == list(range(before - 1, len(whole) - 1))


def test_a_step_with_a_loss_below_the_threshold_is_not_taken() -> None:
    model = small_model("llama")
    still = _edit(model, replace(BASE, stop_at=1e9))
    assert still.steps == (0, 0, 0)
    assert not _change(still).any()
    stopped = _edit(model, replace(BASE, epochs=100, lr=0.05, stop_at=4.0))
    assert 0 < stopped.steps[0] < 100


def test_the_published_methods_learn_the_answer_and_only_locft_its_end() -> None:
    model, request = small_model("llama"), REQUESTS[1]
    (sentence,) = _sentences(model, replace(BASE, append_eos=True), requests=[request])

    def log_probabilities() -> torch.Tensor:
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([sentence.ids])).logits[0]
        return logits.log_softmax(-1)[list(sentence.places), list(sentence.labels)]

    before, after = log_probabilities(), {}
    for method in ("ft-m", "locft-bf"):
        params = replace(params_for(method, "tiny"), lr=2e-2)
        editor = make_editor(method, params, Setup(NATIVE, BARE_CONTEXTS))
        deltas = editor.edit(model, [request])
        assert deltas.method == method
        with applied(model, deltas):
            after[method] = log_probabilities()
        assert float((after[method] - before)[:-1].min()) > 0.1
    assert float(after["locft-bf"][-1]) > float(before[-1]) + 1
    assert float(after["locft-bf"][-1]) > float(after["ft-m"][-1]) + 1


def test_the_published_methods_have_the_published_settings() -> None:
    # LocFT: hparams/llama3-8b.yaml and qwen2.5-7b.yaml; EasyEdit: hparams/FT, target_new.
    for model, layer in (("llama-3-8b", 22), ("qwen2.5-7b", 6)):
        assert params_for("locft-bf", model) == FineTuningParams(
            layer=layer, epochs=25, lr=5e-4, batch_size=100, objective="answer", append_eos=True
        )
    for model, layer in (("llama-3-8b", 21), ("qwen2.5-7b", 27)):
        assert params_for("ft-m", model) == FineTuningParams(
            layer=layer, epochs=25, lr=5e-4, batch_size=1, order="depth-first", objective="answer"
        )
    assert all(params.limit is not None for params in method_class("ft").PARAMS.values())


def test_settings_can_be_switched_by_name() -> None:
    params = params_for("ft", "tiny")
    changes = {"limit": None, "batch_size": "2", "order": "depth-first", "append_eos": True}
    changed = with_overrides(params, None, changes)
    assert changed == replace(
        params, limit=None, batch_size=2, order="depth-first", append_eos=True
    )
    with pytest.raises(ConfigError, match="'order' is 'sideways'"):
        with_overrides(params, None, {"order": "sideways"})
