"""F: how long after a commit an idle worker's handler begins."""

from __future__ import annotations

import asyncio
import math
from statistics import median
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from benchmarks import application, floor
from benchmarks.child import Options
from benchmarks.processes import crew
from benchmarks.results import Bar, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server, Side

APART: Final = 0.05
"""Seconds between two events: long enough for the worker to sleep again."""
LIMIT: Final = 60.0
"""Seconds until the last event must have been seen."""


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure median and 99th percentile, in milliseconds."""
    ours: list[list[float]] = []
    floors: list[list[float]] = []
    for _ in range(plan.repetitions):
        ours.append(measure(server, "cauce", plan.bells, plan.idle_seconds))
        floors.append(measure(server, "floor", plan.bells, plan.idle_seconds))
    for phase, title, share, limit in (("F_p50", "median", 0.5, 2), ("F_p99", "99th percentile", 0.99, 3)):
        yield Comparison(
            phase,
            f"commit to handler, idle worker, {title}",
            "ms",
            Bar("at most", limit),
            [percentile(sample, share) for sample in ours],
            [percentile(sample, share) for sample in floors],
            "psycopg, LISTEN, SKIP LOCKED",
        )


def percentile(values: list[float], share: float) -> float:
    """Return the value that such a share does not exceed."""
    return median(values) if share == 0.5 else sorted(values)[math.ceil(share * len(values)) - 1]  # noqa: PLR2004 - half


def measure(server: Server, side: Side, events: int, idle: float) -> list[float]:
    """Return the milliseconds from the return of publish to the handler's call, event by event."""
    with server.database(side) as dsn:
        publisher = application.Publisher(dsn) if side == "cauce" else floor.RingingPublisher(dsn)
        with crew("cauce" if side == "cauce" else "listen", dsn, Options(numbers=events + 1)) as workers:
            workers.go()
            sleep(idle)  # the worker is to be idle when the first event comes
            committed = asyncio.run(_ring(publisher, events))
            seen: dict[str, Any] = workers.expect("seen", LIMIT)["at"]
        publisher.close()
    return [(seen[str(number)] - at) * 1e3 for number, at in committed.items() if number]


async def _ring(publisher: application.Publisher | floor.RingingPublisher, events: int) -> dict[int, float]:
    """Publish event 0 to warm up, and the others on time."""
    committed: dict[int, float] = {}
    began = monotonic()
    for number in range(events + 1):
        sleep(max(0.0, began + number * APART - monotonic()))  # noqa: ASYNC251 - nothing else runs in this loop
        await publisher.publish((number,))
        committed[number] = monotonic()
    return committed
