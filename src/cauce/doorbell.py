"""The doorbell: wakes sleeping runners when a publisher commits, and every now and then in any case.

One listening connection a process. While somebody sleeps it holds the shared advisory lock that publishers look at
before they ring (see ``cauce.tocar_timbre``). A publisher may have looked just before, so every sleep begins with one
more look at the log, and looks follow at doubling intervals. Without a listening connection (a pooler in transaction
mode, a server that refuses) those looks are all there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

import psycopg

from cauce.runner import connect

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from cauce.config import Settings

logger = logging.getLogger("cauce.doorbell")

FIRST_LOOK: Final = 0.01
"""Seconds after which a sleeper looks again for the first time; then twice as many, up to the poll interval."""
SLEEPING = 1128355139, 0
"""The advisory lock of the sleepers; the trigger on ``eventos`` names the same."""


class Doorbell:
    """Lets runners sleep until there may be something to do."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sleepers: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._somebody_sleeps = asyncio.Event()
        self._interval = FIRST_LOOK
        self.rings = 0
        """How often it has rung; a runner notes it before it looks at the log."""

    async def sleep(self, grupo: str, rings: int, *, worked: bool) -> None:
        """Sleep until the bell rings or it is time to look again.

        Args:
            grupo: whose runner it is; a ring wakes one of every group.
            rings: what ``rings`` was before the runner looked: it does not sleep through a ring that came since.
            worked: the runner has had work since it last slept, so more may be near.
        """
        if worked:
            self._interval = FIRST_LOOK
        if rings != self.rings:
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleepers = self._sleepers[grupo]
        sleepers.append(sleeper)
        self._somebody_sleeps.set()
        try:
            await sleeper
        finally:
            if sleeper in sleepers:
                sleepers.remove(sleeper)

    def wake(self, *, everybody: bool = False) -> None:
        """Wake the one of each group who has slept longest, or everybody."""
        for sleepers in self._sleepers.values():
            while sleepers:
                sleeper = sleepers.popleft()
                if not sleeper.done():
                    sleeper.set_result(None)
                    if not everybody:
                        break

    def wake_another(self, grupo: str) -> None:
        """Wake one more of a group: there is more than one can carry."""
        if self._sleepers[grupo]:
            self._sleepers[grupo].popleft().set_result(None)

    async def run(self) -> None:
        """Listen, and wake sleepers, until cancelled; survives the loss of the connection."""
        conn: AsyncConnection[Any] | None = None
        try:
            while True:
                try:
                    if conn is None and not self._settings.pooler:
                        conn = await connect(self._settings)
                        await conn.execute("set lock_timeout = '1s'")  # without the lock the log is polled, that is all
                        await conn.execute("listen cauce")
                    await self._night(conn)
                except psycopg.Error as error:
                    logger.warning("the doorbell is out of order, the log is polled meanwhile: %s", error)
                    if conn is not None:
                        await conn.close()
                    conn = None
                    await asyncio.sleep(self._settings.poll_seconds)
                    self.wake()
        finally:
            if conn is not None:
                await conn.close()

    async def _night(self, conn: AsyncConnection[Any] | None) -> None:
        """From the moment somebody sleeps until the bell rings."""
        await self._somebody_sleeps.wait()
        if conn is not None:
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                await conn.execute("select pg_advisory_lock_shared(%s, %s)", SLEEPING)
        self.wake()
        while not await self._rang(conn):
            self._interval = min(2 * self._interval, self._settings.poll_seconds)
            self.wake()
        self.rings += 1
        self.wake()
        if conn is not None:
            await conn.execute("select pg_advisory_unlock_all()")
        if not any(self._sleepers.values()):
            self._somebody_sleeps.clear()

    async def _rang(self, conn: AsyncConnection[Any] | None) -> bool:
        """Wait for the bell, at most for the interval; without a connection, just so long."""
        if conn is None:
            await asyncio.sleep(self._interval)
            return False
        async for _ in conn.notifies(timeout=self._interval, stop_after=1):
            return True
        return False
