"""The time of a worker: one drain by the clock, the same under the standard library's profiler, and in SQL.

    python -m benchmarks profile

The profiler overstates the time of small functions: compare shares, not sums.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import uvloop

from benchmarks import application
from benchmarks.draining import LIMIT, publish
from benchmarks.results import BenchError, say
from cauce.engine.worker import Worker, relax_garbage_collection

if TYPE_CHECKING:
    from benchmarks.server import Server

EXTRA_SETTINGS: Final = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "all"}
"""Settings of the server, for the times of statements inside functions."""
TOP: Final = 25
STATEMENTS: Final = """
select calls, mean_exec_time, total_exec_time, regexp_replace(left(query, 200), '\\s+', ' ', 'g')
  from pg_stat_statements s join pg_database d on d.oid = s.dbid
 where d.datname = current_database() and query not like 'copy%' order by total_exec_time desc limit 14"""


def run(server: Server, events: int, *, statements: bool) -> None:
    """Print what a drain by one worker costs, function by function and statement by statement."""
    with server.database("cauce") as dsn:
        publish(dsn, "cauce", events)
        seconds, cpu = uvloop.run(_drain(dsn, events, None))
        say(f"by the clock: {events / seconds:,.0f} events/s; {cpu / events * 1e6:.1f} us of CPU in Python an event")
    with server.database("cauce") as dsn:
        publish(dsn, "cauce", events)
        if statements:
            _reset(dsn)
        profile = cProfile.Profile()
        uvloop.run(_drain(dsn, events, profile))
        _print_functions(profile, events)
        if statements:
            _print_statements(dsn, events)


async def _drain(dsn: str, events: int, profile: cProfile.Profile | None) -> tuple[float, float]:
    """Drain in this process; return seconds and CPU seconds from the first handler's call to the last one's."""
    done = asyncio.Event()
    marks: list[tuple[float, float]] = []
    count = 0

    def note(_: int) -> None:
        nonlocal count
        count += 1
        if count in (1, events):
            marks.append((time.monotonic(), time.process_time()))
            if count == events:
                done.set()

    application.seen.tell = note
    worker = Worker(application.make_bus(), application.settings(dsn))
    relax_garbage_collection()  # as `cauce worker` does
    if profile is not None:
        profile.enable()
    try:
        async with asyncio.timeout(LIMIT):
            running = asyncio.create_task(worker.run())
            await asyncio.wait([running, asyncio.create_task(done.wait())], return_when=asyncio.FIRST_COMPLETED)
            if not done.is_set():
                raise BenchError("the worker ended before it had drained its events")
            if profile is not None:
                profile.disable()
            worker.stop()
            await running
    finally:
        if profile is not None:
            profile.disable()
    (began, cpu), (ended, cpu_ended) = marks
    return ended - began, cpu_ended - cpu


def _print_functions(profile: cProfile.Profile, events: int) -> None:
    stats = pstats.Stats(profile).get_stats_profile()
    # by (file, function): the profile above merges functions of one name
    rows = sorted(pstats.Stats(profile).stats.items(), key=lambda item: -item[1][2])  # type: ignore[attr-defined]  # typeshed does not know it
    say(f"under the profiler: {stats.total_tt / events * 1e6:.1f} us an event; the {TOP} dearest functions:")
    say(f"{'us/event':>9} {'with callees':>12} {'calls/event':>12}  function")
    for (file, line, name), (_, calls, own, cumulative, _) in rows[:TOP]:
        where = f"{Path(file).parent.name}/{Path(file).name}:{line} {name}" if line else name
        say(f"{own / events * 1e6:>9.2f} {cumulative / events * 1e6:>12.2f} {calls / events:>12.2f}  {where}")


def _reset(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create extension if not exists pg_stat_statements")
        conn.execute("select pg_stat_statements_reset()")


def _print_statements(dsn: str, events: int) -> None:
    say(f"{'us/event':>9} {'mean ms':>9} {'calls':>7}  statement (those inside functions too)")
    with psycopg.connect(dsn, autocommit=True) as conn:
        for calls, mean, total, query in conn.execute(STATEMENTS):
            say(f"{total * 1e3 / events:>9.2f} {mean:>9.3f} {calls:>7}  {query[:110]}")
