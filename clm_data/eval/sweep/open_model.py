"""Loading the models of a recipe; the tiny model is trained first if it is not in the cache."""

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

_STEPS_BETWEEN_UPDATES = 40
"""Training steps between two progress messages."""


def open_model(
    spec: ModelSpec,
    records: Sequence[Record],
    cache: Path,
    tiny_config: TinyConfig | None = None,
    log: Log = silent,
) -> LoadedModel:
    """Load a model of a recipe; its name is the label in the recipe.

    Args:
        spec: The model.
        records: Records that the tiny model is trained on.
        cache: Folder of trained tiny models.
        tiny_config: Size and training of the tiny model; None uses the defaults.
        log: Called with progress messages.

    Raises:
        MissingExtraError: torch is not installed.
        InputFileError: The model cannot be loaded.
        EditError: The model does not fit in memory.
    """

    def training(step: int, steps: int, loss: float) -> None:
        if step % _STEPS_BETWEEN_UPDATES == 0 or step == steps:
            log(f"tiny model: step {step} of {steps}, loss on answers {loss:.3f}")

    name = spec.name
    if spec.is_tiny:
        log(f"tiny model: trained on {len(records)} records in two languages")
        name = str(tiny_model(records, cache, tiny_config, training))
    log(f"loading {spec.shown}")
    with edit_errors(f"loading {spec.shown}", "use bfloat16, or several GPUs with device_map"):
        loaded = load_model(
            name,
            tokenizer=spec.tokenizer,
            dtype="float32" if spec.is_tiny else spec.dtype,
            device=spec.device,
            device_map=spec.device_map,
            layout=spec.layout,
            trust_remote_code=spec.trust_remote_code,
            revision=spec.revision,
        )
    return replace(loaded, name=spec.shown)
