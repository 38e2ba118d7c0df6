"""Target values kept from cell to cell: those of a fact in the unedited model are found once.

MEMIT and AlphaEdit look for the same values; a mixed edit needs those of both languages; batches of
10 facts are parts of batches of 50. Which facts are optimised together changes a value by rounding
alone, so what was found is kept on disk, too: a sweep that is stopped and started again goes on
with the numbers that an undisturbed run has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError
from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.editors.solve import finite
from clm_data.eval.editors.values import Site, ValueParams, Values
from clm_data.eval.placement import Placement
from clm_data.files import atomic_file
from clm_data.records import digest

Find = Callable[[list[PlacedFact]], Values]
"""Optimises the values of some facts."""


class KeptValues:
    """Target values of one unedited model.

    Args:
        model: Whatever tells the model and its weights' type from others.
        folder: Where values are read from and written to, a file for each group of facts that were
            optimised together; None: they are kept in memory alone.

    Raises:
        InputFileError: A file there cannot be read.
    """

    def __init__(self, model: Any, folder: Path | None = None) -> None:
        self._model, self._folder = model, folder
        self._known: dict[str, tuple[Any, int]] = {}
        if folder is not None:
            for file in sorted(folder.glob("*.safetensors")):
                self._known |= _read(file)

    def values(
        self,
        facts: Sequence[PlacedFact],
        layer: int,
        params: ValueParams,
        sites: tuple[Site, ...],
        find: Find,
    ) -> Values:
        """The target values of facts; ``find`` is asked for those that are not known yet.

        Args:
            facts: As placed; their tokens and not their ids tell them apart.
            layer: Where the values stand.
            params: How they are optimised.
            sites: What is changed at the subject.
            find: Called once at most, with the unknown facts in their order, each once.

        Raises:
            EditError: What was found is not finite; nothing is kept then.
            InputFileError: The folder cannot be written.
        """
        import torch

        about = [self._model, layer, asdict(params), sites]
        keys = [digest([*about, _tokens(fact)]) for fact in facts]
        new = {key: fact for key, fact in zip(keys, facts, strict=True) if key not in self._known}
        if new:
            found = find(list(new.values()))
            finite(found.targets, "target values")
            self._add(dict(zip(new, zip(found.targets, found.steps, strict=True), strict=True)))
        known = [self._known[key] for key in keys]
        return Values(torch.stack([one for one, _ in known]), tuple(steps for _, steps in known))

    def _add(self, found: dict[str, tuple[Any, int]]) -> None:
        if self._folder is not None:
            import torch
            from safetensors.torch import save_file

            self._folder.mkdir(parents=True, exist_ok=True)
            out = self._folder / f"{digest(list(found))[:24]}.safetensors"
            targets = torch.stack([target for target, _ in found.values()])
            steps = {key: steps for key, (_, steps) in found.items()}
            with atomic_file(out, overwrite=True) as aside:
                save_file({"targets": targets}, aside, {"steps": json.dumps(steps)})
        self._known |= found


def _tokens(fact: PlacedFact) -> list[Any]:
    """All of a fact that its target value depends on."""
    return [*map(_placed, fact.rows), fact.kl.up_to_subject]


def _placed(row: Placement) -> list[Any]:
    return [row.ids, row.subject, row.reads, row.labels]


def _read(file: Path) -> dict[str, tuple[Any, int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            steps = json.loads((opened.metadata() or {})["steps"])
            targets = opened.get_tensor("targets")
        return dict(zip(steps, zip(targets, steps.values(), strict=True), strict=True))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputFileError(
            f"{file} holds no target values ({error}); delete it, and they are found again"
        ) from error
