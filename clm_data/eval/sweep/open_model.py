"""Opening the models of a recipe; the tiny one is trained first where the cache has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clm_data.eval.errors import edit_errors
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import load_model
from clm_data.eval.model.tiny import TinyConfig, tiny_model
from clm_data.eval.recipe import ModelSpec
from clm_data.log import Log, silent
from clm_data.records import Record

_EVERY = 40
"""Steps of training between two lines."""


def open_model(
    spec: ModelSpec,
    used: Sequence[Record],
    cache: Path,
    tiny_config: TinyConfig | None = None,
    log: Log = silent,
) -> LoadedModel:
    """A model of a recipe, unedited, under its label.

    Args:
        spec: Which.
        used: The records of the dataset that the sweep uses; ``tiny`` knows these.
        cache: Folder of trained tiny models.
        tiny_config: Size and training of the tiny model, where not the usual.
        log: Called with progress messages.

    Raises:
        MissingExtraError: torch is not installed.
        InputFileError: It cannot be loaded.
        EditError: It does not fit in memory.
    """

    def training(step: int, steps: int, loss: float) -> None:
        if step % _EVERY == 0 or step == steps:
            log(f"tiny model: step {step} of {steps}, loss on answers {loss:.3f}")

    name = spec.name
    if spec.is_tiny:
        log(f"tiny model: knows {len(used)} records in two languages")
        name = str(tiny_model(used, cache, tiny_config, training))
    log(f"loading {spec.shown}")
    with edit_errors(f"loading {spec.shown}", "use bfloat16, or spread it with device_map"):
        loaded = load_model(
            name,
            tokenizer=spec.tokenizer,
            dtype="float32" if spec.is_tiny else spec.dtype,
            device=spec.device,
            device_map=spec.device_map,
        )
    return replace(loaded, name=spec.shown)
