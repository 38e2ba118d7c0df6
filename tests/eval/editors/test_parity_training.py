"""Parity of trained changes with runs of the reference implementation, EasyEdit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.paths import shared_path

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import BARE_CONTEXTS

from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.ft import FtM
from clm_data.eval.editors.lora import Lora, LoraParams
from clm_data.eval.editors.training import Sentence, TrainingParams, training_sentences
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EASYEDIT

pytestmark = pytest.mark.slow
SETUP = Setup(EASYEDIT, BARE_CONTEXTS)


@dataclass(frozen=True)
class Reference:
    """A run of EasyEdit on five facts, one after another: its settings, losses and tensors."""

    run: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def losses(self) -> list[list[float]]:
        """Losses by fact and step."""
        return [call["losses"][0] for call in self.run["calls"]]

    def factors(self, when: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A and B by map at some point of the run."""
        paths = [name.split("/")[1].rpartition(".")[0] for name in self.tensors]
        return {
            path: (
                self.tensors[f"{when}/{path}.lora_A"].clone(),
                self.tensors[f"{when}/{path}.lora_B"].clone(),
            )
            for path in dict.fromkeys(paths)
        }

    def sentences(self, model: LoadedModel, params: TrainingParams) -> list[Sentence]:
        """Its facts, as they are trained."""
        requests = [
            EditRequest(str(r["id"]), "en", r["prompt"], r["subject"], r["target_new"])
            for r in self.run["requests"]
        ]
        facts, refused = place_facts(model, requests, EASYEDIT, BARE_CONTEXTS)
        assert not refused
        return training_sentences(model, facts, EASYEDIT, params)[1]


def _reference(name: str) -> Reference:
    import numpy as np

    folder = shared_path("reference", "easyedit_methods")
    run = json.loads((folder / f"{name}.json").read_text("utf-8"))
    with np.load(folder / f"{name}.npz") as packed:
        return Reference(run, {key: torch.from_numpy(packed[key]) for key in packed.files})


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_the_changes_and_losses_of_ft_m_agree_with_the_reference(smollm2: LoadedModel) -> None:
    reference, params = _reference("ftm_en5"), FtM.PARAMS["smollm2-135m"]
    settings = reference.run["hparams"]
    assert params.edited_layers == tuple(settings["layers"])
    assert (params.epochs, params.lr) == (settings["num_steps"], settings["lr"])
    sentences = reference.sentences(smollm2, params)
    path = smollm2.layout.weight(params.layer)
    for count, limit in ((1, 1e-3), (5, 1e-2)):
        with restored(smollm2, [path]) as weights:
            change, run = FtM(params, SETUP).train(smollm2, sentences[:count], weights[path])
        error = _error(change, reference.tensors[f"after_fact{count}"])
        losses = torch.tensor(run.losses)
        expected = torch.tensor([loss for losses in reference.losses[:count] for loss in losses])
        worst = float(((losses - expected).abs() / expected).max())
        print(f"FT-M after {count}: change {error:.1e}, losses {worst:.1e}, steps {run.steps}")
        assert error < limit
        assert worst < limit


def test_the_change_of_lora_after_a_fact_agrees_with_the_reference(smollm2: LoadedModel) -> None:
    reference = _reference("lora_en5")
    settings = reference.run["hparams"]
    # Where the reference differs from our defaults: no end of the answer, no stop.
    params = LoraParams(
        epochs=settings["num_steps"],
        lr=settings["lr"],
        rank=settings["rank"],
        alpha=settings["lora_alpha"],
        dropout=settings["lora_dropout"],
        targets=tuple(settings["target_modules"]),
        batch_size=1,
        order="depth-first",
        append_eos=False,
        stop_at=0.0,
    )
    factors = reference.factors("init")
    expected = reference.factors("after_fact1")
    sentences = reference.sentences(smollm2, params)
    run = Lora(params, SETUP).train(smollm2, sentences[:1], factors)
    found, wanted = (
        torch.cat([params.scale * (b @ a).flatten() for a, b in one.values()])
        for one in (factors, {path: expected[path] for path in factors})
    )
    error = _error(found, wanted)
    losses = torch.tensor([run.losses, reference.losses[0]])
    worst = float((losses[0] - losses[1]).abs().max())
    print(f"LoRA after 1: change {error:.1e}, losses {worst:.1e}, {len(factors)} maps")
    assert len(factors) == 2 * smollm2.depth
    assert error < 1e-2
    assert worst < 1e-2
