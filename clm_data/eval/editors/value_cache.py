"""A cache of target values, so that a sweep optimizes each fact in the unedited model only once.

MEMIT and AlphaEdit optimize the same values, a mixed edit needs those of both languages, and
batches of 10 facts are parts of batches of 50. Facts that are optimized together affect each
other's values by rounding only; values are saved, so that an interrupted sweep resumes with the
numbers of an uninterrupted one. See `docs/decisions/008-target-values-are-kept.md`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_data.errors import InputFileError
from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.editors.origin import check_origin, model_id
from clm_data.eval.editors.solve import check_finite
from clm_data.eval.editors.tensor_files import save_safetensors
from clm_data.eval.editors.values import Site, TargetValues, ValueParams
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import Placement
from clm_data.records import digest

if TYPE_CHECKING:
    from torch import Tensor

Optimize = Callable[[list[PlacedFact]], TargetValues]
"""Optimizes the target values of some facts."""


class TargetValueCache:
    """Target values in one unedited model.

    Args:
        model: Identifies the model, its weights and their dtype; anything that JSON can hold.
        folder: Where values are read from and written to, one file per group of facts that were
            optimized together; None to cache in memory only.

    Raises:
        InputFileError: A file in the folder cannot be read.
    """

    def __init__(self, model: Any, folder: Path | None = None) -> None:
        self._model, self._folder = model, folder
        self._known: dict[str, tuple[Tensor, int]] = {}
        self._origin: tuple[str, str] | None = None
        if folder is not None:
            for file in sorted(folder.glob("*.safetensors")):
                self._known |= _read(file)

    def check_model(self, model: LoadedModel) -> None:
        """Check that the cache is used with one unedited model only.

        Raises:
            EditError: It was used with another model before; the message names both.
        """
        if self._origin is None:
            self._origin = (model.name, model_id(model))
        check_origin("target values", *self._origin, model)

    def get_or_optimize(
        self,
        facts: Sequence[PlacedFact],
        layer: int,
        params: ValueParams,
        sites: tuple[Site, ...],
        optimize: Optimize,
    ) -> TargetValues:
        """Return the target values of facts, optimizing those that are not cached yet.

        Args:
            facts: The facts. The cache key is their tokens, not their ids.
            layer: The optimized layer.
            params: Hyperparameters of the optimization.
            sites: What is changed at the subject.
            optimize: Called at most once, with the missing facts in their order, each once.

        Raises:
            EditError: A value contains NaN or infinity; nothing is cached then.
            InputFileError: The folder cannot be written to.
        """
        import torch

        shared = [self._model, layer, asdict(params), sites]
        keys = [digest([*shared, _tokens(fact)]) for fact in facts]
        missing = {k: fact for k, fact in zip(keys, facts, strict=True) if k not in self._known}
        if missing:
            new = optimize(list(missing.values()))
            check_finite(new.targets, "target values")
            self._add(dict(zip(missing, zip(new.targets, new.steps, strict=True), strict=True)))
        targets, steps = zip(*(self._known[key] for key in keys), strict=True)
        return TargetValues(torch.stack(targets), tuple(steps))

    def _add(self, new: dict[str, tuple[Tensor, int]]) -> None:
        if self._folder is not None:
            import torch

            self._folder.mkdir(parents=True, exist_ok=True)
            out = self._folder / f"{digest(list(new))[:24]}.safetensors"
            targets = torch.stack([target for target, _ in new.values()])
            steps = {key: steps for key, (_, steps) in new.items()}
            save_safetensors({"targets": targets}, out, {"steps": json.dumps(steps)})
        self._known |= new


def _tokens(fact: PlacedFact) -> list[Any]:
    """Everything about a fact that its target value depends on."""
    return [*map(_placement, fact.sentences), fact.kl_prompt.up_to_subject]


def _placement(row: Placement) -> list[Any]:
    return [row.ids, row.subject, row.reads, row.labels]


def _read(file: Path) -> dict[str, tuple[Tensor, int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            steps = json.loads((opened.metadata() or {})["steps"])
            targets = opened.get_tensor("targets")
        return dict(zip(steps, zip(targets, steps.values(), strict=True), strict=True))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputFileError(
            f"{file} contains no target values ({error}); delete it to optimize them again"
        ) from error
