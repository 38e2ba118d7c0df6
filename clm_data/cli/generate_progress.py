"""What `generate` shows while it runs: bars on a terminal, single lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clm_data.cli.output import counted, log, progress_bars

if TYPE_CHECKING:
    from clm_data.generation import Progress

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def generation_progress() -> Iterator[Callable[[Progress], None]]:
    """Show progress; if the run ends with an error or Ctrl-C, say what it did until then."""
    latest: dict[str, Progress] = {}
    try:
        with _shown() as show:

            def follow(at: Progress) -> None:
                latest[at.domain] = at
                show(at)

            yield follow
    except BaseException:
        for at in latest.values():
            log(f"{_line(at)} (when the run ended)")
        raise


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with progress_bars() as show:
        waits: list[tuple[float, str]] = []

        def bar(at: Progress) -> None:
            if at.waiting is not None:
                waits[:] = [(time.monotonic() + at.wait, at.waiting)]

            def remark() -> str:
                """A countdown while the run waits."""
                for until, reason in waits:
                    if (left := until - time.monotonic()) > 0:
                        return f"waiting {left:.0f} s: {reason}"
                return _remark(at)

            show(at.domain, at.entries, at.target, remark)

        yield bar


class _Lines:
    """A line for each batch and each wait, and one every ten seconds in between."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, at: Progress) -> None:
        if at.waiting is not None:
            log(f"waiting {at.wait:.0f} s: {at.waiting}")
        elif at.settled or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            log(_line(at))


def _line(at: Progress) -> str:
    return f"{at.domain}: {at.entries} of {counted(at.target, 'entry', 'entries')}, {_remark(at)}"


def _remark(at: Progress) -> str:
    """Requests and rejected entries of the domain, and tokens and cost of the whole run."""
    parts = [counted(at.requests, "request"), f"{at.rejected} rejected"]
    if at.tokens.answers:
        shown = at.tokens.estimated
        about = "about " if at.tokens.unreported else ""
        total = (shown.prompt_tokens or 0) + (shown.completion_tokens or 0)
        parts.append(f"{about}{total} tokens")
        if at.cost is not None:
            parts.append(f"{about}cost {at.cost:.2f}")
    if at.seconds_left:
        parts.append(f"about {_duration(at.seconds_left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
