"""The doorbell: wakes sleeping runners when a publisher commits, and at the polling interval.

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

from cauce.engine.causes import one_line
from cauce.engine.connections import connect, unexpected

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from cauce.config import Settings

logger = logging.getLogger("cauce.doorbell")

FIRST_LOOK: Final = 0.01
"""The first polling interval of a sleeping runner, in seconds; it doubles up to ``poll_seconds``."""
SLEEPING = 1128355139, 0
"""The advisory lock of the sleepers; ``cauce.avisar`` names the same."""


class Doorbell:
    """Lets runners sleep until there may be something to do. One runner of a group looks at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sleepers: defaultdict[str, deque[asyncio.Future[bool]]] = defaultdict(deque)
        self._somebody_sleeps = asyncio.Event()
        self._answered: asyncio.Future[None] | None = None
        """While the lock is held: done when a ring has left nobody asleep, or when the connection is lost."""
        self._interval = FIRST_LOOK
        self._next_look: asyncio.TimerHandle | None = None
        self.rings = 0
        """The number of rings; a runner reads it before it looks for events."""

    async def sleep(self, grupo: str, rings: int, *, worked: bool) -> bool:
        """Sleep until the bell rings or it is time to look again; return whether there surely is something to look for.

        Args:
            grupo: whose runner it is; a ring wakes one of every group.
            rings: what ``rings`` was before the runner looked: it does not sleep through a ring that came since.
            worked: the runner has had work since it last slept, so more may be near.
        """
        if rings != self.rings:
            return True
        sleeper: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        sleepers = self._sleepers[grupo]
        sleepers.append(sleeper)
        self._somebody_sleeps.set()
        if worked or self._next_look is None:
            self._look_in(FIRST_LOOK)
        try:
            return await sleeper
        finally:
            if sleeper in sleepers:
                sleepers.remove(sleeper)

    def wake(self, *, rung: bool = False, everybody: bool = False) -> None:
        """Wake the one of each group who has slept longest, or everybody."""
        for sleepers in self._sleepers.values():
            while sleepers:
                sleeper = sleepers.popleft()
                if not sleeper.done():
                    sleeper.set_result(rung)
                    if not everybody:
                        break

    def wake_another(self, grupo: str) -> None:
        """Wake one more of a group: there is more than one can carry."""
        sleepers = self._sleepers[grupo]
        while sleepers:
            sleeper = sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(True)
                break

    def ring(self) -> None:
        """Wake one runner of each group after a publisher's commit."""
        self.rings += 1
        self.wake(rung=True)
        self._look_in(FIRST_LOOK)
        if self._answered is not None and not self._answered.done() and not any(self._sleepers.values()):
            self._answered.set_result(None)

    async def run(self) -> None:
        """Listen until cancelled; survives the loss of the connection."""
        conn: AsyncConnection[Any] | None = None
        try:
            while True:
                try:
                    if self._settings.pooler:
                        await asyncio.Event().wait()
                    conn = await connect(self._settings)
                    await self._listen(conn)
                except Exception as error:
                    logger.warning(
                        "LISTEN connection lost; polling every %g s: %s",
                        self._settings.poll_seconds, one_line(str(error)), exc_info=unexpected(error),
                    )  # fmt: skip
                    if conn is not None:
                        await conn.close()
                    await asyncio.sleep(self._settings.poll_seconds)
        finally:
            if self._next_look is not None:
                self._next_look.cancel()
            if conn is not None:
                await conn.close()

    def _look_in(self, seconds: float) -> None:
        """Have the next look after so many seconds."""
        self._interval = min(seconds, self._settings.poll_seconds)
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        self.wake()
        self._look_in(2 * self._interval)

    async def _listen(self, conn: AsyncConnection[Any]) -> None:
        """Hold the lock from the moment somebody sleeps until a ring has left nobody asleep; again and again."""
        conn.add_notify_handler(lambda _: self.ring())
        await conn.execute("set lock_timeout = '1s'")  # without the lock the log is polled, that is all
        await conn.execute("listen cauce")
        while True:
            await self._somebody_sleeps.wait()
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                await conn.execute("select pg_advisory_lock_shared(%s, %s)", SLEEPING)
            self._answered = asyncio.get_running_loop().create_future()
            self.wake()
            try:
                await self._hear(conn, self._answered)
            finally:
                self._answered = None
            self._somebody_sleeps.clear()
            if any(self._sleepers.values()):
                self._somebody_sleeps.set()
            await conn.execute("select pg_advisory_unlock_all()")

    async def _hear(self, conn: AsyncConnection[Any], answered: asyncio.Future[None]) -> None:
        """Read notifications directly from the socket, without a task in between."""
        pgconn, loop = conn.pgconn, asyncio.get_running_loop()

        def read() -> None:
            try:
                pgconn.consume_input()
                while pgconn.notifies():
                    self.ring()
            except Exception as error:  # noqa: BLE001 - raised where the answer is awaited
                if not answered.done():
                    answered.set_exception(error)

        loop.add_reader(pgconn.socket, read)
        try:
            read()  # what came along with the last answer
            await answered
        finally:
            loop.remove_reader(pgconn.socket)
