"""Upkeep: periodic chores that any worker does: rescue, retention, presence.

A worker shows that it is alive by a lock that its upkeep's connection holds, so that it writes nothing while it is
idle. Behind a pooler, where sessions do not keep locks, it writes the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import psycopg

from cauce import sql
from cauce.engine.causes import one_line
from cauce.engine.connections import connect, unexpected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from psycopg import AsyncConnection

    from cauce.config import Settings

    Chore: TypeAlias = Callable[[AsyncConnection[Any]], Awaitable[float]]

logger = logging.getLogger("cauce.upkeep")

ROUND_SECONDS: Final = 5.0
"""Most seconds between two looks for expired leases while any worker holds a lease."""
LOOK_BACK_SECONDS: Final = 30.0
"""Seconds between looks for retries that were passed by, while no worker holds a lease."""
COMMIT_SECONDS: Final = 5.0
"""Most seconds between a settlement's statement and its commit for which the next look surely finds its retries."""
CHORES_SECONDS: Final = 120.0
"""Seconds between two runs of the chores that are not urgent; retention runs again at once if more is left."""
PRESENT_SECONDS: Final = 15.0
"""Seconds between two signs of life of a worker behind a pooler."""
PRUNE_BATCH: Final = 5_000
"""Events looked at, or refused webhooks deleted, in one statement, so that none holds locks for long."""
PRUNE_SECONDS: Final = 1.0
"""Most seconds that a round spends on deleting old events."""

NOTE_EVERY: Final = 10_000
"""Transactions of the cluster between two records of its transaction id."""

PRESENTAR = "select cauce.presentar_trabajador(%s, %s, %s, %s, %s)"
REPASAR = "select cauce.repasar_reintentos(%s, %s, make_interval(secs => %s))"


async def prune(conn: AsyncConnection[Any], days: float) -> bool:
    """Delete events processed more than ``days`` ago, for ``PRUNE_SECONDS``; return whether more are left."""
    ends, more = monotonic() + PRUNE_SECONDS, True
    while more and monotonic() < ends:
        cursor = await conn.execute(
            "select queda from cauce.purgar(make_interval(secs => %s), %s)", (days * 86_400, PRUNE_BATCH)
        )
        row = await cursor.fetchone()
        more = bool(row and row[0])
    return more


class Upkeep:
    """A worker's share of the common chores, on a connection of its own."""

    def __init__(self, settings: Settings, worker: str, groups: Sequence[str], application: str = "") -> None:
        self._settings, self._worker = settings, worker
        self._groups, self._application = list(groups), application
        self._who = worker, list(groups), socket.gethostname(), os.getpid()
        self._conn: AsyncConnection[Any] | None = None
        self._held = True
        """Whether any worker held a lease at the last look."""
        self._looked_back = monotonic() - LOOK_BACK_SECONDS
        """When it last looked for retries that were passed by."""
        self._due: dict[Chore, float] = {}
        """When each chore is due again; one that is not here is due now."""

    async def run(self) -> None:
        """Do the chores several times a lease, until cancelled."""
        while True:
            try:
                await self.once()
            except Exception as error:
                self._held = True
                logger.warning("upkeep failed; retrying: %s", one_line(str(error)), exc_info=unexpected(error))
            third = self._settings.lease_seconds / 3
            await asyncio.sleep(min(ROUND_SECONDS, third) if self._held else third)

    async def once(self) -> None:
        """Do each chore that is due, even if another fails.

        Raises:
            psycopg.Error: the database cannot be reached. The failure of a single chore is logged.
        """
        conn = await self._connected()
        for chore in (
            self._say_hello,
            self._rescue,
            self._look_back,
            self._adopt,
            self._prune,
            self._prune_refused,
            self._call_the_roll,
            self._note,
        ):
            if self._due.get(chore, 0.0) > monotonic():
                continue
            try:
                self._due[chore] = monotonic() + await chore(conn)
            except Exception as error:
                if conn.closed:
                    raise
                task = (chore.__doc__ or "").rstrip(".").lower()
                logger.warning(
                    "upkeep failed to %s; retrying in the next round: %s",
                    task, one_line(str(error)), exc_info=unexpected(error),
                )  # fmt: skip

    async def leave(self) -> None:
        """Remove the worker's row, and disconnect."""
        goodbye, worker = sql.query("worker_leave"), {"trabajador": self._worker}
        async with contextlib.aclosing(self):
            try:
                await (await self._connected()).execute(goodbye, worker)
            except psycopg.OperationalError:  # the connection was lost unnoticed
                await (await self._connected()).execute(goodbye, worker)

    async def aclose(self) -> None:
        """Disconnect."""
        if self._conn is not None:
            await self._conn.close()

    async def _connected(self) -> AsyncConnection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = await connect(self._settings)
            self._conn.add_notice_handler(lambda notice: logger.warning("%s", notice.message_primary))
            self._due.pop(self._say_hello, None)
        return self._conn

    # Each chore returns the seconds until it is due again.

    async def _say_hello(self, conn: AsyncConnection[Any]) -> float:
        """Say that this worker is alive."""
        await conn.execute(PRESENTAR, (*self._who, not self._settings.pooler))
        return PRESENT_SECONDS if self._settings.pooler else inf

    async def _rescue(self, conn: AsyncConnection[Any]) -> float:
        """Take expired batches over."""
        limit = {"limite_caidas": self._settings.crash_limit}
        row = await (await conn.execute(sql.query("rescue"), limit)).fetchone()
        rescued, self._held = row or (0, True)
        if rescued:
            logger.warning("took over %s batches with an expired lease", rescued)
            await conn.execute("select pg_notify('cauce', '')")
        return 0.0

    async def _look_back(self, conn: AsyncConnection[Any]) -> float:
        """Look for retries that claims have passed by."""
        began = monotonic()
        reach = began - self._looked_back + COMMIT_SECONDS
        for grupo in self._groups:
            await conn.execute(REPASAR, (grupo, self._application, reach))
        self._looked_back = began
        return 0.0 if self._held else LOOK_BACK_SECONDS

    async def _adopt(self, conn: AsyncConnection[Any]) -> float:
        """Take over deliveries that wait for applications that have left their group."""
        await conn.execute("select cauce.adoptar_entregas(%s)", (self._application,))
        return CHORES_SECONDS

    async def _prune(self, conn: AsyncConnection[Any]) -> float:
        """Delete old events."""
        days = self._settings.retention_days
        return 0.0 if days is not None and await prune(conn, days) else CHORES_SECONDS

    async def _prune_refused(self, conn: AsyncConnection[Any]) -> float:
        """Delete old refused webhooks."""
        await conn.execute(
            "select cauce.purgar_rechazados(make_interval(secs => %s), %s)",
            (self._settings.quarantine_days * 86_400, PRUNE_BATCH),
        )
        return CHORES_SECONDS

    async def _call_the_roll(self, conn: AsyncConnection[Any]) -> float:
        """Note which workers are gone."""
        await conn.execute("select cauce.pasar_lista()")
        return CHORES_SECONDS

    async def _note(self, conn: AsyncConnection[Any]) -> float:
        """Record the cluster's transaction id."""
        await conn.execute("select cauce.comprobar_restauracion(%s)", (NOTE_EVERY,))
        return CHORES_SECONDS
