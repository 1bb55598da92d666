"""H: claims while another session holds the horizon: a reader's old snapshot, or a writer's open transaction.

Under a held horizon no dead row can be removed. A queue slows down with every claim; the log must not, and neither must
the queue of what failed, where each failure leaves a dead row.
"""

from __future__ import annotations

import contextlib
from statistics import median
from typing import TYPE_CHECKING, Final

import psycopg
import uvloop

from benchmarks.engine import Engine, nothing
from benchmarks.results import Bar, Comparison
from cauce.database.claims import Batch, Entrega, Resultado

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

    Hold = Callable[[str], contextlib.AbstractContextManager[None]]
    Report = Callable[[Batch], list[Entrega]]

SIZE: Final = 10
"""Events of a claim."""
SLICES: Final = 10
ROUND: Final = 100
"""Claims of new events between two calls of the publisher, each of which opens a window; publishing is not timed."""
ATTEMPTS: Final = 3
"""Attempts of a failing delivery: all but the last fail."""


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
    """Measure claims of new events, then claims of which half is retries."""
    yield from compare(server, "H", "claims", plan.claims, nothing)
    yield from compare(server, "H_retry", "claims of retries, too,", plan.retry_claims, failures)


def compare(server: Server, phase: str, what: str, claims: int, report: Report) -> Iterator[Comparison]:
    """Measure the rate in ten slices under each holder, with a clean run of a tenth before and after."""
    clean = slices(server, nobody, claims // SLICES, report)
    held = {name: slices(server, hold, claims, report) for name, hold in (("reader", reader), ("writer", writer))}
    after = slices(server, nobody, claims // SLICES, report)
    rate = median([*clean, *after])
    for name, rates in held.items():
        yield Comparison(
            f"{phase}_{name}",
            f"{claims:,} {what} of {SIZE} under a held {name}: the last tenth; floor: nobody holds",
            "claims/s",
            Bar("at least", 0.9),
            [rates[-1]],
            [rate],
            "the same with nobody holding anything, before and after",
            {"slices": rates, "clean_slices": [*clean, *after]},
        )


def failures(batch: Batch) -> list[Entrega]:
    """Report that every delivery failed and is due again at once; its last attempt succeeds."""
    report: list[Entrega] = []
    for row in batch.rows:
        entrega: Entrega = {
            "evento": row.id,
            "suscriptor": row.suscriptor or "cobro",
            "resultado": Resultado.HECHA,
            "intento": row.intento,
        }
        if row.intento < ATTEMPTS:
            entrega |= {"resultado": Resultado.REINTENTAR, "error": "GatewayError: closed", "huella": 1, "espera": 0.0}
        report.append(entrega)
    return report


def slices(server: Server, hold: Hold, claims: int, report: Report) -> list[float]:
    """Return the claims a second of each tenth."""
    with server.database("cauce") as dsn, hold(dsn):
        return uvloop.run(_slices(dsn, claims, report))


async def _slices(dsn: str, claims: int, report: Report) -> list[float]:
    each = max(1, claims // SLICES)
    rates: list[float] = []
    async with Engine(dsn) as engine:
        await engine.publish(SIZE * ROUND)
        await engine.drain(SIZE, report)
        for _ in range(SLICES):
            done, seconds = 0, 0.0
            while done < each:
                await engine.publish(SIZE * min(ROUND, each - done))
                claimed, _, took = await engine.drain(SIZE, report)
                done, seconds = done + claimed, seconds + took
            rates.append(done / seconds)
    return rates
