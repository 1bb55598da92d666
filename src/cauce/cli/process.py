"""A process that serves until told to stop: signals, the order of stopping, leaving in spite of stuck threads.

The first SIGTERM or SIGINT stops gracefully, the second at once. The handlers are Python's own, not the event loop's:
they run even while a handler of the application blocks the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

if TYPE_CHECKING:
    from types import FrameType

logger = logging.getLogger("cauce.cli")

IDLE_THREAD_SECONDS: Final = 1.0
"""Seconds that idle threads get to end, before what still runs counts as stuck."""


class Part(Protocol):
    """Something that runs until stopped: a worker, an HTTP server."""

    async def run(self) -> None:
        """Run until stopped."""
        ...

    def stop(self) -> None:
        """Stop soon."""
        ...


def configure_logging(level: str) -> None:
    """Log to stderr: time, level, logger, message. Only the command line configures logging; the library never does."""
    if os.environ.get("CAUCE_DEBUG"):
        level = "debug"
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def serve(*parts: Part) -> None:
    """Run all parts in one event loop until a signal, or until one of them ends; then stop the others.

    Raises:
        Exception: what a part raised.
    """
    asyncio.run(_serve(parts))


async def _serve(parts: tuple[Part, ...]) -> None:
    loop = asyncio.get_running_loop()
    told: list[int] = []

    def stop() -> None:
        for part in parts:
            part.stop()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        if len(told) > 1:
            os.write(2, f"cauce: {signal.Signals(number).name} again: stopped at once\n".encode())
            os._exit(128 + number)
        loop.call_soon_threadsafe(logger.info, "%s: stopping", signal.Signals(number).name)
        loop.call_soon_threadsafe(stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop()
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


def leave(code: int) -> NoReturn:
    """End the process; without waiting for threads that are stuck in a handler, for no thread can be stopped."""
    until = monotonic() + IDLE_THREAD_SECONDS
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0.0, until - monotonic()))
    stuck = [thread.name for thread in others if thread.is_alive()]
    if not stuck:
        sys.exit(code)
    logger.warning("left while threads were stuck in a handler: %s", ", ".join(stuck))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
