"""The way of verified deliveries into the database: those that come at the same time are stored in one transaction.

A delivery alone is stored at once. While the writer is busy, others gather, and then it takes all of them: no delivery
waits for company, and the more there are, the less each costs. When a transaction takes long, because somebody holds
a lock, another writer begins, so that other deliveries do not wait for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg

from cauce.database import inbox
from cauce.web.connections import DATABASE_SECONDS, LOST, HttpConnections

if TYPE_CHECKING:
    from cauce.database.inbox import InboxRow, Stored

WRITERS: Final = 4
"""Transactions under way at once, at most."""
LONG_SECONDS: Final = 0.05
"""Seconds after which a transaction is no reason any more not to begin another."""
MOST_BYTES: Final = 1_048_576
"""Bytes of the payloads and bodies of one transaction, beyond its first delivery. Events: ``inbox.MOST_ROWS``."""


class _Waiting(NamedTuple):
    """A delivery on its way."""

    rows: Sequence[InboxRow]
    size: int
    since: float
    stored: asyncio.Future[list[Stored]]

    def finish(self, stored: list[Stored]) -> None:
        """Return the result to the request that waits, if it still does."""
        if not self.stored.done():
            self.stored.set_result(stored)

    def fail(self, problem: Exception) -> None:
        """Raise the error in the request that waits, if it still does."""
        if not self.stored.done():
            self.stored.set_exception(problem)


class Intake:
    """The way in, for one process and its event loop."""

    def __init__(self, connections: HttpConnections) -> None:
        self._connections = connections
        self._waiting: deque[_Waiting] = deque()
        self._writers: set[asyncio.Task[None]] = set()
        self._long: set[asyncio.Task[None]] = set()
        """Writers whose transaction takes long."""

    async def store(self, rows: Sequence[InboxRow]) -> list[Stored]:
        """Store what one delivery holds, as ``inbox.store`` does.

        Raises:
            psycopg.Error: the database did not take it; an ``OperationalError`` if it was not its turn within
                ``DATABASE_SECONDS``.
        """
        if not rows:
            return []
        loop = asyncio.get_running_loop()
        size = sum(len(row.payload or "") + len(row.cuerpo or b"") for row in rows)
        waiting = _Waiting(rows, size, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        self._begin()
        return await waiting.stored

    async def finish(self) -> None:
        """Wait for what is under way: a transaction goes on although its requests were given up."""
        if self._writers:
            await asyncio.wait(self._writers)

    def _begin(self) -> None:
        """Let a writer begin, if one is wanted and none will be free soon."""
        if self._waiting and len(self._long) == len(self._writers) < WRITERS:
            writer = asyncio.get_running_loop().create_task(self._write())
            self._writers.add(writer)

    async def _write(self) -> None:
        """Store whatever waits, until nothing does."""
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        assert this is not None  # noqa: S101 - for the type checker: this is a coroutine of a task
        try:
            while deliveries := self._take(loop.time() - DATABASE_SECONDS):
                timer = loop.call_later(LONG_SECONDS, self._takes_long, this)
                try:
                    await self._store(deliveries)
                finally:
                    timer.cancel()
                    self._long.discard(this)
        finally:
            self._writers.remove(this)  # here, and not when the task is seen to be done: more may come in between

    def _takes_long(self, writer: asyncio.Task[None]) -> None:
        self._long.add(writer)
        self._begin()

    def _take(self, earliest: float) -> list[_Waiting]:
        """Take those that wait, the longest first, as many as one transaction shall hold."""
        taken: list[_Waiting] = []
        count = size = 0
        while self._waiting:
            first = self._waiting[0]
            if first.since < earliest:
                first.fail(psycopg.OperationalError(f"the delivery waited {DATABASE_SECONDS:g} s to be stored"))
            if not first.stored.done():
                count, size = count + len(first.rows), size + first.size
                if taken and (count > inbox.MOST_ROWS or size > MOST_BYTES):
                    break
                taken.append(first)
            self._waiting.popleft()
        return taken

    async def _store(self, deliveries: Sequence[_Waiting]) -> None:
        if len(deliveries) == 1 or not await self._store_together(deliveries):
            for delivery in deliveries:
                await self._store_alone(delivery)

    async def _store_together(self, deliveries: Sequence[_Waiting]) -> bool:
        """Store all of them or none; False: try each alone, for one that is refused shall not keep others out."""
        rows = [row for delivery in deliveries for row in delivery.rows]
        try:
            stored = iter(await self._connections.run(partial(inbox.store_as_they_are, rows=rows)))
        except LOST as problem:
            for delivery in deliveries:
                delivery.fail(problem)
        except Exception:  # noqa: BLE001 - whatever it is, it comes again with the one whose fault it is
            return False
        else:
            for delivery in deliveries:
                delivery.finish(list(islice(stored, len(delivery.rows))))
        return True

    async def _store_alone(self, delivery: _Waiting) -> None:
        try:
            delivery.finish(await self._connections.run(partial(inbox.store, rows=delivery.rows)))
        except Exception as problem:  # noqa: BLE001 - goes to the request, which knows what to answer
            delivery.fail(problem)
