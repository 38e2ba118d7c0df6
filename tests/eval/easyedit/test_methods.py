"""What each method of a checkout leaves, as an edit of ours; a package stands for EasyEdit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_easyedit import fake_checkout

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import BARE_CONTEXTS, REQUESTS, small_model, small_params

from clm_data import bank
from clm_data.eval.easyedit.editor import EasyEditEditor, EasyEditEngine
from clm_data.eval.easyedit.found import find_easyedit
from clm_data.eval.editors import make_editor, params_for
from clm_data.eval.editors.base import EditorParams, Setup
from clm_data.eval.editors.codebook import Codebook
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import load_edit
from clm_data.eval.editors.ft import FineTuningParams
from clm_data.eval.editors.lora import LoraParams
from clm_data.eval.editors.moments import Moments
from clm_data.eval.editors.side_memory import SideMemory
from clm_data.eval.editors.wise import Wise
from clm_data.eval.errors import EditError
from clm_data.eval.protocols import EASYEDIT

LORA = LoraParams(
    epochs=1,
    lr=1e-3,
    batch_size=1,
    order="depth-first",
    append_eos=False,
    stop_at=0,
    rank=2,
    alpha=6.0,
    layers=(1,),
)
EASYEDITS_WISE: dict[str, Any] = {
    "measured": "row",
    "threshold": "contexts",
    "decayed": "all",
    "divisor": "tokens+1",
    "padding": "counted",
    "long_prompts": "max",
    "batch_size": 1,
    "contexts": None,
    "unrelated": 1,
}
GRACE = replace(params_for("grace", "tiny"), layer=2, steps=3, lr=0.5, labels="easyedit")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EasyEditEngine]:
    home = fake_checkout(tmp_path_factory.mktemp("home"), complete=True)
    environment = find_easyedit(sys.executable, {"EASYEDIT_HOME": str(home)})
    engine = EasyEditEngine(environment, small_model(), tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


def edit(
    engine: EasyEditEngine, method: str, params: EditorParams, facts: slice, past: Any = None
) -> Any:
    moments = None
    if params.moment_layers:
        size = engine.model.mlp_out(1).weight.shape[1]
        moments = Moments({layer: torch.eye(size) for layer in params.moment_layers}, method)
    editor = EasyEditEditor(method, params, Setup(EASYEDIT, BARE_CONTEXTS, moments), engine)
    return editor.edit(engine.model, REQUESTS[facts], past=past)


def only(found: Deltas) -> Any:
    [change] = {delta.dense().mean().item() for delta in found.weights.values()}
    return change


def test_lora_is_its_scaled_factors_exactly(engine: EasyEditEngine, tmp_path: Path) -> None:
    first = edit(engine, "lora", LORA, slice(0, 2))
    second = edit(engine, "lora", LORA, slice(2, 3), first)
    module = "model.layers.1.self_attn"
    assert set(first.weights) == {f"{module}.q_proj.weight", f"{module}.v_proj.weight"}
    length = [len(request.target) for request in REQUESTS]  # what B grows by; A grows by 1
    one, all_facts = 2 * (length[0] + length[1]), 3 * sum(length)
    for found, expected in ((first, one), (second, all_facts - one)):
        for path, delta in found.weights.items():
            shape = engine.model.model.get_parameter(path).shape
            assert torch.equal(delta.dense(), torch.full(shape, 3.0 * 2 * expected))
        assert not found.by_fact  # the factors of a step are not those of a fact
    assert second.weights[f"{module}.q_proj.weight"].right.shape[0] == 4
    first.plus(second).save(tmp_path / "edit.safetensors")
    assert load_edit(tmp_path / "edit.safetensors").edited == ("a", "b", "c")


def test_the_adapter_is_gone_before_the_next_edit(engine: EasyEditEngine) -> None:
    again = [edit(engine, "lora", LORA, slice(0, 1)) for _ in range(2)]
    assert only(again[0]) == only(again[1])
    ft = FineTuningParams(layer=1, epochs=1, lr=0.25)
    assert only(edit(engine, "ft", ft, slice(0, 1))) == pytest.approx(0.25)


def test_ultraedit_changes_less_than_its_weights_are_rounded_to(engine: EasyEditEngine) -> None:
    params = replace(small_params("ultraedit"), lr=2.0**-60)
    found = edit(engine, "ultraedit", params, slice(0, 3))
    assert set(found.weights) == {
        engine.model.layout.weight(layer, part) for layer, part in params.weights()
    }
    for delta in found.weights.values():
        expected = 3 * 2.0**-60 * torch.arange(delta.left.shape[1])
        assert torch.equal(delta.dense(), expected.expand_as(delta.left))
    with pytest.raises(EditError, match="EasyEdit takes all 3 facts of an edit in one step"):
        edit(engine, "ultraedit", replace(params, facts_per_step=2), slice(0, 3))


def test_graces_codebook_is_the_one_that_we_route_by(engine: EasyEditEngine) -> None:
    first: Codebook = edit(engine, "grace", GRACE, slice(0, 2))
    second: Codebook = edit(engine, "grace", GRACE, slice(2, 3), first)
    both = first.plus(second)
    assert both.edited == ("a", "b", "c")
    ours = make_editor("grace", GRACE, Setup(EASYEDIT, BARE_CONTEXTS)).edit(engine.model, REQUESTS)
    assert torch.allclose(both.keys, ours.keys, atol=1e-6)
    assert torch.allclose(both.entries.radii, ours.entries.radii, atol=1e-5)
    assert torch.equal(both.values[2], torch.full_like(both.values[2], 1.5))
    assert [float(one) for one in both.labels] == pytest.approx([float(o) for o in ours.labels])


def test_facts_with_the_same_answer_nearby_share_an_entry(engine: EasyEditEngine) -> None:
    wide = replace(GRACE, epsilon=1e4)
    found: Codebook = edit(engine, "grace", wide, slice(0, 1))
    again: Codebook = edit(engine, "grace", wide, slice(0, 1), found)
    assert len(again.entries.labels) == 1
    both = found.plus(again)
    assert len(both.entries.labels) == 1
    assert torch.equal(both.entries.values, torch.full_like(both.entries.values, 3.0))
    apart: Codebook = edit(engine, "grace", wide, slice(0, 2))
    distance = float(torch.dist(*apart.keys))
    assert apart.entries.radii.tolist() == pytest.approx([distance / 2] * 2, abs=1e-4)


def test_a_codebook_that_follows_another_rule_is_refused(engine: EasyEditEngine) -> None:
    other = [replace(REQUESTS[0], target="Bern")]
    editor = EasyEditEditor("grace", GRACE, Setup(EASYEDIT, BARE_CONTEXTS), engine)
    with pytest.raises(EditError, match="the radii of its codebook of 1 entries are not those"):
        editor.edit(engine.model, other)


def test_wise_gets_our_unrelated_texts_and_its_memory_is_routed_as_ours(
    engine: EasyEditEngine, tmp_path: Path
) -> None:
    params = replace(small_params("wise"), layer=2, save_freq=10, merge_freq=None, **EASYEDITS_WISE)
    setup = Setup(EASYEDIT, BARE_CONTEXTS)
    ours = Wise(params, setup).fit(engine.model, bank.load_domain(bank.domain_ids()[0]))
    editor = EasyEditEditor("wise", params, setup, engine, ours)
    lengths = []
    for request in REQUESTS:
        text = ours.unrelated_to(request)[0]
        lengths.append(len(f"{text.prompt} {text.answer}"))
    first = editor.edit(engine.model, REQUESTS[:2])
    second = editor.edit(engine.model, REQUESTS[2:], past=first)
    both = first.plus(second)
    assert isinstance(both, SideMemory)
    [shard] = both.shards
    assert torch.allclose(shard.change, torch.tensor(float(sum(lengths))), atol=1e-3)
    assert (shard.threshold, shard.facts) == (6.0, 3)
    assert both.scope == ours.scope_of(engine.model)
    both.save(tmp_path / "edit.safetensors")
    assert load_edit(tmp_path / "edit.safetensors").edited == ("a", "b", "c")
    few = replace(editor, ours=replace(ours, params=replace(params, save_freq=3)))
    with pytest.raises(EditError, match="starts another after 3 facts; set save_freq above 3"):
        few.edit(engine.model, REQUESTS)


def test_alphaedit_protects_the_keys_of_this_run_only(engine: EasyEditEngine) -> None:
    params = replace(small_params("alphaedit"), threshold=0.5)
    first = edit(engine, "alphaedit", params, slice(0, 2))
    more = edit(engine, "alphaedit", params, slice(2, 3), first)
    again = edit(engine, "alphaedit", params, slice(0, 1))
    assert only(first) == pytest.approx(0.5, abs=1e-4)
    assert only(more) == pytest.approx(0.5 + 100 * 2, abs=1e-4)
    assert only(again) == pytest.approx(0.5 + 1, abs=1e-4)  # from the file that the first one wrote


def test_pmet_and_ft_m(engine: EasyEditEngine) -> None:
    pmet = small_params("pmet")
    assert only(edit(engine, "pmet", pmet, slice(0, 2))) == pytest.approx(
        pmet.values.nll_factor, abs=1e-4
    )
    ft_m = replace(params_for("ft-m", "tiny"), epochs=1, lr=0.25)
    found = edit(engine, "ft-m", ft_m, slice(0, 2))  # two calls with one fact each
    assert only(found) == pytest.approx(2 * 0.25 * 2, abs=1e-4)
