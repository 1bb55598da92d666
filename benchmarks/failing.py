"""Deliveries that all fail: how many a second one worker process gets through, and what they leave in ``entregas``.

Measured while new events are left, so that the worker is never idle: half of what it then claims are retries that have
become due. The application's own retry policy is on, and every failure is recorded with its cause.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import psycopg

from benchmarks import application
from benchmarks.child import Options
from benchmarks.draining import LIMIT
from benchmarks.processes import crew
from benchmarks.results import Bar, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

RATE: Final = 8_000.0
"""Failing deliveries a second and process, at least."""
WRITES: Final = """
    select s.n_tup_upd + s.n_tup_del, (select count(*) from cauce.fallos where intento > 1)
      from pg_stat_user_tables s where s.relid = 'cauce.entregas'::regclass"""


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure failing deliveries in pairs with the same ones that succeed, and the rows they leave dead."""
    ours: list[float] = []
    floors: list[float] = []
    cpu: list[float] = []
    dead: list[float] = []
    for _ in range(plan.repetitions):
        with server.database("cauce") as dsn:
            rate, spent = handled(dsn, application.BenchEvents.fallido, plan.failures)
            ours.append(rate)
            cpu.append(spent)
            dead.append(dead_rows(dsn))
        with server.database("cauce") as dsn:
            floors.append(handled(dsn, application.BenchEvents.listo, plan.failures)[0])
    yield Comparison(
        "failing",
        "deliveries that all fail, one worker process; floor: none fails",
        "deliveries/s",
        Bar("at least", RATE, "ours"),
        ours,
        floors,
        "the same events with a handler that does nothing",
        {"worker_cpu_us_per_delivery": cpu},
    )
    yield Comparison(
        "failing_dead",
        "rows of entregas that a failed retry leaves dead",
        "rows",
        Bar("at most", 1.0, "ours"),
        dead,
        [1.0] * len(dead),
        "the bar",
    )


def handled(dsn: str, tipo: application.Kind, events: int) -> tuple[float, float]:
    """Let a worker handle events; return deliveries a second and microseconds of its CPU for each."""
    publisher = application.Publisher(dsn)
    asyncio.run(publisher.many(tipo, range(events)))
    publisher.close()
    low, high = max(1, events // 10), events
    with crew("cauce", dsn, Options(marks=[low, high])) as worker:
        worker.go()
        first, last = worker.expect("mark", LIMIT), worker.expect("mark", LIMIT)
    count = high - low
    return count / (last["at"] - first["at"]), (last["cpu"] - first["cpu"]) / count * 1e6


def dead_rows(dsn: str) -> float:
    """Return the rows of ``entregas`` that were rewritten or deleted, for each retry that failed."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(WRITES).fetchone()
    written, failed = row or (0, 0)
    return float(written / max(failed, 1))
