"""A model in which one layer answers differently for the rows that an edit covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from clm_data.eval.model.batching import batches_by_length, padded
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.partial_forward import run_layers
from clm_data.records import Language

if TYPE_CHECKING:
    from torch import Tensor

OUT_OF_SCOPE = -1
"""The route of a row that the edit does not cover."""


class Router(Protocol):
    """Decides for which rows an MLP output projection answers differently, and how."""

    def route(self, inputs: Tensor, outputs: Tensor, prompt: Tensor) -> Tensor:
        """The route of each row, (rows,); `OUT_OF_SCOPE` leaves it as it is.

        Args:
            inputs: What enters the projection, (rows, tokens, m).
            outputs: What leaves it, (rows, tokens, d).
            prompt: (rows, tokens), true at the tokens of the prompts.
        """
        ...

    def answer(
        self, inputs: Tensor, outputs: Tensor, prompt: Tensor | None, routes: Tensor
    ) -> Tensor:
        """What leaves the projection instead, (rows, tokens, d), for rows that are all in scope.

        Args:
            inputs: What enters the projection, (rows, tokens, m).
            outputs: What leaves the unedited projection, (rows, tokens, d).
            prompt: As in `route`; None while an answer is decoded.
            routes: (rows,).
        """
        ...


@dataclass(frozen=True)
class RoutedModel:
    """An `EditedModel` whose MLP output projection of one layer is routed.

    Attributes:
        base: The network, whose weights are unchanged.
        layer: The routed layer.
        router: Decides and answers.
    """

    base: LoadedModel
    layer: int
    router: Router

    def rewrite(self, prompt: str, lang: Language) -> str:
        """The prompt as it is."""
        return prompt

    @contextmanager
    def routed(self, prompt: Tensor) -> Iterator[None]:
        """Route one batch of rows; see `EditedModel.routed`."""
        with _hooked(self, prompt):
            yield

    def routes(self, rows: Sequence[Sequence[int]], *, tokens_per_batch: int = 4096) -> list[int]:
        """The routes of prompts, given as token ids."""
        import torch

        found = [OUT_OF_SCOPE] * len(rows)
        for batch in batches_by_length([len(row) for row in rows], tokens_per_batch):
            ids = padded([rows[i] for i in batch], self.base.device)
            lengths = torch.tensor([len(rows[i]) for i in batch], device=ids.device)
            prompt = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
            with torch.no_grad(), _hooked(self, prompt) as held:
                run_layers(self.base, ids, 0, self.layer + 1)
            for index, route in zip(batch, held.routes.tolist(), strict=True):
                found[index] = route
        return found


class _Held:
    """The decision of a batch; unset before its first forward pass."""

    routes: Tensor


@contextmanager
def _hooked(model: RoutedModel, prompt: Tensor) -> Iterator[_Held]:
    """Replace the layer's output for rows in scope; the first forward pass decides which."""
    held = _Held()

    def hook(_module: Any, args: tuple[Any, ...], outputs: Tensor) -> Tensor:
        inputs, mask = args[0], None
        if not hasattr(held, "routes"):
            mask = prompt.to(inputs.device)
            held.routes = model.router.route(inputs, outputs, mask)
        rows = (held.routes != OUT_OF_SCOPE).nonzero().flatten()
        if not len(rows):
            return outputs
        mask = None if mask is None else mask[rows]
        new = model.router.answer(inputs[rows], outputs[rows], mask, held.routes[rows])
        return outputs.index_copy(0, rows, new.to(outputs))

    handle = model.base.mlp_out(model.layer).register_forward_hook(hook)
    try:
        yield held
    finally:
        handle.remove()


def last_tokens(prompt: Tensor) -> Tensor:
    """Index of the last token of each row's prompt, (rows,); padding may be on either side."""
    import torch

    places = torch.arange(prompt.shape[1], device=prompt.device)
    return (prompt * places).argmax(dim=1)
