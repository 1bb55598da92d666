"""handlers: how many waiting handlers a worker runs per second, beside what its concurrency allows."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvloop

from benchmarks import application
from benchmarks.draining import drain
from benchmarks.results import Bar, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server


@dataclass(frozen=True, slots=True)
class Kind:
    """A handler that waits."""

    handler: str
    milliseconds: int

    @property
    def seconds(self) -> float:
        """How long the handler takes."""
        return self.milliseconds / 1e3


KINDS: Final = Kind("async", 1), Kind("async", 10), Kind("sync", 50)
BAR: Final = 0.9
"""The share of the rate of as many tasks, or threads, that take their work from a list in memory."""


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Drain events whose handlers take 1 and 10 ms in the event loop, and 50 ms in a thread."""
    settings = application.settings(server.url)
    at_once = settings.slots * settings.concurrency
    for kind in KINDS:
        events = max(1, int(plan.waiting_seconds * at_once / kind.seconds))
        ours: list[float] = []
        floors: list[float] = []
        for _ in range(plan.repetitions):
            ours.append(drain(server, "cauce", events, handler=kind.handler, seconds=kind.seconds).rate)
            floors.append(uvloop.run(bare(kind, events, at_once)))
        yield Comparison(
            f"W_{kind.handler}_{kind.milliseconds}",
            f"handlers that take {kind.milliseconds} ms, {kind.handler}; {at_once} at once",
            "events/s",
            Bar("at least", BAR),
            ours,
            floors,
            "as many tasks or threads, on the same loop, drawing numbers from a range",
            {"by_arithmetic": at_once / kind.seconds},
        )


async def bare(kind: Kind, events: int, at_once: int) -> float:
    """Return how many such waits per second the loop, or the threads, reach with nothing else to do."""
    numbers = iter(range(events))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(at_once) as threads:

        async def executor() -> None:
            for _ in numbers:
                if kind.handler == "sync":
                    await loop.run_in_executor(threads, time.sleep, kind.seconds)
                else:
                    await asyncio.sleep(kind.seconds)  # the handler's work

        began = time.monotonic()
        await asyncio.gather(*(executor() for _ in range(at_once)))
        return events / (time.monotonic() - began)
