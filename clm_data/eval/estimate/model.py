"""The estimate of one model's cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from clm_data.errors import ClmDataError
from clm_data.eval.chat import chat_turn
from clm_data.eval.dataset import EvalSet
from clm_data.eval.editors.lora import LoraParams, adapted_maps
from clm_data.eval.editors.pmet import PmetParams
from clm_data.eval.editors.ultraedit import UltraEditParams
from clm_data.eval.estimate.needs import Needs, needs_of, sizes_of
from clm_data.eval.estimate.report import CellEstimate, ModelEstimate
from clm_data.eval.estimate.speed import Speed, measure_speed
from clm_data.eval.estimate.texts import Texts
from clm_data.eval.estimate.work import SweepTime, Timing
from clm_data.eval.memory import free_memory, used_memory
from clm_data.eval.model.activations import DEFAULT_TOKENS, batch_tokens
from clm_data.eval.model.layout import numbers
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import default_device, frozen, model_without_weights
from clm_data.eval.model.tiny import (
    TinyConfig,
    cached_tiny_model,
    tiny_without_weights,
    training_steps,
)
from clm_data.eval.model.tiny_curriculum import training_sentences
from clm_data.eval.protocols import get_protocol
from clm_data.eval.recipe import ModelSpec, Recipe
from clm_data.eval.results import CellResult
from clm_data.eval.sweep.cell import batches_of
from clm_data.eval.sweep.corpus import corpus_texts
from clm_data.eval.sweep.plan import PlannedCell
from clm_data.eval.threads import measured_threads
from clm_data.log import Log
from clm_data.records import Record

_LONGEST_TEXT = 256
"""Maximum tokens of a text for second moments."""
_SAMPLE = 500
"""Texts of a corpus that are tokenized to estimate the tokens of all."""
_TRAINING = 1.5
"""A training step in passes forward and backward that compute no gradient of weights."""


@dataclass(frozen=True)
class ModelCells:
    """The cells of one model, by their place in the sweep.

    Attributes:
        spec: The model.
        cells: The cells.
        finished: Those that an earlier run finished.
        recipe: The sweep.
        dataset: The whole dataset.
        cache: Folder of tiny models.
        log: Called with progress messages.
    """

    spec: ModelSpec
    cells: Mapping[int, PlannedCell]
    finished: Mapping[int, CellResult]
    recipe: Recipe
    dataset: EvalSet
    cache: Path
    log: Log

    def estimate(self) -> tuple[ModelEstimate | None, dict[int, CellEstimate]]:
        """The model, or None if no cell can be computed; and the cells."""
        refused: dict[int, CellEstimate] = {}
        usable: dict[int, PlannedCell] = {}
        try:
            model = self._model
        except ClmDataError as error:
            return None, {index: self._refused(index, error) for index in self.cells}
        for index, cell in self.cells.items():
            try:
                check_cell(model, cell, len(self._records))
                self._check_text(cell)
                usable[index] = cell
            except ClmDataError as error:
                refused[index] = self._refused(index, error)
        if not usable:
            return None, refused
        speed, remark = self._measured()
        tokens = self._tokens_per_batch(speed)
        needs: dict[int, Needs] = {}
        seconds: dict[int, float | None] = {}
        about = self._about(tokens, remark)
        if speed is not None:
            needs = {
                index: found
                for index, cell in usable.items()
                if (found := self._needs(cell, speed, tokens)) is not None
            }
            shared, seconds, scale = self._seconds(usable, speed, tokens)
            about = replace(about, seconds=shared, scale=scale, slowdown=speed.slowdown)
        if needs:
            about = self._with_memory(about, max(needs.values(), key=self._peak))
        return about, refused | {
            index: CellEstimate(
                cell.setting,
                "done" if index in self.finished else "to compute",
                seconds=_measured_seconds(self.finished.get(index)) or seconds.get(index),
                peak=self._peak(needs[index]) if index in needs else None,
            )
            for index, cell in usable.items()
        }

    def _check_text(self, cell: PlannedCell) -> None:
        """Check what a cell reads besides the model.

        Raises:
            ClmDataError: The corpus cannot be read, or the tokenizer lacks a chat template.
        """
        if cell.params.moment_layers:
            self._corpus(cell)
        if get_protocol(cell.setting.protocol).turn == "chat":
            chat_turn(self._model.tokenizer)

    def _about(self, tokens_per_batch: int, remark: str) -> ModelEstimate:
        """The model, with nothing estimated yet."""
        model = self._model.model
        return ModelEstimate(
            model=self.spec.shown,
            architecture=type(model).__name__,
            parameters=sum(one.numel() for one in model.parameters()),
            dtype=str(model.dtype).removeprefix("torch."),
            device=self._device,
            tokens_per_batch=tokens_per_batch,
            free=self._free,
            free_main=free_memory(),
            remark=remark,
        )

    def _with_memory(self, about: ModelEstimate, needs: Needs) -> ModelEstimate:
        return replace(
            about,
            memory=self._memory(needs),
            main_memory=dict(needs.main) if self._gpu else {},
            peak=self._peak(needs),
        )

    def _refused(self, index: int, error: ClmDataError) -> CellEstimate:
        setting, found = self.cells[index].setting, self.finished.get(index)
        if found is not None:
            return CellEstimate(setting, "done", seconds=_measured_seconds(found))
        return CellEstimate(setting, "refused", " ".join(str(error).split()))

    @cached_property
    def _model(self) -> LoadedModel:
        """The model without weights.

        Raises:
            ClmDataError: Its config or tokenizer cannot be read, or it cannot be edited.
        """
        spec = self.spec
        if not spec.is_tiny:
            return model_without_weights(
                spec.name,
                tokenizer=spec.tokenizer,
                dtype=spec.dtype,
                layout=spec.layout,
                trust_remote_code=spec.trust_remote_code,
                revision=spec.revision,
            )
        if self._trained_folder is not None:
            return model_without_weights(str(self._trained_folder), dtype="float32")
        return frozen(spec.shown, *tiny_without_weights(self._records, TinyConfig()))

    @cached_property
    def _trained_folder(self) -> Path | None:
        return cached_tiny_model(self._records, self.cache, TinyConfig())

    @cached_property
    def _records(self) -> tuple[Record, ...]:
        return self.dataset.first(self.recipe.facts).records

    @cached_property
    def _device(self) -> str:
        return self.spec.device or default_device()

    @property
    def _gpu(self) -> bool:
        return self._device != "cpu"

    @cached_property
    def _texts(self) -> dict[str, Texts]:
        """By protocol."""
        return {
            name: Texts(self._model, self._records, get_protocol(name))
            for name in {cell.setting.protocol for cell in self.cells.values()}
        }

    @cached_property
    def _used(self) -> int:
        """Bytes that Python and its packages use now, where the model's memory is main memory."""
        return 0 if self._gpu else used_memory() or 0

    @cached_property
    def _free(self) -> int | None:
        """Bytes for a new process in the place of this one."""
        free = free_memory(self._device)
        return None if free is None else free + self._used

    def _memory(self, needs: Needs) -> dict[str, int]:
        if self._gpu:
            return dict(needs.device)
        return {"Python and its packages": self._used, **needs.device, **needs.main}

    def _peak(self, needs: Needs) -> int:
        return sum(self._memory(needs).values())

    def _measured(self) -> tuple[Speed | None, str]:
        """The speed of the model on this machine; None and why if it cannot be measured."""
        self.log(f"measuring two layers of {self.spec.shown} on {self._device}")
        inner = sizes_of(self._model, self._model.editable[0], 0.0, 1).inner
        try:
            with measured_threads(self.log):
                return measure_speed(self._model, self._device, inner), ""
        except Exception as error:  # whatever the model raises if its layers cannot run alone
            reason = (str(error).strip().splitlines() or [""])[0]
            return None, f"time and memory are unknown: {type(error).__name__}: {reason}"

    def _tokens_per_batch(self, speed: Speed | None) -> int:
        """As a sweep would choose it after loading the model."""
        if self.spec.tokens_per_batch != "auto":
            return self.spec.tokens_per_batch
        if not self._gpu or speed is None or self._free is None:
            return DEFAULT_TOKENS
        sizes = sizes_of(self._model, self._model.editable[0], 0.0, 1)
        kept = speed.kept * self._model.depth
        return batch_tokens(max(0, self._free - sizes.weights), kept, sizes.vocabulary)

    def _needs(self, cell: PlannedCell, speed: Speed, tokens_per_batch: int) -> Needs | None:
        """The memory of a cell; None if it is unknown."""
        if cell.easyedit is not None:
            return None
        setting, model = cell.setting, self._model
        layer = next(iter(cell.params.edited_layers), model.editable[0])
        sizes = sizes_of(model, layer, speed.kept, tokens_per_batch)
        batch = batches_of(len(self._records), setting.batch_size, 1)[0]
        texts = self._texts[setting.protocol]
        facts = [one for i in batch for one in texts.facts(i, setting.language).values()]
        asked = [one for i in range(len(self._records)) for one in texts.questions(i)]
        return needs_of(cell, sizes, model, facts, asked)

    def _seconds(
        self, cells: Mapping[int, PlannedCell], speed: Speed, tokens_per_batch: int
    ) -> tuple[dict[str, float | None], dict[int, float | None], float | None]:
        """Seconds by phase of what the cells share, seconds of each cell, and their scale."""
        timing = Timing(speed, self._model.depth, tokens_per_batch)
        sweep = SweepTime(timing, self.recipe, self._texts, len(self._records))
        seconds = {index: sweep.cell(cell) for index, cell in cells.items()}
        scale = _scale(seconds, self.finished)
        todo = [cell for index, cell in cells.items() if index not in self.finished]
        shared: dict[str, float | None] = {}
        if self.spec.is_tiny and self._trained_folder is None:
            shared["training the tiny model"] = self._training(timing)
        if todo:
            protocols = {cell.setting.protocol for cell in todo}
            shared["measuring before edits"] = sum(map(sweep.baseline, sorted(protocols)))
        for cell in todo:
            params, protocol = cell.params, cell.setting.protocol
            if layers := params.moment_layers:
                kind = " by language" if params.moments_by_language else ""
                name = f"second moments{kind} ({protocol}, layers {numbers(layers)})"
                if name not in shared:
                    shared[name] = self._moments(timing, cell)
        factor = 1.0 if scale is None else scale
        return (
            {name: one and one * factor for name, one in shared.items()},
            {index: one and one * factor for index, one in seconds.items()},
            scale,
        )

    def _training(self, timing: Timing) -> float:
        """Seconds to train the tiny model."""
        config, records = TinyConfig(), self._records
        sentences = training_sentences(records)
        encode = self._model.tokenizer
        length = _mean([len(encode(one.text)["input_ids"]) for one in sentences[:_SAMPLE]])
        tokens = round(config.curriculum.batch_size * (1 + config.curriculum.patch_rate) * length)
        step = timing.speed.seconds(tokens, timing.depth, reads=tokens, backward=True)
        return _TRAINING * step * training_steps(records, config)

    def _corpus(self, cell: PlannedCell) -> Mapping[str, Sequence[str]]:
        """Text for second moments, by language; empty if it is on the Hub.

        Raises:
            InputFileError: The corpus cannot be read, or lacks a language.
        """
        if cell.corpus.startswith("hub:"):
            return {}
        protocol = cell.setting.protocol
        if protocol not in self._corpora:
            self._corpora[protocol] = corpus_texts(
                cell.corpus,
                get_protocol(protocol),
                self._records if self.spec.is_tiny else self.dataset.records,
                max_texts=self.recipe.corpus_texts,
            )
        return self._corpora[protocol]

    @cached_property
    def _corpora(self) -> dict[str, Mapping[str, Sequence[str]]]:
        """By protocol."""
        return {}

    def _moments(self, timing: Timing, cell: PlannedCell) -> float | None:
        """Seconds of second moments that are not in the cache; None if the texts are on the Hub."""
        texts, layers = self._corpus(cell), cell.params.moment_layers
        if not texts:
            return None
        tokens = 0
        for group in texts.values():
            rows = [len(self._model.tokenizer(text)["input_ids"]) for text in group[:_SAMPLE]]
            tokens += round(len(group) * _mean([min(row, _LONGEST_TEXT) for row in rows]))
        return timing.through(tokens, layers[-1] + 1) + tokens * timing.speed.gram * len(layers)


