"""A publisher that stays open over a million uncommitted rows, and what it leaves when it commits: a straggler.

Claims must neither wait for it nor read its rows again and again. After its commit, its million is claimed in batches.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, Final

import psycopg
import uvloop

from benchmarks.application import CHUNK, DATA, BenchEvents, Payment
from benchmarks.engine import Engine, sample
from benchmarks.results import Bar, BenchError, Comparison, worst_but_one
from cauce import NuevoEvento, publicar_eventos

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

SMALL: Final = 10
"""Events of a claim while the publisher is open."""
LARGE: Final = 500
"""Events of a claim after its commit."""
WARM: Final = 20


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure the claims' milliseconds: normal, under the open publisher, of the straggler."""
    with server.database("cauce") as dsn:
        normal, opened, normal_large, left = uvloop.run(_measure(dsn, plan))
    bar = Bar("at most", 3)
    claims = f"{plan.rows:,} rows"
    for phase, title, floors, ours in (
        ("open", f"claim of {SMALL} under an open publisher of {claims}", normal, opened),
        ("straggler", f"claim of {LARGE} of a straggler of {claims}", normal_large, left),
    ):
        numbers = {"floor_max_ms": max(floors), "ours_max_ms": max(ours), "claims": len(ours)}
        said = "the same with no other publisher, in the same database"
        yield Comparison(f"{phase}_p50", f"{title}, median", "ms", bar, [median(ours)], [median(floors)], said, numbers)
        yield Comparison(
            f"{phase}_max", f"{title}, worst but one", "ms", bar, [worst_but_one(ours)], [worst_but_one(floors)], said,
            numbers,
        )  # fmt: skip


async def _measure(dsn: str, plan: Plan) -> tuple[list[float], list[float], list[float], list[float]]:
    async with Engine(dsn) as engine, await psycopg.AsyncConnection.connect(dsn) as publisher:
        await sample(engine, WARM, SMALL)
        normal = await sample(engine, plan.samples, SMALL)
        normal_large = await sample(engine, plan.samples, LARGE)
        between = await _publish_and_stay_open(publisher, engine, plan.rows)
        opened = await sample(engine, plan.samples, SMALL)
        await engine.drain(LARGE)
        expected = WARM * SMALL + plan.samples * (SMALL + LARGE) + between + plan.samples * SMALL
        if engine.claimed != expected:
            raise BenchError(f"{engine.claimed} events were claimed beside the open publisher, of {expected}")
        await publisher.commit()
        left, events = [], 0
        while True:
            took, size = await engine.claim(LARGE)
            if not size:
                break
            events += size
            left.append(took)
        if events != plan.rows:
            raise BenchError(f"the straggler left {plan.rows} events, {events} were claimed")
    return normal, opened, normal_large, left


async def _publish_and_stay_open(conn: psycopg.AsyncConnection[Any], engine: Engine, rows: int) -> int:
    """Publish so many events in one transaction, and a small one of another session after each call; return those."""
    between = 0
    for start in range(0, rows, CHUNK):
        numbers = range(start, min(rows, start + CHUNK))
        await publicar_eventos(conn, [NuevoEvento(BenchEvents.listo, Payment(data=DATA, seq=n)) for n in numbers])
        await engine.publish(1)
        between += 1
    return between
