"""Writes to the store from many dialogues at once: what waits together is one transaction."""

from __future__ import annotations

import asyncio

from clm_data.store import DialogueEnd, NewRequest, RequestOutcome, Store

Event = NewRequest | RequestOutcome | DialogueEnd


class Journal:
    """A store's front for coroutines.

    A write to disk takes milliseconds; while one goes on, in a thread, others gather, and go into
    the next transaction together.

    Args:
        store: Where everything goes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Event, asyncio.Future[int | None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, event: Event) -> int | None:
        """Return when the event is on disk, with the id if it is a new request.

        Raises:
            StoreError: The store cannot be written.
        """
        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return await done

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                ids = iter(await asyncio.to_thread(self._store.write, [e for e, _ in batch]))
            except Exception as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for event, done in batch:
                result = next(ids) if isinstance(event, NewRequest) else None
                if not done.done():
                    done.set_result(result)
