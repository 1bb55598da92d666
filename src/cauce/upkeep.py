"""Upkeep: what must be done now and then, by whichever worker happens to: rescue, retention, saying who is alive."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import psycopg

from cauce.runner import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from cauce.config import Settings

logger = logging.getLogger("cauce.upkeep")

PRUNE_BATCH: Final = 5_000
"""Events looked at, or refused webhooks deleted, in one statement, so that none holds locks for long."""
PRUNE_SECONDS: Final = 1.0
"""Seconds of every round that are spent on old events, at most."""


async def prune(conn: AsyncConnection[Any], days: float) -> int:
    """Delete events that were processed longer ago than that, for ``PRUNE_SECONDS``; return how many."""
    ends, deleted, more = monotonic() + PRUNE_SECONDS, 0, True
    while more and monotonic() < ends:
        cursor = await conn.execute(
            "select borrados, queda from cauce.purgar(make_interval(secs => %s), %s)", (days * 86_400, PRUNE_BATCH)
        )
        row = await cursor.fetchone()
        count, more = row or (0, False)
        deleted += count
    return deleted


class Upkeep:
    """A worker's share of the common chores."""

    def __init__(self, settings: Settings, worker: str, groups: Sequence[str]) -> None:
        self._settings, self._worker, self._groups = settings, worker, list(groups)

    async def run(self) -> None:
        """Do the chores several times a lease, until cancelled."""
        while True:
            try:
                await self.once()
            except psycopg.Error as error:
                logger.warning("upkeep could not reach the database, and tries again: %s", error)
            await asyncio.sleep(min(5.0, self._settings.lease_seconds / 3))

    async def once(self) -> int:
        """Do them once; return how many expired batches were taken over."""
        async with await connect(self._settings) as conn:
            await conn.execute(
                "select cauce.presentar_trabajador(%s, %s, %s, %s)",
                (self._worker, self._groups, socket.gethostname(), os.getpid()),
            )
            row = await (await conn.execute("select cauce.rescatar(%s)", (self._settings.crash_limit,))).fetchone()
            rescued = int(row[0]) if row else 0
            if rescued:
                logger.warning("took over %s batches of workers that died or lost their lease", rescued)
                await conn.execute("select pg_notify('cauce', '')")
            if self._settings.retention_days is not None:
                await prune(conn, self._settings.retention_days)
            await conn.execute(
                "select cauce.purgar_rechazados(make_interval(secs => %s), %s)",
                (self._settings.quarantine_days * 86_400, PRUNE_BATCH),
            )
            await conn.execute("select cauce.comprobar_restauracion()")
        return rescued

    async def leave(self) -> None:
        """Say goodbye."""
        async with await connect(self._settings) as conn:
            await conn.execute("delete from cauce.trabajadores where trabajador = %s", (self._worker,))
