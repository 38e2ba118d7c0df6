"""Writes to the store from concurrent dialogues, with one transaction for all waiting writes."""

from __future__ import annotations

import asyncio

from clm_data.store import DialogueEnd, NewRequest, RequestOutcome, Store

Event = NewRequest | RequestOutcome | DialogueEnd


class Journal:
    """An asynchronous writer for a store.

    A transaction takes milliseconds and runs in a thread. Writes that arrive meanwhile go into the
    next transaction together.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Event, asyncio.Future[int | None]]] = []
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
                ids = iter(await asyncio.to_thread(self._store.write, [e for e, _ in batch]))
            except Exception as error:
                for _, committed in batch:
                    if not committed.done():
                        committed.set_exception(error)
                continue
            for event, committed in batch:
                result = next(ids) if isinstance(event, NewRequest) else None
                if not committed.done():
                    committed.set_result(result)
