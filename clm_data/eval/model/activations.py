"""How much memory a token takes while a model runs, and how many tokens fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clm_data.eval.memory import free_memory
from clm_data.eval.model.loaded import LoadedModel
from clm_data.log import Log, silent

if TYPE_CHECKING:
    from torch import Tensor

ROW = 16
"""Tokens of a row, about those of a fact's sentence."""
DEFAULT_TOKENS = 4096
"""Tokens per batch on a CPU, where larger batches are not faster."""
_FEWEST, _MOST = 256, 65_536
_SHARE = 0.5
"""Share of the free memory for a batch; the rest is for second moments and solves."""
_LOGITS = 3 * 4 / 4
"""Bytes of logits per token and vocabulary entry: three float32 arrays, at one token in four."""


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


def batch_tokens(free: int | None, kept: float, vocabulary: int) -> int:
    """Tokens per batch that fit into memory: the largest power of two.

    Args:
        free: Bytes that are free; None if that is unknown, which gives the number for a CPU.
        kept: Bytes per token of :func:`kept_bytes`.
        vocabulary: Number of tokens of the vocabulary.
    """
    if free is None:
        return DEFAULT_TOKENS
    fitting = _SHARE * free / (kept + _LOGITS * vocabulary)
    return min(_MOST, max(_FEWEST, 1 << max(0, int(fitting)).bit_length() >> 1))


def choose_batch_tokens(loaded: LoadedModel, log: Log = silent) -> int:
    """Tokens per batch for a loaded model: by the free memory of its GPUs, or the CPU's number.

    Args:
        loaded: The model; several GPUs are counted as the one with the least free memory.
        log: Called with the choice.
    """
    devices = {str(one.device) for one in loaded.model.parameters()}
    if "cpu" in devices:
        return DEFAULT_TOKENS
    known = [free for one in sorted(devices) if (free := free_memory(one)) is not None]
    free, kept = min(known, default=None), kept_bytes(loaded)
    chosen = batch_tokens(free, kept, loaded.model.get_input_embeddings().weight.shape[0])
    if free is not None:
        log(
            f"{chosen} tokens per batch: {free / 1e9:.1f} GB are free, and a token keeps "
            f"{kept / 1e6:.2f} MB; --tokens-per-batch fixes the number"
        )
    return chosen
