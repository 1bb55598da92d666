"""Stores verified deliveries. Those that arrive while a transaction runs share the next one.

A delivery is stored at once if no writer is busy. Otherwise it waits in a queue, and the writer then stores the whole
queue in one transaction: no delivery waits to fill a batch, and under load each costs less. If a transaction takes
long, because somebody holds a lock, another writer starts.
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
"""The largest number of concurrent transactions."""
LONG_SECONDS: Final = 0.05
"""Seconds after which another transaction may start beside a running one."""
MOST_BYTES: Final = 1_048_576
"""The most bytes of payloads and bodies in a transaction of several deliveries. Events: ``inbox.MOST_ROWS``."""


class _Waiting(NamedTuple):
    """A delivery that waits to be stored."""

    rows: Sequence[InboxRow]
    size: int
    since: float
    stored: asyncio.Future[list[Stored]]

    def finish(self, stored: list[Stored]) -> None:
        """Return the result to the request, if it still waits."""
        if not self.stored.done():
            self.stored.set_result(stored)

    def fail(self, problem: Exception) -> None:
        """Raise the error in the request, if it still waits."""
        if not self.stored.done():
            self.stored.set_exception(problem)


class Intake:
    """The queue of one process and its event loop."""

    def __init__(self, connections: HttpConnections) -> None:
        self._connections = connections
        self._waiting: deque[_Waiting] = deque()
        self._writers: set[asyncio.Task[None]] = set()
        self._long: set[asyncio.Task[None]] = set()
        """Writers whose transaction takes long."""

    async def store(self, rows: Sequence[InboxRow]) -> list[Stored]:
        """Store the events of one delivery, as ``inbox.store`` does.

        Raises:
            psycopg.Error: the database did not store them; an ``OperationalError`` if the delivery waited longer than
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
        """Wait for the running transactions: they go on although their requests were cancelled."""
        if self._writers:
            await asyncio.wait(self._writers)

    def _begin(self) -> None:
        """Start a writer if a delivery waits and every running transaction takes long."""
        if self._waiting and len(self._long) == len(self._writers) < WRITERS:
            writer = asyncio.get_running_loop().create_task(self._write())
            self._writers.add(writer)

    async def _write(self) -> None:
        """Store waiting deliveries until there are none."""
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
            self._writers.remove(this)  # not in a done callback: deliveries may arrive before that runs

    def _takes_long(self, writer: asyncio.Task[None]) -> None:
        self._long.add(writer)
        self._begin()

    def _take(self, earliest: float) -> list[_Waiting]:
        """Take deliveries for one transaction from the queue, the oldest first."""
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
        """Store all or none. Return False to store each alone, so that a bad one does not affect the others."""
        rows = [row for delivery in deliveries for row in delivery.rows]
        try:
            stored = iter(await self._connections.run(partial(inbox.store_as_they_are, rows=rows)))
        except LOST as problem:
            for delivery in deliveries:
                delivery.fail(problem)
        except Exception:  # noqa: BLE001 - the delivery that causes it raises it again when it is stored alone
            return False
        else:
            for delivery in deliveries:
                delivery.finish(list(islice(stored, len(delivery.rows))))
        return True

    async def _store_alone(self, delivery: _Waiting) -> None:
        try:
            delivery.finish(await self._connections.run(partial(inbox.store, rows=delivery.rows)))
        except Exception as problem:  # noqa: BLE001 - raised in the request, which answers it
            delivery.fail(problem)
