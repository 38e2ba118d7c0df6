"""Parity with a run of the reference implementation, EasyEdit."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from helpers.paths import shared_path

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import contexts_from
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.gradients import read_gradients
from clm_data.eval.editors.memit import Memit
from clm_data.eval.editors.moments import Moments
from clm_data.eval.editors.ultraedit import UltraEdit, UltraEditParams
from clm_data.eval.editors.value_optimizer import optimize_target_values
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EASYEDIT

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Parity:
    """The reference's inputs, its target values (N, d), and its changes (d, m) by layer."""

    model: LoadedModel
    requests: list[EditRequest]
    setup: Setup
    targets: torch.Tensor
    deltas: dict[int, torch.Tensor]


@pytest.fixture(scope="module")
def parity(smollm2: LoadedModel) -> Parity:
    import numpy as np

    folder = shared_path("reference", "easyedit_parity")
    run = json.loads((folder / "memit_en10.json").read_text("utf-8"))
    bare, prefixed = json.loads((folder / "context_templates.json").read_text("utf-8"))
    moments = {}
    with np.load(folder / "second_moments.npz") as packed:
        for layer in range(4, 9):
            full = np.zeros((1536, 1536), dtype=np.float32)
            full[np.triu_indices(1536)] = packed[f"layer{layer}"]
            moments[layer] = torch.from_numpy(full + np.triu(full, 1).T)
    with np.load(folder / "memit_en10.npz") as packed:
        targets = torch.from_numpy(packed["z"])
        deltas = {
            layer: torch.from_numpy(packed[f"layer{layer}.left"] @ packed[f"layer{layer}.right"])
            for layer in range(4, 9)
        }
    requests = [
        EditRequest(str(r["case_id"]), "en", r["prompt"], r["subject"], r["target_new"])
        for r in run["requests"]
    ]
    setup = Setup(EASYEDIT, contexts_from({"en": bare + prefixed}), Moments(moments))
    return Parity(smollm2, requests, setup, targets, deltas)


def _relative_errors(parity: Parity, found: Deltas) -> dict[int, float]:
    layout = parity.model.layout
    return {
        layer: float((found.weights[layout.weight(layer)].dense() - delta).norm() / delta.norm())
        for layer, delta in parity.deltas.items()
    }


_REFERENCE = replace(Memit.PARAMS["smollm2-135m"], moment_weight=15_000.0)


def test_given_the_target_values_of_the_reference_the_deltas_agree(parity: Parity) -> None:
    editor = Memit(_REFERENCE, parity.setup)
    found = editor.edit_to_targets(parity.model, parity.requests, parity.targets)
    errors = _relative_errors(parity, found)
    print("relative errors, given the target values of the reference:", errors)
    assert max(errors.values()) < 1e-3


def test_target_values_and_deltas_of_a_whole_edit_agree_with_the_reference(parity: Parity) -> None:
    params = _REFERENCE
    facts, refused = place_facts(
        parity.model, parity.requests, parity.setup.protocol, parity.setup.contexts
    )
    assert not refused
    values = optimize_target_values(parity.model, facts, 8, params.values)
    cosines = torch.cosine_similarity(values.targets, parity.targets)
    print("cosines:", cosines.tolist(), "steps:", values.steps)
    assert float(cosines.min()) >= 0.999
    editor = Memit(params, parity.setup)
    found = editor.edit_to_targets(parity.model, parity.requests, values.targets)
    errors = _relative_errors(parity, found)
    print("relative errors, own target values:", errors)
    assert max(errors.values()) < 0.02


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_keys_gradients_and_changes_of_ultraedit_agree_with_the_reference(
    smollm2: LoadedModel,
) -> None:
    import numpy as np

    folder = shared_path("reference", "easyedit_methods")
    run = json.loads((folder / "ultraedit_en5.json").read_text("utf-8"))
    with np.load(folder / "ultraedit_en5.npz") as packed:
        expected = {name: torch.from_numpy(packed[name]) for name in packed.files}
    requests = [
        EditRequest(str(r["id"]), "en", r["prompt"], r["subject"], r["target_new"])
        for r in run["requests"]
    ]
    params = UltraEditParams(gate=(11, 12), up=(20, 21), down=(22,), lr=run["hparams"]["lr"])
    paths = [smollm2.layout.weight(layer, part) for layer, part in params.weights()]
    assert sorted(path.removesuffix(".weight") for path in paths) == sorted(
        run["hparams"]["inner_params"]
    )
    setup = Setup(EASYEDIT, contexts_from({"en": ("{}",)}))
    deltas = UltraEdit(params, setup).edit(smollm2, requests)
    facts, _ = place_facts(smollm2, requests, EASYEDIT, setup.contexts)
    read = read_gradients(
        smollm2,
        [fact.sentences[0] for fact in facts],
        {
            path: smollm2.mlp_part(layer, part)
            for path, (layer, part) in zip(paths, params.weights(), strict=True)
        },
        params.edited_layers[0],
        tokens="all",
        tokens_per_batch=4096,
    )
    for path in paths:
        name, found = path.removesuffix(".weight"), read[path]
        order = sorted(range(len(facts)), key=lambda i: -found.counts[i])  # the reference's order
        keys, gradients = (
            torch.cat([part.split(found.counts)[i] for i in order])
            for part in (found.keys, found.gradients)
        )
        change = expected[f"{name}.shift.left"] @ expected[f"{name}.shift.right"]
        errors = (
            _error(keys, expected[f"{name}.keys"]),
            _error(gradients, expected[f"{name}.values_grad"]),
            _error(deltas.weights[path].dense(), change),
        )
        print(name, "keys, gradients, change:", errors)
        assert max(errors[:2]) < 1e-4
        assert errors[2] < 1e-3
