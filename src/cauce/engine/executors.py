"""Executors: the asyncio tasks that run a group's handlers, up to a limit, whatever batch they come from.

While the last handlers of one batch run, free executors begin the next batch in the queue. So the concurrency stays
full while one batch is settled and another claimed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from cauce.engine.deadlines import STOPS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cauce.engine.deadlines import Executor, Watch

T = TypeVar("T")


class Load(Generic[T]):
    """The items of one batch, and the call for each."""

    __slots__ = ("call", "finished", "items", "left")

    def __init__(self, items: Sequence[T], call: Callable[[T, Executor], Awaitable[None]]) -> None:
        self.call = call
        self.items = deque(items)
        """Items that have not begun."""
        self.left = len(items)
        """How many items have not ended."""
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ended(self) -> None:
        """Note that an item has ended."""
        self.left -= 1
        if not self.left and not self.finished.done():
            self.finished.set_result(None)

    def broke(self, error: BaseException) -> None:
        """Note that an item raised, and drop those that have not begun."""
        self.items.clear()
        if not self.finished.done():
            if isinstance(error, asyncio.CancelledError):
                self.finished.cancel()
            else:
                self.finished.set_exception(error)


class Executors(Generic[T]):
    """Runs items in up to ``limit`` tasks, which are made when there is work and end when there is none.

    Args:
        watch: over the time limits of what the executors run.
        limit: how many run at once.
    """

    def __init__(self, watch: Watch, limit: int) -> None:
        self._watch, self._limit = watch, limit
        self._loads: deque[Load[T]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self._tasks)

    async def run(self, items: Sequence[T], call: Callable[[T, Executor], Awaitable[None]]) -> None:
        """Call ``call`` for each item, after the items of earlier loads; return when the last call has ended.

        Raises:
            Exception: what a call raised; the items that had not begun are dropped.
        """
        if not items:
            return
        load = Load(items, call)
        self._loads.append(load)
        self._widen()
        try:
            await load.finished
        finally:
            load.items.clear()  # if the wait was cancelled, nothing settles them

    async def close(self) -> None:
        """Cancel what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hurry(self) -> None:
        """Make one more executor, even beyond the limit."""
        task = asyncio.create_task(self._executor())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _widen(self) -> None:
        """Make one more executor within the limit. Each that finds an item makes the next before it begins."""
        if len(self._tasks) < self._limit:
            self.hurry()

    async def _executor(self) -> None:
        with self._watch.executor() as executor:
            while self._loads:
                load = self._loads[0]
                while load.items:
                    item = load.items.popleft()
                    if len(self._tasks) < self._limit:
                        self._widen()
                    try:
                        await load.call(item, executor)
                    except STOPS as stop:
                        load.broke(stop)
                        raise
                    except BaseException as error:  # noqa: BLE001 - run() raises it
                        load.broke(error)
                    else:
                        load.ended()
                if self._loads and self._loads[0] is load:
                    self._loads.popleft()
