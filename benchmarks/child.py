"""A worker in a process of its own: ours or one of the floor's.

    python -m benchmarks.child cauce|drain|listen DSN OPTIONS

Speaks JSON lines. Says ``ready`` when it has loaded everything, begins when it reads a line, stops at the next one or
at the end of its input. Tells when it called its handlers (``CLOCK_MONOTONIC``, which all processes share).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvloop

from benchmarks import application, floor
from cauce.engine.worker import Worker, relax_garbage_collection

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Options:
    """What the child reports."""

    marks: list[int] = field(default_factory=list[int])
    """After this many handler calls it reports the time and the CPU time that it has used."""
    numbers: int = 0
    """If not 0: after so many different events, report when each was seen first."""
    handler: str = "nothing"
    """Which of ``application.HANDLERS`` works."""
    seconds: float = 0.0
    """How long the handler takes."""


def tell(what: str, **more: object) -> None:
    """Write a line to the parent process."""
    sys.stdout.write(json.dumps({"what": what, **more}) + "\n")
    sys.stdout.flush()


def counter(options: Options) -> Callable[[int], None]:
    """Return the function that the handlers call; it does as little as possible."""
    if options.numbers:
        return _recorder(options.numbers)
    marks, count, pid = frozenset(options.marks), 0, os.getpid()

    def note(_: int) -> None:
        nonlocal count
        count += 1
        if count in marks:
            tell("mark", count=count, at=time.monotonic(), cpu=time.process_time(), pid=pid)

    return note


def _recorder(numbers: int) -> Callable[[int], None]:
    seen: dict[int, float] = {}

    def note(number: int) -> None:
        seen.setdefault(number, time.monotonic())
        if len(seen) == numbers:
            tell("seen", at=seen)

    return note


async def work(kind: str, dsn: str, options: Options) -> None:
    """Work until told to stop."""
    loop, stop, go = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    note = counter(options)
    worker: Worker | None = None
    if kind == "cauce":
        application.seen.tell, application.seen.seconds = note, options.seconds
        relax_garbage_collection()  # as `cauce worker` does
        worker = Worker(application.make_bus(options.handler), application.settings(dsn))

    def end() -> None:
        stop.set()
        if worker is not None:
            worker.stop()

    def read() -> None:
        sys.stdin.readline()
        loop.call_soon_threadsafe(go.set)
        sys.stdin.readline()
        loop.call_soon_threadsafe(end)

    threading.Thread(target=read, daemon=True).start()
    tell("ready")
    await go.wait()
    if worker is not None:
        await worker.run()
    elif kind == "drain":
        await floor.drain(dsn, note, stop)
    else:
        await floor.listen(dsn, note, stop)


def main() -> None:
    """Run as the command line says."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    kind, dsn, options = sys.argv[1:]
    settings: dict[str, Any] = json.loads(options)
    uvloop.run(work(kind, dsn, Options(**settings)))


if __name__ == "__main__":
    main()
