"""MEMIT in the plain way, one fact at a time, for comparison: simple loops over whole forwards.

Written from the formulas: target values by Adam on one fact's seven sentences, each step a forward
of the whole model with its logits, and the loss from the last layer's output through norm and head
at every position; keys by whole forwards for each layer; an m x m solve.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.editors.memit import MemitParams
from clm_data.eval.model.hooks import captured
from clm_data.eval.model.loaded import LoadedModel


@dataclass(frozen=True)
class PlainEdit:
    """Target values (N, d), the changes by layer, and seconds by phase."""

    targets: torch.Tensor
    changes: dict[int, torch.Tensor]
    seconds: dict[str, float]


def plain_memit(
    loaded: LoadedModel,
    facts: Sequence[PlacedFact],
    moments: dict[int, torch.Tensor],
    params: MemitParams,
) -> PlainEdit:
    """Edit a model with unchanged protocol; its weights are restored."""
    seconds = {"values": 0.0, "keys": 0.0, "solve": 0.0}
    top = params.layers[-1]
    began = time.perf_counter()
    targets = torch.stack([_target(loaded, fact, top, params) for fact in facts])
    seconds["values"] = time.perf_counter() - began
    weights = {layer: loaded.mlp_out(layer).weight for layer in params.layers}
    originals = {layer: weight.detach().clone() for layer, weight in weights.items()}
    changes: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for index, layer in enumerate(params.layers):
            began = time.perf_counter()
            keys, now = _keys(loaded, facts, layer), _now(loaded, facts, top)
            seconds["keys"] += time.perf_counter() - began
            began = time.perf_counter()
            missing = (targets.T - now) / (len(params.layers) - index)
            system = (
                params.moment_weight * moments[layer].double() + keys.double() @ keys.double().T
            )
            right = torch.linalg.solve(system, keys.double())
            changes[layer] = (missing.double() @ right.T).float()
            weights[layer] += changes[layer]
            seconds["solve"] += time.perf_counter() - began
        for layer, weight in weights.items():
            weight.copy_(originals[layer])
    return PlainEdit(targets, changes, seconds)


def _batch(rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = [[*row, *[0] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _block(loaded: LoadedModel, layer: int) -> Any:
    return loaded.model.get_submodule(f"{loaded.layout.layers}.{layer}")


def _target(loaded: LoadedModel, fact: PlacedFact, top: int, params: MemitParams) -> torch.Tensor:
    values = params.values
    batch = _batch([*(row.ids for row in fact.rows), fact.kl.ids])
    subjects = torch.tensor([*(row.subject for row in fact.rows), fact.kl.subject])
    every = torch.arange(len(subjects))
    goal = torch.full(batch["input_ids"][:-1].shape, -100)
    for i, row in enumerate(fact.rows):
        goal[i, list(row.reads)] = torch.tensor(row.labels)
    change = torch.zeros(loaded.model.config.hidden_size, requires_grad=True)
    first: torch.Tensor | None = None
    seen: dict[str, torch.Tensor] = {}

    def edit(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        nonlocal first
        if first is None:
            first = output[0, subjects[0]].detach().clone()
        output = output.clone()
        output[every, subjects] += change
        return output

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        seen["last"] = output

    handles = [
        _block(loaded, top).register_forward_hook(edit),
        _block(loaded, loaded.depth - 1).register_forward_hook(keep),
    ]
    adam = torch.optim.Adam([change], lr=values.lr)
    before: torch.Tensor | None = None
    try:
        for step in range(values.steps):
            adam.zero_grad()
            logits = loaded.model(**batch, use_cache=False).logits
            now = logits[-1, subjects[-1]].log_softmax(-1)
            before = now.detach().clone() if before is None else before
            probs = loaded.logits(seen["last"][:-1]).log_softmax(-1)
            picked = probs.gather(2, goal.clamp(min=0)[..., None])[..., 0]
            mask = (goal != -100).float()
            nll = -(picked * mask).sum(1) / mask.sum(1)
            kl = values.kl_factor * (now.exp() * (now - before)).sum()
            assert first is not None
            decay = values.weight_decay * change.norm() / first.norm() ** 2
            loss = nll.mean() + kl + decay
            if loss < values.stop_at or step == values.steps - 1:
                break
            loss.backward()
            adam.step()
            with torch.no_grad():
                radius = values.clamp * first.norm()
                if change.norm() > radius:
                    change *= radius / change.norm()
    finally:
        for handle in handles:
            handle.remove()
    assert first is not None
    return (first + change).detach()


def _keys(loaded: LoadedModel, facts: Sequence[PlacedFact], layer: int) -> torch.Tensor:
    """(m, N), all contexts in whole forwards of up to 128 sentences, as the reference does."""
    prompts = [prompt for fact in facts for prompt in fact.prompts]
    found = []
    for begin in range(0, len(prompts), 128):
        part = prompts[begin : begin + 128]
        with captured(loaded.mlp_out(layer)) as seen:
            loaded.model(**_batch([prompt.ids for prompt in part]), use_cache=False)
        found.append(seen.input[torch.arange(len(part)), [prompt.subject for prompt in part]])
    grouped = torch.cat(found).view(len(facts), -1, found[0].shape[-1])
    return (grouped[:, 0] / 2 + grouped[:, 1:].mean(1) / 2).T


def _now(loaded: LoadedModel, facts: Sequence[PlacedFact], top: int) -> torch.Tensor:
    """(d, N): what leaves the top layer at the subjects of the bare prompts."""
    prompts = [fact.prompts[0] for fact in facts]
    with captured(_block(loaded, top)) as seen:
        loaded.model(**_batch([prompt.ids for prompt in prompts]), use_cache=False)
    return seen.output[torch.arange(len(prompts)), [prompt.subject for prompt in prompts]].T
