"""MEMIT written as plain loops, one fact at a time, as a baseline for `edit_speed.py`.

Target values come from Adam on one fact's seven sentences, with a forward pass of the whole model
per step and the loss taken from the last layer's output at every position. Keys come from full
forward passes for each layer, and the solve is m x m.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.editors.memit import MemitParams
from clm_data.eval.editors.values import ValueParams
from clm_data.eval.model.hooks import captured, restored
from clm_data.eval.model.loaded import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True)
class PlainEdit:
    """A MEMIT edit.

    Attributes:
        targets: Target values, (N, d).
        changes: Layer to change of the weight, (d, m).
        seconds: Seconds by phase.
    """

    targets: Tensor
    changes: dict[int, Tensor]
    seconds: dict[str, float]


def plain_memit(
    loaded: LoadedModel,
    facts: Sequence[PlacedFact],
    moments: dict[int, Tensor],
    params: MemitParams,
) -> PlainEdit:
    """Edit facts; the model's weights are restored.

    Args:
        loaded: A model whose weights are stored as (out, in).
        facts: The facts.
        moments: Layer to second moment, (m, m).
        params: Hyperparameters.
    """
    seconds = {"values": 0.0, "keys": 0.0, "solve": 0.0}
    top = params.layers[-1]
    start = time.perf_counter()
    targets = torch.stack([_target(loaded, fact, top, params.values) for fact in facts])
    seconds["values"] = time.perf_counter() - start
    changes: dict[int, Tensor] = {}
    paths = [loaded.layout.weight(layer) for layer in params.layers]
    with torch.no_grad(), restored(loaded, paths) as weights:
        for index, (layer, path) in enumerate(zip(params.layers, paths, strict=True)):
            start = time.perf_counter()
            keys, current = _keys(loaded, facts, layer), _current_values(loaded, facts, top)
            seconds["keys"] += time.perf_counter() - start
            start = time.perf_counter()
            residual = (targets.T - current) / (len(params.layers) - index)
            keys = keys.double()
            system = params.moment_weight * moments[layer].double() + keys @ keys.T
            right = torch.linalg.solve(system, keys)
            changes[layer] = (residual.double() @ right.T).float()
            weights[path] += changes[layer]
            seconds["solve"] += time.perf_counter() - start
    return PlainEdit(targets, changes, seconds)


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = [[*row, *[0] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _layer(loaded: LoadedModel, layer: int) -> torch.nn.Module:
    return loaded.model.get_submodule(f"{loaded.layout.layers}.{layer}")


class _ShiftedForward:
    """Forward passes with a change added at the subjects, after the layer `top`.

    Attributes:
        initial: (d,) the hidden state at the first subject before any change.
        change: (d,) what is added; requires gradient.
        last: (rows, tokens, d) the last layer's output.
    """

    def __init__(self, loaded: LoadedModel, subjects: Sequence[int], top: int) -> None:
        self._loaded, self._subjects, self._top = loaded, list(subjects), top
        self.change = torch.zeros(loaded.model.config.hidden_size, requires_grad=True)
        self.initial: Tensor | None = None
        self.last: Tensor | None = None

    def _shift(self, _module: object, _inputs: object, output: Tensor) -> Tensor:
        if self.initial is None:
            self.initial = output[0, self._subjects[0]].detach().clone()
        output = output.clone()
        output[torch.arange(len(self._subjects)), self._subjects] += self.change
        return output

    def _record(self, _module: object, _inputs: object, output: Tensor) -> None:
        self.last = output

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Hook the model."""
        loaded = self._loaded
        handles = [
            _layer(loaded, self._top).register_forward_hook(self._shift),
            _layer(loaded, loaded.depth - 1).register_forward_hook(self._record),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _target(loaded: LoadedModel, fact: PlacedFact, top: int, params: ValueParams) -> Tensor:
    """The target value of one fact, (d,)."""
    rows = (*fact.sentences, fact.kl_prompt)
    batch = _padded([row.ids for row in rows])
    labels = torch.full(batch["input_ids"][:-1].shape, -100)
    for i, row in enumerate(fact.sentences):
        labels[i, list(row.reads)] = torch.tensor(row.labels)
    mask = (labels != -100).float()
    forward = _ShiftedForward(loaded, [row.subject for row in rows], top)
    change = forward.change
    adam = torch.optim.Adam([change], lr=params.lr)
    baseline: Tensor | None = None
    with forward.hooked():
        for step in range(params.steps):
            adam.zero_grad()
            logits = loaded.model(**batch, use_cache=False).logits
            assert forward.last is not None
            assert forward.initial is not None
            kl_log_probs = logits[-1, fact.kl_prompt.subject].log_softmax(-1)
            baseline = kl_log_probs.detach().clone() if baseline is None else baseline
            log_probs = loaded.logits(forward.last[:-1]).log_softmax(-1)
            picked = log_probs.gather(2, labels.clamp(min=0)[..., None])[..., 0]
            nll = -(picked * mask).sum(1) / mask.sum(1)
            kl = params.kl_factor * (kl_log_probs.exp() * (kl_log_probs - baseline)).sum()
            decay = params.weight_decay * change.norm() / forward.initial.norm() ** 2
            loss = nll.mean() + kl + decay
            if loss < params.stop_at or step == params.steps - 1:
                break
            loss.backward()
            adam.step()
            with torch.no_grad():
                radius = params.clamp * forward.initial.norm()
                if change.norm() > radius:
                    change *= radius / change.norm()
    return (forward.initial + change).detach()


def _keys(loaded: LoadedModel, facts: Sequence[PlacedFact], layer: int) -> Tensor:
    """(m, N), from full forward passes of up to 128 sentences, as in the reference."""
    prompts = [prompt for fact in facts for prompt in fact.prompts]
    found = []
    for start in range(0, len(prompts), 128):
        part = prompts[start : start + 128]
        with captured(loaded.mlp_out(layer)) as record:
            loaded.model(**_padded([prompt.ids for prompt in part]), use_cache=False)
        found.append(record.input[torch.arange(len(part)), [prompt.subject for prompt in part]])
    grouped = torch.cat(found).view(len(facts), -1, found[0].shape[-1])
    return (grouped[:, 0] / 2 + grouped[:, 1:].mean(1) / 2).T


def _current_values(loaded: LoadedModel, facts: Sequence[PlacedFact], top: int) -> Tensor:
    """(d, N), the output of the top layer at the subjects of the bare prompts."""
    prompts = [fact.prompts[0] for fact in facts]
    with captured(_layer(loaded, top)) as record:
        loaded.model(**_padded([prompt.ids for prompt in prompts]), use_cache=False)
    return record.output[torch.arange(len(prompts)), [prompt.subject for prompt in prompts]].T
