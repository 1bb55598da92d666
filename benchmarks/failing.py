"""Deliveries that all fail: how many per second one worker process handles, and how many dead rows ``entregas`` gets.

The rate is measured while new events are left, so that the worker is never idle: half of each claim are then due
retries. The application's own retry policy is on, and every failure is recorded with its cause. The rows are counted
with events that are dead after their second attempt, once all are dead: a delivery that a worker gives back when it
stops is not a failure.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import psycopg

from benchmarks import application
from benchmarks.child import Options
from benchmarks.draining import LIMIT, until_done
from benchmarks.processes import crew
from benchmarks.results import Bar, BenchError, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

RATE: Final = 8_000.0
"""The fewest failing deliveries per second and process."""
WAITING: Final = "select count(*) from cauce.eventos where estado <> 'error'"
OTHERS: Final = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
"""Sessions that may not have reported yet what they wrote."""
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
        with server.database("cauce") as dsn:
            floors.append(handled(dsn, application.BenchEvents.listo, plan.failures)[0])
        with server.database("cauce") as dsn:
            dead.append(dead_rows(dsn, plan.lost))
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
    publish(dsn, tipo, events)
    low, high = max(1, events // 10), events
    with crew("cauce", dsn, Options(marks=[low, high])) as worker:
        worker.go()
        first, last = worker.expect("mark", LIMIT), worker.expect("mark", LIMIT)
    count = high - low
    return count / (last["at"] - first["at"]), (last["cpu"] - first["cpu"]) / count * 1e6


def dead_rows(dsn: str, events: int) -> float:
    """Let events fail twice; return the rows of ``entregas`` that were rewritten or deleted for each failed retry."""
    publish(dsn, application.BenchEvents.perdido, events)
    with psycopg.connect(dsn, autocommit=True) as conn:
        with crew("cauce", dsn, Options(marks=[2 * events])) as worker:
            worker.go()
            worker.expect("mark", LIMIT)
            until_done(conn, WAITING, worker)
        until_done(conn, OTHERS)
        row = conn.execute(WRITES).fetchone()
    written, failed = row or (0, 0)
    if failed != events:
        raise BenchError(f"{failed} retries have failed instead of {events}")
    return float(written / failed)


def publish(dsn: str, tipo: application.Kind, events: int) -> None:
    """Publish events in bulk, so that they wait."""
    publisher = application.Publisher(dsn)
    asyncio.run(publisher.many(tipo, range(events)))
    publisher.close()
