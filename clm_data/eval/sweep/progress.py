"""Progress of a sweep: which cell it is at, and how much time is left."""

from __future__ import annotations

import time

_SECONDS_BETWEEN_UPDATES = 30.0
"""Minimum time between two messages about the same cell."""


class SweepProgress:
    """Counts finished cells and estimates the remaining time from the mean time per cell.

    Args:
        cells: Number of cells to compute.
    """

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._done = 0
        self._fraction = 0.0
        self._start = self._last_update = time.monotonic()

    def update(self, fraction: float) -> bool:
        """Set the finished share of the current cell, between 0 and 1.

        Returns:
            Whether it is time for another message about this cell.
        """
        self._fraction = fraction
        now = time.monotonic()
        due = fraction < 1 and now - self._last_update >= _SECONDS_BETWEEN_UPDATES
        if due:
            self._last_update = now
        return due

    def finish_cell(self) -> None:
        """Count the current cell as finished."""
        self._done, self._fraction = self._done + 1, 0.0
        self._last_update = time.monotonic()

    @property
    def position(self) -> str:
        """The current cell among all, such as `[2/9]`."""
        return f"[{min(self._done + 1, self._cells)}/{self._cells}]"

    @property
    def time_left(self) -> str:
        """The remaining time in words."""
        done = self._done + self._fraction
        if done >= self._cells:
            return "done"
        if done == 0:
            return "time left unknown"
        seconds = (time.monotonic() - self._start) / done * (self._cells - done)
        minutes, rest = divmod(round(seconds), 60)
        return f"about {minutes} min {rest:02d} s left"
