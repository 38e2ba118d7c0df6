"""How far a sweep is, and how long it will take."""

from __future__ import annotations

import time

_QUIET = 30.0
"""Seconds between two lines about one cell."""


class Clock:
    """Counts cells, and parts of the present one; time left is told from their mean so far."""

    def __init__(self) -> None:
        self._total = 0
        self._done = 0.0
        self._part = 0.0
        self._start = self._said = time.monotonic()

    def begin(self, cells: int) -> None:
        """So many cells are to be computed."""
        self._total, self._start = cells, time.monotonic()

    def now(self) -> float:
        """Seconds, from anywhere."""
        return time.monotonic()

    def part(self, share: float) -> bool:
        """So much of the present cell is done; returns whether it is time for another line."""
        self._part = share
        due = share < 1 and time.monotonic() - self._said >= _QUIET
        if due:
            self._said = time.monotonic()
        return due

    def tick(self, cells: int = 1) -> None:
        """So many more cells are done."""
        self._done, self._part = self._done + cells, 0.0
        self._said = time.monotonic()

    def where(self) -> str:
        """The present cell among all."""
        return f"[{min(int(self._done) + 1, self._total)}/{self._total}]"

    def left(self) -> str:
        """Time left."""
        done = self._done + self._part
        if done >= self._total or done == 0:
            return "done" if done else "time left unknown"
        seconds = (time.monotonic() - self._start) / done * (self._total - done)
        minutes, rest = divmod(round(seconds), 60)
        return f"about {minutes} min {rest:02d} s left"
