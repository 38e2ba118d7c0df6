"""What the driver sends back, as an edit of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_data.eval.editors.base import EditorParams
from clm_data.eval.editors.codebook import Codebook, Entries, no_entries
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import Edit
from clm_data.eval.editors.grace import GraceParams
from clm_data.eval.editors.side_memory import Shard, SideMemory, SideScope
from clm_data.eval.editors.solve import check_finite
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor

_CLOSE = 1e-3
"""Largest relative difference of a codebook's radii: EasyEdit's distances are rounded otherwise."""


def edit_of(
    answer: Mapping[str, Any],
    file: Path,
    about: Mapping[str, Any],
    model: LoadedModel,
    params: EditorParams,
    past: Edit | None,
    scope: SideScope | None = None,
) -> Edit:
    """The edit in a file of the driver.

    Args:
        answer: The driver's answer, which says what the file has.
        file: The file.
        about: The fields that all edits have.
        model: The model.
        params: Our hyperparameters of the method.
        past: Earlier edits, which this one is on top of.
        scope: How WISE's memories are chosen; None for other methods.

    Raises:
        EditError: The file cannot be read, numbers are not finite, or a codebook is not what its
            facts give.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise EditError(
            f"{file}, which EasyEdit's driver wrote, cannot be read: {error}"
        ) from error
    tensors = {name: check_finite(tensor, name) for name, tensor in found.items()}
    if answer["kind"] == "codebook":
        assert isinstance(params, GraceParams)
        known = past.entries if isinstance(past, Codebook) else None
        return _codebook(tensors, tuple(answer["labels"]), about, params, known)
    if answer["kind"] == "side-memory":
        assert scope is not None
        shard = Shard(0, tensors["change"], answer["threshold"], len(about["edited"]))
        return SideMemory(scope=scope, shards=(shard,), **about)
    if answer["kind"] == "factors":
        weights = {
            name: WeightDelta(tensors[f"left:{name}"], tensors[f"right:{name}"])
            for name in sorted(key.removeprefix("left:") for key in tensors if key[:4] == "left")
        }
        return Deltas(weights=weights, by_fact=False, **about)
    turned = model.layout.transposed
    return Deltas(
        weights={
            name: WeightDelta(change.T.contiguous() if turned else change)
            for name, change in sorted(tensors.items())
        },
        **about,
    )


def _codebook(
    tensors: Mapping[str, Tensor],
    labels: tuple[str, ...],
    about: Mapping[str, Any],
    params: GraceParams,
    known: Entries | None,
) -> Codebook:
    """GRACE's facts; inserted one by one, they leave the entries that EasyEdit has."""
    import torch

    keys, values = tensors["keys"], tensors["entries:values"]
    empty = no_entries(keys.shape[1], values.shape[1])
    start = values.new_zeros(len(keys), values.shape[1])
    after, of_fact = (known or empty).insert(keys, start, labels, params.scope)
    for name, ours in (("keys", after.keys), ("radii", after.radii)):
        theirs = tensors[f"entries:{name}"]
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=_CLOSE, atol=_CLOSE):
            raise EditError(
                f"EasyEdit's grace: the {name} of its codebook of {len(theirs)} entries are not "
                "those that its facts give by its own rule; this version of EasyEdit is not known"
            )
    entries, _ = empty.insert(keys, values[of_fact], labels, params.scope)
    return Codebook(
        scope=params.scope,
        keys=keys,
        values=values[of_fact],
        labels=labels,
        entries=entries,
        **about,
    )
