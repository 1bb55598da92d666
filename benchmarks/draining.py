"""D1, D2, E, G: how fast ready events are drained, and how much WAL that writes.

A drain is timed from the first call of a handler to the first query that finds no event left to do.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
import uvloop

from benchmarks import application, floor
from benchmarks.child import Options
from benchmarks.processes import Crew, crew
from benchmarks.results import Bar, BenchError, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server, Side

LIMIT: Final = 300.0
"""Seconds a drain may take."""
STEPS: Final = 50
"""How often a worker reports its progress. The database is not queried before the last handlers are called: a query
reads the whole table, and one that ends late would be counted as the worker's time."""
LOOK: Final = 0.005
"""Seconds between two queries from then on."""
PAYLOAD_BYTES: Final = 231, 4_096
"""G: sizes of the payload as compact JSON. The larger does not fit into the row and is stored out of line."""
WAL_BARS: Final = 200, 400
"""G: bytes."""


@dataclass(frozen=True, slots=True)
class Drained:
    """A drain's numbers, per event."""

    rate: float
    wal: float
    """Bytes."""
    cpu: float | None
    """Microseconds of the worker process; None: there were several."""


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure the drains by one worker process, by two, and with three recipients of each event."""
    phases = [
        ("D1", "drain, one worker process", plan.events, 1, False, 1.2),
        ("D2", "drain, two worker processes", plan.events, 2, False, 1.2),
        ("E", "drain, three recipients of each event; floor: three jobs", plan.fan, 1, True, 2.5),
    ]
    for phase, title, events, workers, fan, limit in phases:
        ours: list[Drained] = []
        floors: list[Drained] = []
        for _ in range(plan.repetitions):
            ours.append(drain(server, "cauce", events, workers=workers, fan=fan))
            floors.append(drain(server, "floor", events, workers=workers, fan=fan))
        yield Comparison(
            phase,
            title,
            "events/s",
            Bar("at least", limit),
            [sample.rate for sample in ours],
            [sample.rate for sample in floors],
            "asyncpg, SKIP LOCKED, batches of 500, uvloop",
            {"worker_cpu_us_per_event": {"ours": [s.cpu for s in ours], "floor": [s.cpu for s in floors]}},
        )


def run_wal(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure the WAL that a drain writes.

    Each database begins with a checkpoint, and none follows until the drain is over: every page that the drain touches
    was new after the checkpoint, so that no full-page image is counted, with full_page_writes on.
    """
    for size, limit in zip(PAYLOAD_BYTES, WAL_BARS, strict=True):
        padding = pad_to(size)
        ours: list[float] = []
        floors: list[float] = []
        for _ in range(plan.repetitions):
            ours.append(drain(server, "cauce", plan.wal_events, padding=padding, vacuum=False).wal)
            floors.append(drain(server, "floor", plan.wal_events, padding=padding, vacuum=False).wal)
        yield Comparison(
            f"G_{size}",
            f"WAL to settle an event with a payload of {size} B",
            "B/event",
            Bar("at most", limit, "ours"),
            ours,
            floors,
            "asyncpg, SKIP LOCKED, batches of 500",
        )


def pad_to(size: int) -> str:
    """Return the padding that makes a payload about so many bytes long; compression does not shrink it."""
    numbers = random.Random(20261124)  # noqa: S311 - noise, no secret
    bare = len(application.Payment(data=application.DATA, seq=10_000).model_dump_json())
    return "".join(numbers.choices("0123456789abcdef", k=max(0, size - bare)))


def drain(  # noqa: PLR0913 - what a drain is, by name
    server: Server,
    side: Side,
    events: int,
    *,
    workers: int = 1,
    fan: bool = False,
    padding: str = "",
    vacuum: bool = True,
    handler: str = "nothing",
    seconds: float = 0.0,
) -> Drained:
    """Publish events into a fresh database, then drain them."""
    calls = events * floor.FAN if fan else events
    with server.database(side) as dsn:
        publish(dsn, side, events, fan=fan, padding=padding)
        step = max(1, calls // STEPS)
        options = Options(marks=[1, *range(step, calls, step), calls], handler=handler, seconds=seconds)
        with (
            psycopg.connect(dsn, autocommit=True) as conn,
            crew("cauce" if side == "cauce" else "drain", dsn, options, workers) as workmen,
        ):
            pending = application.PENDING if side == "cauce" else floor.PENDING
            if vacuum:
                conn.execute("vacuum analyze")
            if number(conn, pending) != calls:
                raise BenchError(f"{side}: {number(conn, pending)} deliveries wait instead of {calls}")
            wal = number(conn, "select pg_current_wal_insert_lsn() - '0/0'")
            workmen.go()
            first, last = until_called(workmen, calls - workers * step)
            ended = until_done(conn, pending, workmen)
            wal = number(conn, "select pg_current_wal_insert_lsn() - '0/0'") - wal
            if workers == 1 and last["count"] < calls:
                last = until_called(workmen, calls)[1]
    cpu = None if workers > 1 else (last["cpu"] - first["cpu"]) / events * 1e6
    return Drained(events / (ended - first["at"]), wal / events, cpu)


def publish(dsn: str, side: Side, events: int, *, fan: bool = False, padding: str = "") -> None:
    """Publish events in bulk, so that they wait."""
    if side == "cauce":
        publisher = application.Publisher(dsn)
        asyncio.run(publisher.bulk(range(events), fan=fan, padding=padding))
        publisher.close()
    else:
        uvloop.run(_copy(dsn, events, fan=fan, padding=padding))


async def _copy(dsn: str, events: int, *, fan: bool, padding: str) -> None:
    publisher = await floor.Publisher.open(dsn)
    await publisher.bulk(range(events), fan=fan, padding=padding)
    await publisher.close()


def until_called(workers: Crew, calls: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Wait until the workers' handlers have been called so often in all; return their first mark and their last.

    Raises:
        BenchError: it takes longer than ``LIMIT``, or a worker has ended.
    """
    first = last = workers.expect("mark", LIMIT)
    counts = {first["pid"]: first["count"]}
    while sum(counts.values()) < calls:
        last = workers.expect("mark", LIMIT)
        counts[last["pid"]] = last["count"]
    return first, last


def until_done(conn: psycopg.Connection[Any], pending: LiteralString, workers: Crew | None = None) -> float:
    """Look until nothing is left; return when that was.

    Raises:
        BenchError: it takes longer than ``LIMIT``, or a worker has ended.
    """
    deadline = monotonic() + LIMIT
    while left := number(conn, pending):
        if workers is not None:
            workers.check()
        if monotonic() > deadline:
            raise BenchError(f"{left} are still left after {LIMIT:g} s: {pending}")
        sleep(LOOK)  # between looks: an event to await would cost the workers a notification each
    return monotonic()


def number(conn: psycopg.Connection[Any], statement: LiteralString) -> int:
    """Return the one number that a statement asks for."""
    row = conn.execute(statement).fetchone()
    if row is None:
        raise BenchError(f"no row: {statement}")
    return int(row[0])
