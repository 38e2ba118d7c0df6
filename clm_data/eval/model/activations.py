"""How much memory a token takes while a model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clm_data.eval.model.loaded import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor

ROW = 16
"""Tokens of a row, about those of a fact's sentence."""


def sample_states(loaded: LoadedModel, tokens: int) -> Tensor:
    """Random states in rows of `ROW` tokens, (rows, ROW, d), as embeddings would give."""
    import torch

    embeddings = loaded.model.get_input_embeddings().weight
    drawn = torch.Generator().manual_seed(0)
    shape = (max(1, tokens // ROW), ROW, embeddings.shape[1])
    return torch.randn(shape, generator=drawn).to(embeddings.device, embeddings.dtype)


def run_body(loaded: LoadedModel, states: Tensor) -> Tensor:
    """Run all layers on states in the place of embeddings."""
    out: Tensor = loaded.model.base_model(inputs_embeds=states, use_cache=False)[0]
    return out


def kept_bytes(loaded: LoadedModel, tokens: int = 4 * ROW) -> float:
    """Bytes per token that a forward pass through all layers keeps for the backward pass.

    They are counted in a pass over a few tokens. Weights do not count.
    """
    import torch

    weights = {one.untyped_storage().data_ptr() for one in loaded.model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    states = sample_states(loaded, tokens).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        out = run_body(loaded, states)
    del out
    return sum(kept.values()) / tokens
