"""The few database connections of the HTTP layer.

No background task: a request that needs a connection opens one, the next reuses it, and a broken one is closed. So an
application works without its lifespan, and requests notice at once that the database is down or back.
docs/adr/0011-http.md compares this with psycopg's pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from cauce.database.connecting import PREPARE_AT_ONCE, address, connect_async

if TYPE_CHECKING:
    from cauce.config import Settings

logger = logging.getLogger("cauce.web")

T = TypeVar("T")

MAX_CONNECTIONS: Final = 8
"""Connections of a process at most; further requests wait for one."""
CONNECT_SECONDS: Final = 3
"""Seconds to reach the database."""
DATABASE_SECONDS: Final = 4.0
"""Seconds a request may wait for a free connection, and seconds it may use it; then it is answered 503."""

LOST = (psycopg.OperationalError, psycopg.InterfaceError)
"""What psycopg raises when a connection may be lost, or a transaction should be retried."""


class HttpConnections:
    """Connections in autocommit, shared by the requests of a process."""

    def __init__(self, settings: Settings) -> None:
        address(settings)  # refused here, before the first request
        self._settings = settings
        self._idle: list[AsyncConnection[Any]] = []
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Run work on a connection, and again on a new one if the first is lost: the work must be idempotent.

        A restarted server has closed every idle connection, which the next request notices.

        Raises:
            psycopg.Error: as the work did; an ``OperationalError`` if the database cannot be reached, or not in time.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        deadline = Deadline(DATABASE_SECONDS)
        try:
            for attempt in (1, 2):
                conn = self._idle.pop() if self._idle else await self._connect()
                try:
                    return await self._use(conn, work, deadline)
                except LOST as error:
                    if attempt == 2 or deadline.passed:  # noqa: PLR2004 - the second
                        raise
                    logger.info("trying again on a new connection: %s", error)
                    await self.close()  # whatever cut that one has cut the idle ones
            raise AssertionError
        finally:
            deadline.cancel()
            self._free.release()

    async def close(self) -> None:
        """Close the idle connections, not those in use."""
        idle, self._idle = self._idle, []
        for conn in idle:
            await conn.close()

    async def _wait(self) -> None:
        """Wait until a connection is free."""
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise psycopg.OperationalError(f"no connection was free for {DATABASE_SECONDS:g} s") from None

    async def _connect(self) -> AsyncConnection[Any]:
        return await connect_async(self._settings, seconds=CONNECT_SECONDS, prepare=PREPARE_AT_ONCE)

    async def _use(
        self, conn: AsyncConnection[Any], work: Callable[[AsyncConnection[Any]], Awaitable[T]], deadline: Deadline
    ) -> T:
        """Run work and keep the connection, unless something is left open on it.

        Raises:
            RuntimeError: the work returned before its transaction was committed, so it has done nothing.
        """
        deadline.guard(conn)
        try:
            result = await work(conn)
            if conn.pgconn.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
                raise RuntimeError("the work left its transaction open: nothing of it is committed")
            return result
        finally:
            deadline.guard(None)
            if conn.pgconn.transaction_status == TransactionStatus.IDLE and not deadline.passed:
                self._idle.append(conn)
            else:
                await conn.close()


class Deadline:
    """Shuts the connection in use when its time is over, which ends whatever waits for it.

    Cancelling is not enough: psycopg then asks the server to cancel the statement, and waits for a server that may not
    answer.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._conn: AsyncConnection[Any] | None = None
        self._timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    def guard(self, conn: AsyncConnection[Any] | None) -> None:
        """Shut this connection when the time is over, or now if it is."""
        self._conn = conn
        if self.passed:
            self._cut()

    def cancel(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        self._cut()

    def _cut(self) -> None:
        if self._conn is not None and not self._conn.closed:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._conn.fileno())) as twin:
                twin.shutdown(socket.SHUT_RDWR)
