"""H: claims while somebody holds the horizon: a reader's old snapshot, a writer's open transaction.

Under a held horizon no dead row can be removed. A queue slows down with every claim; the log must not.
"""

from __future__ import annotations

import contextlib
from statistics import median
from typing import TYPE_CHECKING, Final

import psycopg
import uvloop

from benchmarks.engine import Engine
from benchmarks.results import Bar, Comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

SIZE: Final = 10
"""Events of a claim."""
SLICES: Final = 10
ROUND: Final = 100
"""Claims between two calls of the publisher, which each open a new window; publishing is not timed."""


@contextlib.contextmanager
def nobody(_: str) -> Iterator[None]:
    """Hold nothing."""
    yield


@contextlib.contextmanager
def reader(dsn: str) -> Iterator[None]:
    """Hold a snapshot."""
    with psycopg.connect(dsn) as conn:
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select count(*) from reservas")
        yield


@contextlib.contextmanager
def writer(dsn: str) -> Iterator[None]:
    """Hold a transaction that has written."""
    with psycopg.connect(dsn) as conn:
        conn.execute("insert into reservas (referencia, importe) values ('abierta', 1)")
        yield
        conn.rollback()


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure the rate in ten slices under each holder, with a clean run of a tenth before and after."""
    clean = slices(server, nobody, plan.claims // SLICES)
    held = {name: slices(server, hold, plan.claims) for name, hold in (("reader", reader), ("writer", writer))}
    after = slices(server, nobody, plan.claims // SLICES)
    rate = median([*clean, *after])
    for name, rates in held.items():
        yield Comparison(
            f"H_{name}",
            f"{plan.claims:,} claims of {SIZE} under a held {name}: the last tenth; floor: nobody holds",
            "claims/s",
            Bar("at least", 0.9),
            [rates[-1]],
            [rate],
            "the same with nobody holding anything, before and after",
            {"slices": rates, "clean_slices": [*clean, *after]},
        )


def slices(server: Server, hold: Callable[[str], contextlib.AbstractContextManager[None]], claims: int) -> list[float]:
    """Return the claims a second of each tenth."""
    with server.database("cauce") as dsn, hold(dsn):
        return uvloop.run(_slices(dsn, claims))


async def _slices(dsn: str, claims: int) -> list[float]:
    each = max(1, claims // SLICES)
    rates: list[float] = []
    async with Engine(dsn) as engine:
        await engine.publish(SIZE * ROUND)
        await engine.drain(SIZE)
        for _ in range(SLICES):
            done, seconds = 0, 0.0
            while done < each:
                await engine.publish(SIZE * min(ROUND, each - done))
                claimed, _, took = await engine.drain(SIZE)
                done, seconds = done + claimed, seconds + took
            rates.append(done / seconds)
    return rates
