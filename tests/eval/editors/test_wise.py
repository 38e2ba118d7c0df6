"""WISE: what a side memory changes, which prompts it answers, and how it is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.paths import shared_path
from helpers.small_models import BARE_CONTEXTS, CONTEXTS, REQUESTS, small_model, small_params
from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data import bank
from clm_data.errors import InputFileError
from clm_data.eval.analysis.geometry.saved_edits import find_edits
from clm_data.eval.dataset import EvalSet
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import contexts_from
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import applied, load_edit
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.routed import OUT_OF_SCOPE, RoutedModel
from clm_data.eval.editors.side_memory import Shard, SideMemory, SideScope, ties
from clm_data.eval.editors.wise import Wise
from clm_data.eval.editors.wise_training import (
    Loss,
    SideRun,
    SideTraining,
    Unrelated,
    WiseParams,
    settled,
    trained_entries,
)
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EASYEDIT, NATIVE
from clm_data.eval.recipe import Recipe
from clm_data.eval.sweep.answers import Question, generate_answers, predict_answers
from clm_data.eval.sweep.runner import run_sweep

SETUP = Setup(NATIVE, CONTEXTS)
ROWS = bank.load_domain(bank.domain_ids()[0])
QUESTIONS = [Question(one.lang, one.prompt, one.target) for one in REQUESTS]
OTHERS = [
    Question("zh", "《红楼梦》的作者是", "曹雪芹"),
    Question("en", "Water boils at", "100 degrees"),
]
SHORT = Unrelated("en", "Water", "boils")
LONG = Unrelated("en", "Water boils at 100 degrees, and the capital of France is not", "Hamlet")


def _params(**changes: Any) -> WiseParams:
    params: WiseParams = replace(small_params("wise"), **changes)
    return params


def _wise(model: LoadedModel, **changes: Any) -> Wise:
    return Wise(_params(**changes), SETUP).fit(model, ROWS)


def _edit(model: LoadedModel, **changes: Any) -> SideMemory:
    return _wise(model, **changes).edit(model, REQUESTS)


def _memory(model: LoadedModel, change: torch.Tensor, **scope: Any) -> SideMemory:
    """A side memory with one shard whose facts moved by at least 1."""
    about = SideScope(2, model.layout.weight(2), "silu", save_freq=None, merge_freq=None)
    shard = Shard(0, change, 1.0, 1)
    return SideMemory("wise", model.name, replace(about, **scope), (shard,))


def _shape(model: LoadedModel) -> tuple[int, int]:
    rows, columns = model.mlp_out(2).weight.shape
    return (columns, rows) if model.layout.transposed else (rows, columns)


def _noise(model: LoadedModel, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(_shape(model), generator=torch.Generator().manual_seed(0))


def _training(
    model: LoadedModel,
    *,
    unrelated: Unrelated = SHORT,
    requests: list[EditRequest] | None = None,
    **changes: Any,
) -> SideTraining:
    params = _params(**changes)
    facts, _ = place_facts(model, requests or [REQUESTS[1]], NATIVE, CONTEXTS)
    return SideTraining(model, facts, [[unrelated]] * len(facts), params, SETUP)


def _train(
    model: LoadedModel, *, start: torch.Tensor | None = None, **changes: Any
) -> tuple[SideRun, torch.Tensor]:
    """Train every entry, from a change; the run, and the change afterwards."""
    weight = model.mlp_out(2).weight.detach()
    change = torch.zeros_like(weight) if start is None else start.clone()
    run = _training(model, **changes).train(change, torch.ones_like(weight).bool(), weight)
    return run, change


def _routes(model: LoadedModel, edit: SideMemory, prompts: list[str]) -> list[int]:
    with applied(model, edit) as edited:
        assert isinstance(edited, RoutedModel)
        return edited.routes([list(model.tokenizer(one)["input_ids"]) for one in prompts])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_copy_that_is_not_changed_answers_bit_for_bit(architecture: str, dtype: str) -> None:
    model = small_model(architecture, dtype=dtype)
    edit = _memory(model, torch.zeros(_shape(model)), act_ratio=0.0)
    questions = [*QUESTIONS, *OTHERS]
    assert _routes(model, edit, [one.prompt for one in questions]) == [0] * 5
    before = predict_answers(model, questions, NATIVE), generate_answers(model, questions)
    with applied(model, edit) as edited:
        assert predict_answers(edited, questions, NATIVE) == before[0]
        assert generate_answers(edited, questions) == before[1]


@pytest.mark.parametrize("scope", [{"act_ratio": float("inf")}, {"act_ratio": 1e9}])
def test_with_a_threshold_out_of_reach_every_prompt_is_answered_bit_for_bit(
    scope: dict[str, float],
) -> None:
    model = small_model("llama")
    edit = _memory(model, _noise(model), **scope)
    questions = [*QUESTIONS, *OTHERS]
    assert _routes(model, edit, [one.prompt for one in questions]) == [OUT_OF_SCOPE] * 5
    before = predict_answers(model, questions, NATIVE)
    with applied(model, edit) as edited:
        assert predict_answers(edited, questions, NATIVE) == before


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_without_a_threshold_every_prompt_is_answered_with_the_changed_weight(
    architecture: str,
) -> None:
    model = small_model(architecture, dtype="float64")
    change = _noise(model).double()
    edit = _memory(model, change, act_ratio=0.0)
    changed = Deltas("ft", model.name, {model.layout.weight(2): WeightDelta(change)})
    questions = [*QUESTIONS, *OTHERS]
    with applied(model, changed) as edited:
        expected = predict_answers(edited, questions, NATIVE)
    with applied(model, edit) as edited:
        found = predict_answers(edited, questions, NATIVE)
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        assert one.predicted == other.predicted
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-9)


def test_a_prompt_is_answered_from_memory_only_if_it_moves_far_enough() -> None:
    model = small_model("llama")
    edit = _edit(model, unrelated=4, steps=40)
    prompts = [one.prompt for one in (*QUESTIONS, *OTHERS)]
    assert _routes(model, edit, prompts) == [0, 0, 0, OUT_OF_SCOPE, OUT_OF_SCOPE]
    before = predict_answers(model, OTHERS, NATIVE)
    with applied(model, edit) as edited:
        assert predict_answers(edited, OTHERS, NATIVE) == before


def test_of_several_memories_the_one_that_moves_a_prompt_most_answers() -> None:
    model = small_model("llama")
    edit = _memory(model, _noise(model), act_ratio=0.0)
    small, large = edit.shards[0], Shard(1, 3 * edit.shards[0].change, 1.0, 1)
    prompts = [one.prompt for one in QUESTIONS]
    assert _routes(model, replace(edit, shards=(small, large)), prompts) == [1, 1, 1]
    assert _routes(model, replace(edit, shards=(large, small)), prompts) == [0, 0, 0]
    far = replace(large, threshold=float("inf"))
    scope = replace(edit.scope, act_ratio=0.5)
    only_near = replace(edit, scope=scope, shards=(replace(small, threshold=0.0), far))
    assert _routes(model, only_near, prompts) == [0, 0, 0]


def test_the_largest_token_distance_of_long_prompts_is_a_setting() -> None:
    model = small_model("llama")
    edit = _memory(model, _noise(model))
    longer = replace(edit, scope=replace(edit.scope, long_prompts="max"))
    prompt = "The capital of France is Paris. " * 15

    def reach(edit: SideMemory, prompt: str) -> float:
        """The largest threshold at which a prompt is in scope."""
        low, high = 0.0, 100.0
        for _ in range(30):
            middle = (low + high) / 2
            at = replace(edit, scope=replace(edit.scope, act_ratio=middle))
            low, high = (middle, high) if _routes(model, at, [prompt])[0] == 0 else (low, middle)
        return low

    assert len(model.tokenizer(prompt)["input_ids"]) > 100
    assert reach(longer, prompt) > reach(edit, prompt) + 0.01
    short = "The capital of France is"
    assert reach(longer, short) == pytest.approx(reach(edit, short))


def test_rows_are_routed_alike_alone_and_together() -> None:
    model = small_model("llama")
    prompts = [one.prompt for one in (*REQUESTS, *OTHERS)]
    edit = _edit(model)
    assert _routes(model, edit, prompts) == [_routes(model, edit, [one])[0] for one in prompts]


def test_decoding_keeps_the_route_of_the_prompt() -> None:
    """Greedy decoding equals the whole text run anew at each step, routed by the prompt alone."""
    model = small_model("llama", dtype="float64")
    edit = _edit(model)
    with applied(model, edit) as edited:
        for question in [*QUESTIONS, *OTHERS]:
            (found,) = generate_answers(edited, [question], extra_tokens=6)
            row = list(model.tokenizer(question.prompt)["input_ids"])
            length = len(row)
            answer = model.tokenizer(" " + question.answer, add_special_tokens=False)["input_ids"]
            for _ in range(len(answer) + 6):
                if row[-1] == model.tokenizer.eos_token_id:
                    break
                prompt = torch.arange(len(row))[None] < length
                with torch.no_grad(), edited.routed(prompt):
                    logits = model.model(input_ids=torch.tensor([row]), use_cache=False).logits
                row.append(int(logits[0, -1].argmax()))
            assert found == model.tokenizer.decode(row[length:], skip_special_tokens=True)


def test_merging_equal_changes_returns_them() -> None:
    change = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ties([change] * 3, density=1.0), change)
    assert torch.equal(ties([change] * 2, density=1.0), change)


def test_a_merge_keeps_large_entries_and_averages_those_with_the_elected_sign() -> None:
    one = torch.tensor([[4.0, -3.0, 0.1, 2.0]])
    two = torch.tensor([[2.0, 1.0, -0.2, -5.0]])
    assert ties([one, two], density=1.0).tolist() == [[3.0, -3.0, pytest.approx(-0.2), -5.0]]
    # Each keeps its two largest entries: 4, -3 and 2, -5.
    assert ties([one, two], density=0.5).tolist() == [[3.0, -3.0, 0.0, -5.0]]


def test_shards_are_merged_when_a_group_of_them_is_complete() -> None:
    model = small_model("llama")
    edit = _memory(model, _noise(model), save_freq=2, merge_freq=4, density=1.0)
    change = edit.shards[0].change
    shards = tuple(Shard(i, change, 3.0 - i, 2 if i < 2 else 1) for i in range(3))
    whole = replace(edit, shards=shards)
    assert [one.facts for one in whole.memories] == [4, 1]
    assert torch.equal(whole.memories[0].change, change)
    assert whole.memories[0].threshold == 2.0
    assert [one.facts for one in replace(edit, shards=shards[:2]).memories] == [4]
    assert [one.facts for one in replace(edit, shards=shards[1:]).memories] == [2, 1]


def test_facts_fill_one_shard_after_another_at_once_or_in_several_edits() -> None:
    model = small_model("llama", dtype="float64")
    editor = _wise(model, batch_size=1, save_freq=2, merge_freq=None)
    whole = editor.edit(model, REQUESTS)
    assert [(one.number, one.facts) for one in whole.shards] == [(0, 2), (1, 1)]
    assert editor.edit(model, REQUESTS[:2]).shards[0].facts == 2
    first = editor.edit(model, REQUESTS[:1])
    second = editor.edit(model, REQUESTS[1:2], past=first)
    both = first.plus(second)
    joined = both.plus(editor.edit(model, REQUESTS[2:], past=both))
    for one, other in zip(whole.shards, joined.shards, strict=True):
        assert (one.number, one.facts) == (other.number, other.facts)
        assert torch.allclose(one.change, other.change, atol=1e-12)
        assert one.threshold == pytest.approx(other.threshold)
    first_entries, second_entries = (shard.change != 0 for shard in whole.shards)
    assert not torch.equal(first_entries, second_entries)  # each shard draws its own


def test_one_shard_without_a_limit_takes_facts_in_any_number_of_edits() -> None:
    model = small_model("llama")
    editor = _wise(model, steps=1, save_freq=None, merge_freq=None)
    past = editor.edit(model, REQUESTS)
    for request in REQUESTS:
        past = past.plus(editor.edit(model, [request], past=past))
    assert [(shard.number, shard.facts) for shard in past.shards] == [(0, 6)]


def test_only_the_entries_that_were_drawn_move() -> None:
    model = small_model("llama")
    (shard,) = _edit(model, mask_ratio=0.3, limit=0.05).shards
    drawn = trained_entries(*_shape(model), 0.3, _params().seed)
    assert 0.25 < float(drawn.float().mean()) < 0.35
    assert torch.equal(shard.change != 0, drawn & (shard.change != 0))
    assert float((shard.change[drawn] != 0).float().mean()) > 0.9
    assert float(shard.change.abs().max()) == pytest.approx(0.05)


def test_weight_decay_of_all_entries_shrinks_the_others_as_in_the_reference() -> None:
    model = small_model("llama")
    rate = {"lr": 0.5, "weight_decay": 1e-2, "steps": 4}
    weight, drawn = model.mlp_out(2).weight, trained_entries(*_shape(model), 0.2, 42)
    (shard,) = _edit(model, decayed="all", mask_ratio=0.2, **rate).shards
    expected = weight * ((1 - 0.5 * 1e-2) ** 4 - 1)
    assert torch.allclose(shard.change[~drawn], expected[~drawn], rtol=1e-4, atol=1e-7)
    (kept,) = _edit(model, mask_ratio=0.2, **rate).shards
    assert not kept.change[~drawn].any()
    (none,) = _edit(model, mask_ratio=0.2, **rate | {"weight_decay": 0.0}).shards
    assert not torch.equal(none.change[drawn], kept.change[drawn])


def test_the_length_of_unrelated_text_changes_nothing_that_is_not_about_it() -> None:
    model = small_model("llama", dtype="float64")
    runs = [_train(model, unrelated=text, steps=1)[0] for text in (SHORT, LONG)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].distances == pytest.approx(runs[1].distances)
    padded = [
        _train(model, unrelated=text, steps=1, padding="counted", measured="row")[0]
        for text in (SHORT, LONG)
    ]
    assert padded[0].losses[0].answer != pytest.approx(padded[1].losses[0].answer, rel=1e-3)


def test_padding_is_the_same_as_none_if_no_row_is_padded() -> None:
    """With one context and an unrelated text as long as the fact, both settings agree."""
    model = small_model("llama", dtype="float64")
    setup = Setup(NATIVE, BARE_CONTEXTS)
    request = REQUESTS[0]
    same = Unrelated("zh", request.prompt, request.target)
    changes = {}
    for padding in ("ignored", "counted"):
        params = _params(padding=padding, measured="row", steps=3, alpha=1e6)
        editor = Wise(params, setup, {"zh": (same,), "en": (same,)})
        changes[padding] = editor.edit(model, [request]).shards[0].change
    assert torch.allclose(changes["ignored"], changes["counted"], atol=1e-9)


def test_the_divisor_of_the_reference_is_a_token_too_large() -> None:
    model = small_model("llama", dtype="float64")
    facts, _ = place_facts(model, [REQUESTS[1]], NATIVE, CONTEXTS)
    tokens = len(facts[0].sentences[0].labels)
    ours, theirs = (
        _train(model, steps=1, divisor=divisor)[0].losses[0].answer
        for divisor in ("tokens", "tokens+1")
    )
    assert theirs == pytest.approx(ours * tokens / (tokens + 1))


def test_a_step_follows_the_gradient_of_the_loss() -> None:
    model = small_model("llama", dtype="float64")
    start = _noise(model, 0.1).double()
    plain = {"steps": 1, "lr": 1.0, "weight_decay": 0.0, "limit": None, "alpha": 0.01}
    _, after = _train(model, start=start, **plain)
    gradient, direction = start - after, _noise(model).double()
    ends = [
        _train(model, start=start + sign * 1e-4 * direction, **plain)[0].losses[0].total
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / 2e-4
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_the_losses_of_facts_that_are_trained_together_are_summed() -> None:
    model = small_model("llama", dtype="float64")
    plain = {"steps": 1, "lr": 1.0, "weight_decay": 0.0, "limit": None}
    start = _noise(model, 0.1).double()
    single = [_train(model, start=start, requests=[one], **plain)[1] - start for one in REQUESTS]
    _, after = _train(model, start=start, requests=REQUESTS, **plain)
    assert torch.allclose(after - start, sum(single), atol=1e-9)


def test_training_ends_when_the_loss_is_small_and_settled() -> None:
    def settle(*totals: float) -> bool:
        return settled([Loss(total, 0.0) for total in totals])

    assert settle(0.5, 0.01, 0.01)
    assert not settle(0.01)
    assert not settle(0.03, 0.01)
    assert not settle(0.5, 0.5)


def test_edited_prompts_move_beyond_the_margin_and_unrelated_text_less() -> None:
    model = small_model("llama")
    run, _ = _train(model, requests=REQUESTS, steps=60, alpha=0.5, beta=2.0, gamma=1.0)
    assert min(run.distances) > 1.9


def test_the_threshold_is_that_of_prompts_as_they_are_asked_or_of_all_contexts() -> None:
    model = small_model("llama")
    bare, contexts = (_edit(model, threshold=one) for one in ("bare", "contexts"))
    assert torch.equal(bare.shards[0].change, contexts.shards[0].change)
    assert bare.shards[0].threshold != contexts.shards[0].threshold
    closest = replace(bare, scope=replace(bare.scope, act_ratio=1 - 1e-6))
    assert _routes(model, closest, [one.prompt for one in REQUESTS]) == [0, 0, 0]
    closer = replace(bare, scope=replace(bare.scope, act_ratio=1 + 1e-6))
    assert OUT_OF_SCOPE in _routes(model, closer, [one.prompt for one in REQUESTS])


def test_the_first_unrelated_text_is_in_the_language_of_the_fact_and_the_second_is_not() -> None:
    model = small_model("llama")
    editor = _wise(model, steps=1, unrelated=2)
    assert editor.unrelated is not None
    chinese, english = editor.unrelated["zh"], editor.unrelated["en"]

    def change(zh: int, en: int, unrelated: int) -> torch.Tensor:
        texts = {"zh": chinese[zh : zh + 1], "en": english[en : en + 1]}
        params = _params(unrelated=unrelated)
        one = replace(editor, params=params, unrelated=texts)
        return one.edit(model, [REQUESTS[0]]).shards[0].change

    assert torch.equal(change(0, 0, 1), change(0, 1, 1))
    assert not torch.equal(change(0, 0, 2), change(0, 1, 2))
    assert not torch.equal(change(0, 0, 2), change(1, 0, 2))


def test_probes_of_records_that_are_not_edited_are_unrelated_texts() -> None:
    editor = Wise(_params(), SETUP).fit(small_model("llama"), RECORDS)
    assert editor.unrelated is not None
    texts = {(one.prompt, one.answer) for one in editor.unrelated["zh"]}
    facts = {(one.zh.prompt, one.zh.ground_truth) for one in RECORDS}
    assert texts == facts | {(one.zh_probe.loc, one.zh_probe.loc_ans) for one in RECORDS}


def test_the_number_of_contexts_can_be_limited() -> None:
    model = small_model("llama", dtype="float64")
    one = _wise(model, contexts=1).edit(model, REQUESTS)
    bare = Wise(_params(), replace(SETUP, contexts=BARE_CONTEXTS)).fit(model, ROWS)
    assert torch.equal(one.shards[0].change, bare.edit(model, REQUESTS).shards[0].change)
    assert not torch.equal(one.shards[0].change, _edit(model).shards[0].change)


def test_margins_can_be_multiples_of_a_distance_of_the_model_which_the_edit_keeps(
    tmp_path: Path,
) -> None:
    model = small_model("llama")
    editor = _wise(model, unit="calibrated")
    assert editor.unit > 0
    edit = editor.edit(model, REQUESTS)
    params = editor.params
    absolute = _edit(
        model,
        **{name: getattr(params, name) * editor.unit for name in ("alpha", "beta", "gamma")},
    )
    assert torch.equal(edit.shards[0].change, absolute.shards[0].change)
    edit.save(tmp_path / "edit")
    loaded = load_edit(tmp_path / "edit")
    assert isinstance(loaded, SideMemory)
    assert loaded.scope.unit == editor.unit
    with pytest.raises(EditError, match=r"a step moves no output; raise lr"):
        _wise(model, unit="calibrated", lr=1e-60)


def test_it_learns_unrelated_texts_before_it_edits() -> None:
    model = small_model("llama")
    with pytest.raises(EditError, match="wise needs unrelated texts first; call fit"):
        Wise(_params(), SETUP).edit(model, REQUESTS)
    with pytest.raises(EditError, match="needs texts about subjects that are not edited"):
        Wise(_params(), SETUP).fit(model, [])


def test_an_unknown_activation_is_an_error_that_names_it() -> None:
    with pytest.raises(EditError, match="'sigma' is not an activation of transformers"):
        _edit(small_model("llama"), activation="sigma")


def test_a_model_whose_config_names_no_activation_needs_one() -> None:
    model = small_model("llama")
    object.__setattr__(model.model.config, "hidden_act", None)
    with pytest.raises(EditError, match="its config names no activation; set activation"):
        _edit(model)
    assert _edit(model, activation="relu").scope.activation == "relu"


def test_side_memories_of_different_scopes_are_not_added() -> None:
    model = small_model("llama")
    one, two = _edit(model, steps=1), _edit(model, steps=1, act_ratio=0.5)
    with pytest.raises(EditError, match=r"act_ratio=0\.5.* cannot be added"):
        one.plus(two)


def test_a_damaged_file_is_no_side_memory(tmp_path: Path) -> None:
    file = tmp_path / "edit.safetensors"
    _edit(small_model("llama"), steps=1).save(file)
    file.write_bytes(file.read_bytes().replace(b'\\"layer\\"', b'\\"liyer\\"'))
    with pytest.raises(InputFileError, match="contains no saved side-memory"):
        load_edit(file)


def test_a_sweep_edits_with_wise_and_geometry_reads_the_side_matrix(
    tiny_folder: Path, tmp_path: Path
) -> None:
    grid = {
        "models": [{"name": "tiny"}],
        "methods": ["wise"],
        "languages": ["zh", "en"],
        "batch_sizes": [4],
        "modes": ["batch", "sequential"],
        "params": {
            "wise": {"layer": 2, "steps": 40, "lr": 0.3, "save_freq": 6, "merge_freq": None}
        },
        "resamples": 10,
    }
    results = run_sweep(
        Recipe.model_validate(grid),
        EvalSet("made", tuple(RECORDS)),
        out=tmp_path,
        cache=tiny_folder.parent,
        save_deltas=True,
        tiny_config=CONFIG,
    )
    assert not results.failed
    for cell in results.cells:
        reliability = cell.after[f"{cell.setting.language}_reliability"]
        assert reliability is not None
        assert reliability.mean >= (0.9 if cell.setting.mode == "batch" else 0.75)
    found = find_edits(tmp_path)
    assert not found.skipped
    for group in found.groups:
        assert group.layers() == [2]
        facts = 8 if group.setting.mode == "sequential" else 4
        for files in group.batches.values():
            for file in files:
                edit = load_edit(file.path)
                assert isinstance(edit, SideMemory)
                assert sum(shard.facts for shard in edit.shards) == facts
                stacked = torch.cat([shard.change for shard in edit.shards])
                assert torch.allclose(torch.tensor(file.change(2).dense()).float(), stacked)


class _AsTheReferenceRounds(SideTraining):
    """Multiplies by the copy itself, so that small distances are differences of rounded outputs."""

    weight: torch.Tensor

    def _moved(self, change: torch.Tensor) -> torch.Tensor:
        return self._inputs @ (self.weight + change).T


@pytest.mark.slow
def test_entries_losses_and_side_matrices_agree_with_the_reference(smollm2: LoadedModel) -> None:
    """Five English facts on SmolLM2-135M, one after another, in EasyEdit's contexts."""
    import numpy as np

    folder = shared_path("reference", "easyedit_methods")
    run = json.loads((folder / "wise_en5.json").read_text("utf-8"))
    hparams = run["hparams"]
    params = Wise.PARAMS["smollm2-135m"]
    for ours, theirs in (
        ("lr", "edit_lr"), ("steps", "n_iter"), ("alpha", "alpha"), ("beta", "beta"),
        ("gamma", "gamma"), ("act_ratio", "act_ratio"), ("mask_ratio", "mask_ratio"),
        ("limit", "norm_constraint"), ("save_freq", "save_freq"), ("merge_freq", "merge_freq"),
        ("density", "densities"),
    ):  # fmt: skip
        assert getattr(params, ours) == hparams[theirs]
    with np.load(folder / "wise_en5.npz") as packed:
        expected = {0: packed["side_delta_after_fact1"], 4: packed["side_delta"]}
        mask = np.unpackbits(packed["mask_packed"])
    weight = smollm2.mlp_out(26).weight.detach()
    drawn = trained_entries(*weight.shape, params.mask_ratio, params.seed)
    assert np.array_equal(drawn.numpy().ravel(), mask[: weight.numel()])
    params = replace(
        params,
        decayed="all",
        divisor="tokens+1",
        padding="counted",
        measured="row",
        threshold="contexts",
    )
    requests = [
        EditRequest(str(one["id"]), "en", one["prompt"], one["subject"], one["target_new"])
        for one in run["requests"]
    ]
    setup = Setup(EASYEDIT, contexts_from({"en": run["context_templates"]}))
    facts, _ = place_facts(smollm2, requests, EASYEDIT, setup.contexts)
    for kind, count, error_of_losses in ((_AsTheReferenceRounds, 5, 1e-3), (SideTraining, 1, 2e-2)):
        kind.weight = weight  # type: ignore[attr-defined]
        change = torch.zeros_like(weight)
        for number, call in enumerate(run["calls"][:count]):
            one = run["requests"][number]
            text = Unrelated("en", one["loc"], one["loc_ans"])
            training = kind(smollm2, [facts[number]], [[text]], params, setup)
            trained = training.train(change, drawn, weight)
            losses = torch.tensor([[x.total, x.answer, x.margins] for x in trained.losses])
            worst = (losses - torch.tensor(call["losses"][0]))[:10].abs().amax(dim=1)
            error = None
            if number in expected:
                delta = torch.from_numpy(expected[number])
                error = float((change - delta).norm() / delta.norm())
            print(f"{kind.__name__} fact {number + 1}: losses {worst.tolist()}, change {error}")
            if number == 0:
                assert float(worst.max()) < error_of_losses
            if error is not None:
                assert error < (5e-3 if number == 0 else 0.1)
