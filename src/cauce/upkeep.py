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

    def __init__(self, settings: Settings, worker: str, groups: Sequence[str], application: str = "") -> None:
        self._settings, self._worker, self._groups, self._application = settings, worker, list(groups), application
        self._rescued = 0

    async def run(self) -> None:
        """Do the chores several times a lease, until cancelled."""
        while True:
            try:
                await self.once()
            except psycopg.Error as error:
                logger.warning("upkeep could not reach the database, and tries again: %s", error)
            await asyncio.sleep(min(5.0, self._settings.lease_seconds / 3))

    async def once(self) -> int:
        """Do each chore once, whatever becomes of the others; return how many expired batches were taken over.

        Raises:
            psycopg.Error: the database cannot be reached. What it answers to a single chore is logged.
        """
        self._rescued = 0
        async with await connect(self._settings) as conn:
            conn.add_notice_handler(lambda notice: logger.warning("%s", notice.message_primary))
            for chore in (
                self._say_hello,
                self._rescue,
                self._look_back,
                self._prune,
                self._prune_refused,
                self._note_instance,
            ):
                try:
                    await chore(conn)
                except psycopg.Error as error:
                    if conn.closed:
                        raise
                    task = (chore.__doc__ or "").rstrip(".").lower()
                    logger.warning("upkeep failed to %s, and tries again in the next round: %s", task, error)
        return self._rescued

    async def _say_hello(self, conn: AsyncConnection[Any]) -> None:
        """Say that this worker is alive."""
        await conn.execute(
            "select cauce.presentar_trabajador(%s, %s, %s, %s)",
            (self._worker, self._groups, socket.gethostname(), os.getpid()),
        )

    async def _rescue(self, conn: AsyncConnection[Any]) -> None:
        """Take expired batches over."""
        row = await (await conn.execute("select cauce.rescatar(%s)", (self._settings.crash_limit,))).fetchone()
        self._rescued = int(row[0]) if row else 0
        if self._rescued:
            logger.warning("took over %s batches of workers that died or lost their lease", self._rescued)
            await conn.execute("select pg_notify('cauce', '')")

    async def _look_back(self, conn: AsyncConnection[Any]) -> None:
        """Look for retries that claims have passed by."""
        for grupo in self._groups:
            await conn.execute("select cauce.repasar_reintentos(%s, %s)", (grupo, self._application))

    async def _prune(self, conn: AsyncConnection[Any]) -> None:
        """Delete old events."""
        if self._settings.retention_days is not None:
            await prune(conn, self._settings.retention_days)

    async def _prune_refused(self, conn: AsyncConnection[Any]) -> None:
        """Delete old refused webhooks."""
        await conn.execute(
            "select cauce.purgar_rechazados(make_interval(secs => %s), %s)",
            (self._settings.quarantine_days * 86_400, PRUNE_BATCH),
        )

    async def _note_instance(self, conn: AsyncConnection[Any]) -> None:
        """Note how far the cluster has come."""
        await conn.execute("select cauce.comprobar_restauracion()")

    async def leave(self) -> None:
        """Say goodbye."""
        async with await connect(self._settings) as conn:
            await conn.execute("delete from cauce.trabajadores where trabajador = %s", (self._worker,))
