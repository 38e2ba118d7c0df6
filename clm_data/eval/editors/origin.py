"""Which model a weight change, a second moment or a target value was computed from."""

from __future__ import annotations

import hashlib

from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel

_SAMPLES = 1024
"""Elements of each weight that are hashed."""


def model_id(loaded: LoadedModel) -> str:
    """Identifies a model: a hash of its type and of a sample of every weight that edits keep.

    Reading whole weights, as :meth:`LoadedModel.fingerprint` does, would take longer than some
    edits. The MLP's output projections are left out, so a model is the same while they are edited;
    edits of other weights (UltraEdit, LoRA) are recognized before they are applied.
    Weights of another dtype are another model.
    """
    import torch

    state = hashlib.sha256(str(loaded.model.config.model_type).encode())
    edited = {loaded.layout.weight(layer) for layer in range(loaded.depth)}
    for name, weight in sorted(loaded.model.named_parameters()):
        if name in edited:
            continue
        state.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, len(flat) // _SAMPLES)].contiguous().cpu()
        state.update(memoryview(sample.view(torch.uint8).numpy()))
    return state.hexdigest()


def check_origin(what: str, name: str, origin: str, loaded: LoadedModel) -> None:
    """Check that something was computed from this model.

    Args:
        what: What it is, such as `weight changes`.
        name: Name of the model that it was computed from; may be empty.
        origin: :func:`model_id` of that model; empty if unknown, then the names are compared.
        loaded: The model that it is used with.

    Raises:
        EditError: It belongs to another model; the message names both.
    """
    if origin:
        here = model_id(loaded)
        if origin == here:
            return
        ids = f"{name} ({origin[:8]})", f"{loaded.name} ({here[:8]})"
    elif not name or name == loaded.name:
        return
    else:
        ids = name, loaded.name
    raise EditError(
        f"{what} of the model {ids[0]} cannot be used with {ids[1]}: the weights differ; compute "
        f"them with {loaded.name} in the same dtype"
    )
