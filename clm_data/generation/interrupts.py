"""Ctrl-C while requests are in flight: the first ends the run in order, others are ignored."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")
_SECONDS_TO_END = 5.0
"""Time in which a further Ctrl-C is ignored."""


async def until_interrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work; on SIGINT, cancel it, wait until it has cleaned up, and call the usual handler.

    A SIGINT soon after the first is ignored, and a later one goes to the usual handler at once.
    Only in the main thread; elsewhere Python delivers no signals.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C, with the handler that Python starts with.
    """
    if threading.current_thread() is not threading.main_thread():
        return await work
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual):  # SIGINT is ignored, or handled outside Python
        return await task
    interrupted: float | None = None

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted is None:
            interrupted = time.monotonic()
            loop.call_soon_threadsafe(task.cancel)
        elif time.monotonic() - interrupted > _SECONDS_TO_END:
            usual(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        return await task
    finally:
        try:
            if interrupted is not None:
                usual(signal.SIGINT, None)
        finally:
            signal.signal(signal.SIGINT, usual)
