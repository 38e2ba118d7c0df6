"""Ctrl-C while requests are in flight: the first ends the run in order, others are ignored."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


async def until_interrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work; on SIGINT, cancel it, wait until it has cleaned up, and call the usual handler.

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
    interrupted = False

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            loop.call_soon_threadsafe(task.cancel)

    signal.signal(signal.SIGINT, interrupt)
    try:
        return await task
    finally:
        try:
            if interrupted:
                usual(signal.SIGINT, None)
        finally:
            signal.signal(signal.SIGINT, usual)
