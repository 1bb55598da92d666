"""idle: the transactions, the WAL and the connections of a worker with nothing to do."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks import application
from benchmarks.child import Options
from benchmarks.draining import until_called, until_done
from benchmarks.processes import crew
from benchmarks.results import Bar, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

EVENTS: Final = 2_000
"""Events that the worker handles before it is measured."""
GROUPS: Final = 1
"""The application has one group, so it is charged with all that the worker does."""
# The worker's sessions report what they have done with a delay of a second, of ten while they do nothing else.
LOOK: Final[LiteralString] = """
    select xact_commit + xact_rollback, pg_current_wal_insert_lsn() - '0/0',
           (select count(*) from pg_stat_activity a where a.datname = d.datname)
      from pg_stat_database d where d.datname = %s"""


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure transactions a second and group, bytes of WAL, and connections, of a worker at rest."""
    samples = [measure(server, plan) for _ in range(plan.repetitions)]
    rates, wal, connections = ([float(sample[n]) for sample in samples] for n in range(3))
    span = f"in {plan.rest_seconds:g} s"
    for phase, title, unit, limit, ours in (
        ("idle_tx", f"an idle worker's transactions a second and group, {span}", "tx/s", 1.2, rates),
        ("idle_wal", f"WAL that is written while a worker idles, {span}", "B", 0.0, wal),
        ("idle_conns", "connections that a worker keeps at rest", "connections", 3.0, connections),
    ):
        floor = [limit or 1.0] * len(ours)
        yield Comparison(phase, title, unit, Bar("at most", limit, "ours"), ours, floor, "the bar, or 1 where it is 0")


def measure(server: Server, plan: Plan) -> tuple[float, int, int]:
    """Let a worker work and come to rest; return its transactions a second and group, the WAL and its connections."""
    with server.database("cauce") as dsn:
        publisher = application.Publisher(dsn)
        asyncio.run(publisher.bulk(range(EVENTS)))
        publisher.close()
        with (
            psycopg.connect(server.url, autocommit=True) as conn,
            without_autovacuum(conn),
            crew("cauce", dsn, Options(marks=[1, EVENTS])) as workers,
        ):
            with psycopg.connect(dsn, autocommit=True) as inside:
                workers.go()
                until_called(workers, EVENTS)
                until_done(inside, application.PENDING, workers)
                inside.execute("vacuum analyze")
            conn.execute("checkpoint")
            sleep(plan.come_to_rest_seconds)  # within 15 of them the server notes once more what runs, in 56 bytes
            name = conninfo_to_dict(dsn)["dbname"]
            began, before = monotonic(), look(conn, name)
            sleep(plan.rest_seconds)
            after, seconds = look(conn, name), monotonic() - began
            workers.check()
    return (after[0] - before[0]) / seconds / GROUPS, after[1] - before[1], after[2]


@contextlib.contextmanager
def without_autovacuum(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Keep autovacuum off, server-wide: it writes, and comes whenever it likes."""
    try:
        conn.execute("alter system set autovacuum = off")
        conn.execute("select pg_reload_conf()")
        yield
    finally:
        conn.execute("alter system reset autovacuum")
        conn.execute("select pg_reload_conf()")


def look(conn: psycopg.Connection[Any], name: object) -> tuple[int, int, int]:
    """Return the transactions of that database so far, the WAL of the server, and the connections, from another one."""
    row = conn.execute(LOOK, (name,)).fetchone()
    if row is None:
        raise RuntimeError(f"the database {name} is gone")
    transactions, wal, connections = row
    return int(transactions), int(wal), int(connections)
