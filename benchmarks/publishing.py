"""A, B, C: how fast events are published, alone, in a business transaction, in bulk."""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

import uvloop

from benchmarks import application, floor
from benchmarks.results import Bar, Comparison

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

    Work = Callable[[application.Publisher | floor.Publisher, range], Awaitable[None]]

WARM: Final = 50
"""Warm-up events: they open the connection, fill caches and prepare statements."""


async def alone(publisher: application.Publisher | floor.Publisher, numbers: range) -> None:
    """One event a transaction."""
    await publisher.publish(numbers)


async def with_business(publisher: application.Publisher | floor.Publisher, numbers: range) -> None:
    """A business INSERT and an event a transaction."""
    await publisher.publish_with_business(numbers)


async def bulk(publisher: application.Publisher | floor.Publisher, numbers: range) -> None:
    """A thousand events a call."""
    await publisher.bulk(numbers)


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure the three."""
    phases: list[tuple[str, str, Work, int, str, float]] = [
        ("A", "publish one event a transaction, 1 client", alone, plan.publishes, "events/s", 0.9),
        ("B", "business INSERT and publish, one transaction", with_business, plan.business, "tx/s", 0.9),
        ("C", "bulk publish, 1000 a call; floor: COPY", bulk, plan.events, "events/s", 1.3),
    ]
    for phase, title, work, events, unit, limit in phases:
        samples = [(ours(server, work, events), floors(server, work, events)) for _ in range(plan.repetitions)]
        yield Comparison(
            phase,
            title,
            unit,
            Bar("at least", limit),
            [rate for rate, _ in samples],
            [rate for _, rate in samples],
            "asyncpg, jobs table, no wake-up",
        )


def ours(server: Server, work: Work, events: int) -> float:
    """Return our rate, with a synchronous psycopg connection."""
    with server.database("cauce") as dsn:
        publisher = application.Publisher(dsn)
        try:
            return asyncio.run(_rate(partial(work, publisher), events))
        finally:
            publisher.close()


def floors(server: Server, work: Work, events: int) -> float:
    """Return the floor's rate: asyncpg on uvloop."""

    async def measure(dsn: str) -> float:
        publisher = await floor.Publisher.open(dsn)
        try:
            return await _rate(partial(work, publisher), events)
        finally:
            await publisher.close()

    with server.database("floor") as dsn:
        return uvloop.run(measure(dsn))


async def _rate(work: Callable[[range], Awaitable[None]], events: int) -> float:
    await work(range(WARM))
    began = perf_counter()
    await work(range(events))
    return events / (perf_counter() - began)
