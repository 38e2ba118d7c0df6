"""The result of an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from clm_data.eval.results import Setting
from clm_data.tabular import Tabular

State = Literal["done", "to compute", "refused"]
"""Whether an earlier run has finished a cell, it would be computed, or it cannot be."""


@dataclass(frozen=True)
class CellEstimate:
    """A cell.

    Attributes:
        setting: Its place in the grid.
        state: What a sweep would do with it.
        reason: Why it is refused; None otherwise.
        seconds: Of a cell that is done the measured seconds, of one to compute the estimated ones;
            None if unknown.
        peak: Estimated bytes at most on the model's device; None if unknown.
    """

    setting: Setting
    state: State
    reason: str | None = None
    seconds: float | None = None
    peak: int | None = None


@dataclass(frozen=True)
class ModelEstimate:
    """A model with what its cells share. What is estimated is None if unknown.

    Attributes:
        model: The label in tables.
        architecture: The class in transformers.
        parameters: Number of parameters.
        dtype: Of the weights.
        device: Where the cells would be computed.
        tokens_per_batch: Maximum tokens per forward pass.
        free: Bytes that are free on the device now.
        free_main: Bytes of main memory that are free now.
        seconds: Estimated seconds by phase that the cells share; a phase whose time is unknown is
            None.
        memory: Estimated bytes on the device by what they are for, of the cell that needs most
            of those whose memory is known; empty if there are none.
        main_memory: The same in main memory, if the device is a GPU; empty otherwise.
        peak: Sum of `memory`.
        scale: Measured over estimated seconds of the finished cells, by which all estimates of time
            are multiplied; None if there are none. Without it, times are those of a machine that
            does nothing else.
        slowdown: How many times longer the short measurement took because the machine did something
            else; None if nothing was measured.
        remark: What is unknown, and why.
    """

    model: str
    architecture: str
    parameters: int
    dtype: str
    device: str
    tokens_per_batch: int
    free: int | None
    free_main: int | None
    seconds: Mapping[str, float | None] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    main_memory: Mapping[str, int] = field(default_factory=dict)
    peak: int | None = None
    scale: float | None = None
    slowdown: float | None = None
    remark: str = ""

    @property
    def fits(self) -> bool | None:
        """Whether the cells fit into the free memory; None if that is unknown."""
        if self.peak is None or self.free is None or (self.main_memory and not self.free_main):
            return None
        return self.peak <= self.free and sum(self.main_memory.values()) <= (self.free_main or 0)


@dataclass(frozen=True)
class EvaluationEstimate(Tabular):
    """What a sweep would take.

    Attributes:
        title: The recipe's title.
        records: Number of records in use.
        models: The models of cells that would be computed, or were.
        cells: All cells, in the order of the sweep.
    """

    title: str
    records: int
    models: tuple[ModelEstimate, ...]
    cells: tuple[CellEstimate, ...]

    def table_title(self) -> str:
        """What is estimated."""
        return f"{self.title}: estimate"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row per cell."""
        return [
            {
                **cell.setting.model_dump(mode="json"),
                "state": cell.state,
                "seconds": cell.seconds,
                "peak": cell.peak,
                "reason": cell.reason,
            }
            for cell in self.cells
        ]

    def count(self, state: State) -> int:
        """Number of cells in a state."""
        return sum(cell.state == state for cell in self.cells)

    @property
    def seconds(self) -> float | None:
        """Seconds of everything that would be computed; None if a part of it is unknown."""
        parts = self._parts()
        return None if None in parts else self.known_seconds

    @property
    def known_seconds(self) -> float:
        """Seconds of the parts of it that are known."""
        return sum(part for part in self._parts() if part is not None)

    def _parts(self) -> list[float | None]:
        shared = [one for model in self.models for one in model.seconds.values()]
        return shared + [cell.seconds for cell in self.cells if cell.state == "to compute"]

    def as_json(self) -> dict[str, Any]:
        """The estimate as JSON values; what is unknown is null."""
        return {
            "estimate": True,
            "title": self.title,
            "records": self.records,
            "seconds": self.seconds,
            "known_seconds": self.known_seconds,
            "models": [asdict(model) | {"fits": model.fits} for model in self.models],
            "cells": self.table_rows(),
        }