def check_cell(model: LoadedModel, cell: PlannedCell, records: int) -> None:
    """Check what can be checked without weights: that there are enough facts, and the layers.

    Raises:
        EditError: There are fewer records than one batch has.
        LayoutError: The model lacks a part that the method edits.
    """
    batches_of(records, cell.setting.batch_size)
    params = cell.params
    if isinstance(params, LoraParams):
        adapted_maps(model, params)
    elif isinstance(params, UltraEditParams):
        for layer, part in params.weights():
            model.mlp_part(layer, part)
    else:
        for layer in params.edited_layers:
            model.mlp_out(layer)
    if isinstance(params, PmetParams):
        model.attn_out(params.layers[-1])


def _measured_seconds(cell: CellResult | None) -> float | None:
    """Seconds of a finished cell; None if it has none."""
    found = {} if cell is None else cell.seconds
    return sum(found[name] for name in ("edit", "measure") if name in found) or None


def _scale(
    estimated: Mapping[int, float | None], finished: Mapping[int, CellResult]
) -> float | None:
    """Measured over estimated seconds of the finished cells; None if there are none."""
    pairs = [
        (_measured_seconds(finished[index]), seconds)
        for index, seconds in estimated.items()
        if index in finished
    ]
    known = [(real, expected) for real, expected in pairs if real and expected]
    return sum(a for a, _ in known) / sum(b for _, b in known) if known else None


def _mean(values: Sequence[int]) -> float:
    return sum(values) / max(1, len(values))
