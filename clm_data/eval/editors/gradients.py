"""What enters some projections at the tokens of a sentence, and the loss's gradient behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clm_data.eval.model.batching import batches_by_length, padded
from clm_data.eval.model.hooks import captured
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import run_layers
from clm_data.eval.placement import Placement

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True, eq=False)
class KeyGradients:
    """The keys and gradients of some sentences at one projection, W a = h.

    Attributes:
        keys: a, (tokens, m), at least float32.
        gradients: Gradient of a sentence's loss with respect to h, (tokens, d).
        counts: Number of tokens, by sentence.
    """

    keys: Tensor
    gradients: Tensor
    counts: tuple[int, ...]


@dataclass(frozen=True)
class _Row:
    """A sentence.

    Attributes:
        ids: Token ids.
        reads: Positions whose predictions are compared with `labels`.
        labels: Token ids.
        kept: Positions whose keys and gradients are wanted.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]
    labels: tuple[int, ...]
    kept: tuple[int, ...]


def read_gradients(
    loaded: LoadedModel,
    sentences: Sequence[Placement],
    modules: Mapping[str, Module],
    first_layer: int,
    *,
    tokens: Literal["answer", "all"],
    tokens_per_batch: int,
) -> dict[str, KeyGradients]:
    """Run sentences forward and backward once.

    The loss of a sentence is the mean negative log likelihood of its answer's tokens. Sentences do
    not affect each other.

    Args:
        loaded: The model; its weights get no gradient.
        sentences: Prompts with their answers.
        modules: The projections, by any name.
        first_layer: The lowest layer with one of them; layers below run forward only.
        tokens: Which tokens are read: those that predict a token of the answer, or all of the
            sentence up to its end.
        tokens_per_batch: Maximum tokens per forward pass.

    Returns:
        Keys and gradients by name, in the order of the sentences and of their tokens.
    """
    import torch

    rows = [_row(sentence, tokens) for sentence in sentences]
    found: dict[str, dict[int, tuple[Tensor, Tensor]]] = {name: {} for name in modules}
    for batch in batches_by_length([len(row.ids) for row in rows], tokens_per_batch):
        some = [rows[i] for i in batch]
        for name, parts in _run(loaded, some, modules, first_layer).items():
            found[name].update(zip(batch, parts, strict=True))
    order, counts = range(len(rows)), tuple(len(row.kept) for row in rows)
    return {
        name: KeyGradients(
            torch.cat([parts[i][0] for i in order]), torch.cat([parts[i][1] for i in order]), counts
        )
        for name, parts in found.items()
    }


def _row(sentence: Placement, tokens: Literal["answer", "all"]) -> _Row:
    if tokens == "answer":
        return _Row(sentence.ids, sentence.reads, sentence.labels, sentence.reads)
    ids = (*sentence.ids, sentence.labels[-1])
    return _Row(ids, sentence.reads, sentence.labels, tuple(range(len(ids))))


def _run(
    loaded: LoadedModel, rows: Sequence[_Row], modules: Mapping[str, Module], first_layer: int
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Keys and gradients by module and row, for rows that run together."""
    import torch

    ids = padded([row.ids for row in rows], loaded.device)
    with torch.no_grad():
        hidden = run_layers(loaded, ids, 0, first_layer)
    with ExitStack() as stack:
        records = {
            name: stack.enter_context(captured(module, graph=True))
            for name, module in modules.items()
        }
        hidden = hidden.detach().requires_grad_()
        out = run_layers(loaded, hidden, first_layer, loaded.depth)
    outputs = [record.output for record in records.values()]
    grads = torch.autograd.grad(_loss(loaded, rows, out), outputs)
    width = ids.shape[1]
    return {
        name: [
            (_at(record.input, i * width, row.kept), _at(grad, i * width, row.kept))
            for i, row in enumerate(rows)
        ]
        for (name, record), grad in zip(records.items(), grads, strict=True)
    }


def _loss(loaded: LoadedModel, rows: Sequence[_Row], out: Tensor) -> Tensor:
    """Sum over the rows of the mean negative log likelihood of the answer, a scalar."""
    import torch

    entries = [
        (i, read, label, 1 / len(row.labels))
        for i, row in enumerate(rows)
        for read, label in zip(row.reads, row.labels, strict=True)
    ]
    at, reads, labels, weight = (
        torch.tensor(column, device=out.device) for column in zip(*entries, strict=True)
    )
    logits = loaded.logits(out[at, reads])
    token_nll = torch.nn.functional.cross_entropy(
        logits, labels.to(logits.device), reduction="none"
    )
    return (token_nll * weight.to(token_nll)).sum()


def _at(states: Tensor, start: int, positions: tuple[int, ...]) -> Tensor:
    """States (rows, width, n) or (rows x width, n) of one row at some positions."""
    flat = states.flatten(0, -2)
    return at_least_float32(flat[[start + position for position in positions]])
