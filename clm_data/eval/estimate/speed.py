"""How fast this machine runs a model: a short measurement with random weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clm_data.eval.model.activations import ROW, kept_bytes, run_body, sample_states
from clm_data.eval.model.loaded import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor

_LAYERS = 2
"""Layers that are measured, the lowest ones."""
_FEW = 4 * ROW
"""Tokens of the small measurement."""
_SECONDS = 0.2
"""About how long the pass of the large measurement takes."""
_MOST = 2048
"""Maximum tokens of the large measurement."""
_ROUNDS = 5
_VOCABULARY = 4096
"""Rows of the head that are measured."""
_SIDE = 384
"""Maximum side of the matrices that are measured."""


@dataclass(frozen=True)
class Line:
    """Seconds of one layer: a fixed time per pass, and a time per token."""

    fixed: float
    per_token: float


@dataclass(frozen=True)
class Speed:
    """Measured times, as on a machine that does nothing else.

    Attributes:
        forward: A forward pass.
        both: A forward and a backward pass.
        read: Seconds to predict one token from a hidden state.
        gram: Seconds of k k^T per token, float32, k of the size that enters an edited projection.
        cholesky: Seconds to factorize a second moment, float64.
        eigh: Seconds of the eigenvectors of a second moment, float64.
        multiply: Seconds of a second moment times a vector, float64.
        kept: Bytes per token and layer that a forward pass keeps for the backward pass.
        slowdown: How many times longer the measurement took because the machine did something else.
    """

    forward: Line
    both: Line
    read: float
    gram: float
    cholesky: float
    eigh: float
    multiply: float
    kept: float
    slowdown: float

    def seconds(
        self, tokens: int, layers: int, *, passes: int = 1, reads: int = 0, backward: bool = False
    ) -> float:
        """Seconds of some passes.

        Args:
            tokens: Tokens of all passes together.
            layers: Number of layers that run.
            passes: Number of passes.
            reads: Tokens predicted by all passes together.
            backward: Whether the passes run backward, too.
        """
        line = self.both if backward else self.forward
        head = reads * self.read * (3 if backward else 1)
        return layers * (passes * line.fixed + tokens * line.per_token) + head


def measure_speed(model: LoadedModel, device: str, inner: int) -> Speed:
    """Measure a model's two lowest layers, with constant weights, on a device.

    Args:
        model: The model without weights, on the device `meta`; it is left unchanged.
        device: Where to measure.
        inner: m, the size of what enters an edited projection.

    Raises:
        Exception: Whatever the model raises if its layers cannot run alone.
    """
    import torch

    clock = _Clock(device)
    with torch.no_grad():
        part = _lowest_layers(model, device)
    few, few_both = _passes(part, _FEW, clock)
    many_tokens = min(_MOST, max(2 * _FEW, int(_SECONDS / few_both * _FEW) // ROW * ROW))
    many, many_both = _passes(part, many_tokens, clock)
    width = part.model.get_input_embeddings().weight.shape[1]
    vocabulary = part.model.get_input_embeddings().weight.shape[0]
    kept = kept_bytes(part) / part.depth
    del part
    states = torch.ones(_FEW, width, device=device, dtype=model.model.dtype)
    head = torch.ones(min(_VOCABULARY, vocabulary), width, device=device, dtype=model.model.dtype)
    read = clock.seconds(lambda: (states @ head.T).float().logsumexp(1))
    side = min(inner, _SIDE)
    ratio = inner / side
    keys = torch.rand(4 * side, side, device=device)
    gram = clock.seconds(lambda: keys.T @ keys)
    moment = keys.double().T @ keys.double()
    cholesky = clock.seconds(lambda: torch.linalg.cholesky_ex(moment)[0])
    eigh = clock.seconds(lambda: torch.linalg.eigh(moment)[0])
    multiply = clock.seconds(lambda: moment @ moment)
    return Speed(
        forward=_line(few, many, many_tokens),
        both=_line(few_both, many_both, many_tokens),
        read=read / _FEW * vocabulary / len(head),
        gram=gram / len(keys) * ratio**2,
        cholesky=cholesky * ratio**3,
        eigh=eigh * ratio**3,
        multiply=multiply / side * ratio**2,
        kept=kept,
        slowdown=clock.slowdown,
    )


def _lowest_layers(model: LoadedModel, device: str) -> LoadedModel:
    """A copy with the lowest layers only, and constant weights.

    The memory of the embeddings and the head is never written, so that on a CPU they take none.
    """
    part = copy.deepcopy(model.model)
    layers = part.get_submodule(model.layout.layers)
    del layers[_LAYERS:]
    part.config.num_hidden_layers = len(layers)
    part.to_empty(device=device)
    for tensor in layers.parameters():
        tensor.fill_(1 / max(tensor.shape[-1], 1))
    for tensor in part.buffers():
        tensor.fill_(1)
    for tensor in part.get_submodule(model.layout.norm).parameters():
        tensor.fill_(1)
    return replace(model, model=part)


def _passes(part: LoadedModel, tokens: int, clock: _Clock) -> tuple[float, float]:
    """Seconds per layer of a forward pass, and of a forward and a backward pass."""
    import torch

    states = sample_states(part, tokens)

    def both() -> Tensor:
        start = states.detach().requires_grad_()
        return torch.autograd.grad(run_body(part, start).sum(), start)[0]

    with torch.no_grad():
        forward = clock.seconds(lambda: run_body(part, states))
    return forward / part.depth, clock.seconds(both) / part.depth


def _line(few: float, many: float, many_tokens: int) -> Line:
    """The line through the two measurements; neither its start nor its slope is negative."""
    slope = max(0.0, (many - few) / (many_tokens - _FEW))
    return Line(max(0.0, few - slope * _FEW), slope)


class _Clock:
    """Measures work on a device.

    On a CPU it is processor time by thread: what the work takes where nothing else runs.

    Args:
        device: The device.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._gpu = device.startswith("cuda")
        self._threads = torch.get_num_threads()
        self._wall = self._own = 0.0

    def seconds(self, work: Callable[[], object]) -> float:
        """The shortest time of some rounds after a first one."""
        work()
        return min(self._once(work) for _ in range(_ROUNDS))

    def _once(self, work: Callable[[], object]) -> float:
        self._wait()
        wall, own = time.perf_counter(), time.process_time()
        work()
        self._wait()
        wall, own = time.perf_counter() - wall, time.process_time() - own
        taken = wall if self._gpu else own / self._threads
        self._wall, self._own = self._wall + wall, self._own + taken
        return taken

    def _wait(self) -> None:
        import torch

        if self._gpu:
            torch.cuda.synchronize()

    @property
    def slowdown(self) -> float:
        """Passed over measured seconds so far, at least 1."""
        return max(1.0, self._wall / self._own) if self._own else 1.0
