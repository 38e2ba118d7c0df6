"""Writes to the store from concurrent dialogues, with one transaction for all waiting writes."""

from __future__ import annotations

import asyncio

from clm_data.errors import StoreError
from clm_data.store import DialogueEnd, Guard, NewRequest, RequestOutcome, Store

Event = NewRequest | RequestOutcome | DialogueEnd
Waiting = tuple[Event, asyncio.Future[int | None]]


class Journal:
    """An asynchronous writer for a store.

    A transaction takes milliseconds and runs in a thread. Writes that arrive meanwhile go into the
    next transaction together. If that fails, each answer is written on its own, so that every
    answer that can be stored is stored.

    Args:
        store: The store to write to.
        guard: Asked in the transaction before anything but an answer is written.
    """

    def __init__(self, store: Store, guard: Guard | None = None) -> None:
        self._store = store
        self._guard = guard
        self._waiting: list[Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, event: Event) -> int | None:
        """Write an event, and return once it is committed, with its id if it is a new request.

        Raises:
            StoreError: The store cannot be written to.
        """
        committed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, committed))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return await committed

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._write(batch)
            except StoreError as error:
                await self._write_answers(batch, error)
            except Exception as error:
                _fail(batch, error)

    async def _write_answers(self, batch: list[Waiting], reason: StoreError) -> None:
        for each in batch:
            if len(batch) == 1 or not isinstance(each[0], RequestOutcome):
                _fail([each], reason)
                continue
            try:
                await self._write([each])
            except StoreError as error:
                _fail([each], error)

    async def _write(self, batch: list[Waiting]) -> None:
        events = [event for event, _ in batch]
        ids = iter(await asyncio.to_thread(self._store.write, events, self._guard))
        for event, committed in batch:
            result = next(ids) if isinstance(event, NewRequest) else None
            if not committed.done():
                committed.set_result(result)


def _fail(batch: list[Waiting], error: Exception) -> None:
    for _, committed in batch:
        if not committed.done():
            committed.set_exception(error)
