"""The connection pool of a worker process: connections are lent for one operation and closed when idle.

A worker opens as many connections as it uses at the same moment. One idle connection is kept; the others are closed
after a while. If all are lent, a caller waits a moment before it opens a new one, because most are returned within a
millisecond. So the polls of many idle groups share one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from cauce.database.connecting import PREPARE_AT_ONCE, connect_async
from cauce.database.refusals import explaining
from cauce.engine.causes import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cauce.config import Settings

logger = logging.getLogger("cauce.connections")

PATIENCE: Final = 0.05
"""Seconds to wait for a lent connection before a new one is opened."""
IDLE_SECONDS: Final = 10.0
"""Seconds after which idle connections are closed, except one."""
RECONNECT_CAP: Final = 5.0
"""The longest delay between two attempts to connect, in seconds."""


class Connections:
    """A small pool: it opens what is needed at the same moment, and no more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: deque[tuple[AsyncConnection[Any], float]] = deque()
        """With the moment each was given back, the longest idle first."""
        self._takers: deque[asyncio.Future[AsyncConnection[Any]]] = deque()
        self._lent = 0
        self.losses = 0
        """How many connections were lost: the server may have crashed, over whatever was being done."""

    @contextlib.asynccontextmanager
    async def lend(self, *, in_turn: bool = False) -> AsyncGenerator[AsyncConnection[Any]]:
        """Lend a connection in autocommit; waits until the database answers.

        ``in_turn``: for what can wait a moment, such as a look that nobody rang for. While one is lent, the next one
        that comes back will do; so many idle groups need one connection.

        One that comes back broken, or in a transaction, is closed; if it is broken the idle ones are closed as well,
        for what ended it has most likely ended them.
        """
        conn = await self._take(in_turn=in_turn)
        self._lent += 1
        try:
            yield conn
        finally:
            self._lent -= 1
            if conn.closed:
                self.losses += 1
                await self.close()
            elif conn.info.transaction_status != TransactionStatus.IDLE:
                await conn.close()
            else:
                self._give_back(conn)

    async def run(self) -> None:
        """Close connections that have been idle for ``IDLE_SECONDS``, except one; until cancelled."""
        while True:
            await asyncio.sleep(IDLE_SECONDS / 2)
            while len(self._idle) > 1 and self._idle[0][1] < monotonic() - IDLE_SECONDS:
                await self._idle.popleft()[0].close()

    async def close(self) -> None:
        """Close all that are idle."""
        while self._idle:
            await self._idle.popleft()[0].close()

    async def _take(self, *, in_turn: bool) -> AsyncConnection[Any]:
        if self._lent and (in_turn or not self._idle) and (conn := await self._returned(PATIENCE)):
            return conn
        failures = 0
        while True:
            while self._idle:
                conn = self._idle.pop()[0]
                if not conn.closed:
                    return conn
            try:
                return await connect(self._settings)
            except psycopg.OperationalError as error:
                wait = backoff(failures)
                failures += 1
                logger.warning("cannot connect to the database; retry in %.1f s: %s", wait, one_line(str(error)))
            if conn := await self._returned(wait):
                return conn

    def _give_back(self, conn: AsyncConnection[Any]) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(conn)
                return
        self._idle.append((conn, monotonic()))

    async def _returned(self, seconds: float) -> AsyncConnection[Any] | None:
        """Wait for the next that is given back, for so many seconds."""
        taker: asyncio.Future[AsyncConnection[Any]] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        try:
            await asyncio.wait([taker], timeout=seconds)
        except BaseException:
            if taker.done():
                self._give_back(taker.result())
            raise
        finally:
            if not taker.done():
                self._takers.remove(taker)
        return taker.result() if taker.done() else None


async def connect(settings: Settings) -> AsyncConnection[Any]:
    """Open a connection of a worker, which runs the same few statements all the time.

    A claim needs READ COMMITTED, whatever the database's default; behind a pooler the role must have it.
    """
    conn = await connect_async(settings, prepare=PREPARE_AT_ONCE)
    if not settings.pooler:
        try:
            with explaining():
                await conn.execute("set default_transaction_isolation = 'read committed'")
        except BaseException:  # a cancellation above all: nobody else would close it
            await conn.close()
            raise
    return conn


def backoff(failures: int) -> float:
    """Return the delay before the next attempt to connect, in seconds."""
    return random.uniform(0.5, 1) * min(RECONNECT_CAP, 0.05 * 2.0 ** min(failures, 30))  # noqa: S311 - jitter, not a secret


def unexpected(error: BaseException) -> bool:
    """Whether the log should contain the traceback: only for errors that are not the database's."""
    return not isinstance(error, psycopg.Error)
