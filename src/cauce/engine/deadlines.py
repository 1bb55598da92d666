"""Timeouts of handlers: one task checks all running handlers every tenth of a second, instead of a timer for each."""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType
    from typing import Self

STOPS: Final = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
"""What ends a task. Whatever else the application's code raises, ``SystemExit`` and panics included, is its failure."""
TICK = 0.1
"""Seconds between looks, so about how much later than its limit a handler is stopped."""


class GivenBack(Exception):  # noqa: N818 - a verdict, raised
    """The worker stops and the handler's grace is over: the delivery goes back."""


class Executor:
    """A task that runs one handler after another."""

    __slots__ = ("deadline", "expired", "seconds", "stopped", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task, self.deadline, self.expired, self.stopped = task, inf, False, False
        self.seconds = inf

    def within(self, seconds: float) -> Self:
        """Return a context in which a handler may run for so many seconds.

        Leaving it raises ``TimeoutError`` if the handler was cancelled because it took longer, and ``GivenBack`` if the
        worker stopped it. It is a method and no generator: every handler runs in one.
        """
        self.seconds, self.deadline = seconds, monotonic() + seconds
        return self

    def __enter__(self) -> None:
        """Begin; the clock runs since ``within``."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the clock, and say why the handler was cancelled if it was."""
        self.deadline = inf
        expired, stopped = self.expired, self.stopped
        if expired or stopped:
            self.expired = self.stopped = False
            self.task.uncancel()
        if not isinstance(error, asyncio.CancelledError):
            return
        if expired:
            raise TimeoutError(f"took longer than {self.seconds:g} s") from None
        if stopped:
            raise GivenBack from None
        if not self.task.cancelling():
            raise RuntimeError("the handler was cancelled from within") from None


class Watch:
    """Stops handlers that run longer than they may, and all of them when the worker's grace is over."""

    def __init__(self) -> None:
        self._executors: set[Executor] = set()

    @contextlib.contextmanager
    def executor(self) -> Generator[Executor]:
        """Watch the current task."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("handlers run in a task of asyncio")
        executor = Executor(task)
        self._executors.add(executor)
        try:
            yield executor
        finally:
            self._executors.discard(executor)

    async def run(self) -> None:
        """Check the running handlers until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            now = monotonic()
            for executor in self._executors:
                if executor.deadline < now and not (executor.expired or executor.stopped):
                    executor.expired = True
                    executor.task.cancel()

    def stop(self) -> None:
        """Cancel every handler that runs now; their deliveries go back."""
        for executor in self._executors:
            if executor.deadline < inf and not (executor.expired or executor.stopped):
                executor.stopped = True
                executor.task.cancel()
