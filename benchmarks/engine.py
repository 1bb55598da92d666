"""Timed claims and settlements without a worker, for the phases that measure the engine alone."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg

from benchmarks.application import Publisher
from benchmarks.results import BenchError
from cauce.catalog import PRINCIPAL
from cauce.database import claims
from cauce.database.claims import Batch, Claim, Entrega

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType


LEASE: Final = 300.0
"""Seconds. Nothing renews these leases, and none must expire."""


def nothing(_: Batch) -> list[Entrega]:
    """Report that all deliveries succeeded."""
    return []


class Engine:
    """A publisher and a claimer on one database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._publisher = Publisher(dsn)
        self._published = 0
        self.claimed = 0
        """Events claimed so far."""
        self._conn: psycopg.AsyncConnection[Any] | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        self._conn = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, prepare_threshold=0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._publisher.close()
        if self._conn is not None:
            await self._conn.close()

    async def publish(self, events: int) -> None:
        """Publish so many events in one call, which is one transaction."""
        await self._publisher.bulk(range(self._published, self._published + events))
        self._published += events

    async def claim(self, size: int) -> tuple[float, int]:
        """Claim and settle once; return the claim's milliseconds and how many events it had."""
        conn = self._connected
        began = perf_counter()
        batch = await claims.claim(conn, self._wanted(size))
        took = perf_counter() - began
        if batch is None:
            return took * 1e3, 0
        await claims.settle(conn, batch, [])
        self.claimed += len(batch.rows)
        return took * 1e3, len(batch.rows)

    async def drain(self, size: int, report: Callable[[Batch], Sequence[Entrega]] = nothing) -> tuple[int, int, float]:
        """Claim and settle until nothing is left, as a worker does; return claims, deliveries and seconds.

        ``report`` makes the report of a batch; by default all deliveries succeeded.
        """
        conn, wanted = self._connected, self._wanted(size)
        asked = events = 0
        began = perf_counter()
        batch = await claims.claim(conn, wanted)
        while batch is not None:
            asked, events = asked + 1, events + len(batch.rows)
            unknown, batch = await claims.settle_and_claim(conn, batch, report(batch), wanted)
            if unknown is None:
                raise BenchError("a lease of 300 s was lost: nothing else may work on this database")
        self.claimed += events
        return asked, events, perf_counter() - began

    @property
    def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._conn is None:
            raise BenchError("the engine is not connected: use it in `async with`")
        return self._conn

    @staticmethod
    def _wanted(size: int) -> Claim:
        return Claim(PRINCIPAL, size, "banco", LEASE)


async def sample(engine: Engine, samples: int, size: int) -> list[float]:
    """Publish ``size`` events and claim as many, again and again; return the claims' milliseconds."""
    times: list[float] = []
    for _ in range(samples):
        await engine.publish(size)
        times.append((await engine.claim(size))[0])
        await asyncio.sleep(0)
    return times
