"""A million processed events kept, a million waiting, on a table that nobody ever analyzed: the plans must not flip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg

from benchmarks import application
from benchmarks.child import Options
from benchmarks.draining import LIMIT, STEPS, publish, until_called, until_done
from benchmarks.processes import crew
from benchmarks.results import Bar, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

WORKERS: Final = 2
"""The processes that process the million events that are kept."""


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure a worker's rate on an empty table, behind a million that is kept, and in front of a million more."""
    titles = {"kept": f"drain with {plan.rows:,} events kept", "waiting": f"drain with {plan.rows:,} more waiting"}
    ours: dict[str, list[float]] = {phase: [] for phase in titles}
    floors: dict[str, list[float]] = {phase: [] for phase in titles}
    with server.database("cauce") as dsn:
        never_analyze(dsn)
        fill_and_drain(dsn, plan.rows)
        for phase, waiting in (("kept", 0), ("waiting", plan.rows)):
            publish(dsn, "cauce", waiting)
            for _ in range(plan.repetitions):
                publish(dsn, "cauce", plan.events)
                ours[phase].append(handled(dsn, plan.events))
                floors[phase].append(on_an_empty_table(server, plan.events))
    for phase, title in titles.items():
        yield Comparison(
            phase,
            f"{title}, never analyzed",
            "events/s",
            Bar("at least", 0.9),
            ours[phase],
            floors[phase],
            "the same on an empty table",
        )


def never_analyze(dsn: str) -> None:
    """Keep autovacuum, which also analyzes, away from the log."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("alter table cauce.eventos set (autovacuum_enabled = false)")


def on_an_empty_table(server: Server, events: int) -> float:
    """Return the rate in a fresh database."""
    with server.database("cauce") as dsn:
        never_analyze(dsn)
        publish(dsn, "cauce", events)
        return handled(dsn, events)


def handled(dsn: str, events: int) -> float:
    """Return the events a second that one worker hands to its handlers, between a tenth and nine tenths of them."""
    low, high = max(1, events // 10), events - events // 10
    with crew("cauce", dsn, Options(marks=[low, high])) as worker:
        worker.go()
        first, last = worker.expect("mark", LIMIT), worker.expect("mark", LIMIT)
    rate: float = (high - low) / (last["at"] - first["at"])
    return rate


def fill_and_drain(dsn: str, events: int) -> None:
    """Publish so many events and let workers process them."""
    publish(dsn, "cauce", events)
    step = max(1, events // STEPS)
    options = Options(marks=list(range(step, events, step)))
    with psycopg.connect(dsn, autocommit=True) as conn, crew("cauce", dsn, options, WORKERS) as workers:
        workers.go()
        until_called(workers, events - WORKERS * step)
        until_done(conn, application.PENDING, workers)
