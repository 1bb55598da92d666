"""Executors: so many at once, whatever batch it is for; each batch is told when its own have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cauce.engine.deadlines import Executor, Watch
from cauce.engine.executors import Executors

LIMIT = 3


class Hall:
    """Executors, and calls that end when they are let go."""

    def __init__(self) -> None:
        self.executors: Executors[int] = Executors(Watch(), LIMIT)
        self.begun: list[int] = []
        self._gates: dict[int, asyncio.Future[None]] = {}

    async def call(self, item: int, _: Executor) -> None:
        """Begin, and wait."""
        self.begun.append(item)
        self._gates[item] = asyncio.get_running_loop().create_future()
        await self._gates[item]

    def bring(self, *items: int) -> asyncio.Task[None]:
        """Bring a batch."""
        return asyncio.create_task(self.executors.run(items, self.call))

    async def let_go(self, *items: int) -> None:
        """End calls, and let what follows happen."""
        for item in items:
            self._gates[item].set_result(None)
        await settle()

    async def fail(self, item: int, error: BaseException) -> None:
        """End a call with an error."""
        self._gates[item].set_exception(error)
        await settle()


async def settle() -> None:
    """Let the loop do all that can be done now."""
    for _ in range(20):
        await asyncio.sleep(0)


def play(scene: Callable[[Hall], Awaitable[None]]) -> None:
    """Play a scene; in the end no executor is left."""

    async def whole() -> None:
        hall = Hall()
        async with asyncio.timeout(10):
            await scene(hall)
            await hall.executors.close()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(whole())


def test_no_more_than_the_limit_run_at_once_and_a_batch_may_have_them_all() -> None:
    """Each that ends makes room for the next, in order."""

    async def scene(hall: Hall) -> None:
        batch = hall.bring(1, 2, 3, 4, 5)
        await settle()
        assert hall.begun == [1, 2, 3]
        other = hall.bring(6)
        await settle()
        assert hall.begun == [1, 2, 3]
        await hall.let_go(2)
        assert hall.begun == [1, 2, 3, 4]
        await hall.let_go(1, 3)
        assert hall.begun == [1, 2, 3, 4, 5, 6]
        await hall.let_go(4)
        assert not batch.done()
        await hall.let_go(5, 6)
        assert batch.done()
        assert other.done()

    play(scene)


def test_free_executors_begin_with_the_next_batch_while_the_last_of_one_still_runs() -> None:
    """The concurrency stays full, and the first batch is told of its end though the executors work on."""

    async def scene(hall: Hall) -> None:
        first, second = hall.bring(1, 2, 3, 4), hall.bring(5, 6, 7)
        await settle()
        await hall.let_go(1, 2)
        assert hall.begun == [1, 2, 3, 4, 5]
        await hall.let_go(3, 4)
        assert first.done()
        assert not second.done()
        assert hall.begun == [1, 2, 3, 4, 5, 6, 7]
        await hall.let_go(5, 6, 7)
        assert second.done()

    play(scene)


def test_the_later_batch_may_end_first() -> None:
    """A call that takes long keeps only its own batch."""

    async def scene(hall: Hall) -> None:
        first, second = hall.bring(1), hall.bring(2)
        await settle()
        await hall.let_go(2)
        assert second.done()
        assert not first.done()
        await hall.let_go(1)
        assert first.done()

    play(scene)


def test_an_empty_batch_ends_at_once() -> None:
    """It has nothing to wait for."""

    async def scene(hall: Hall) -> None:
        busy = hall.bring(1, 2, 3, 4)
        await settle()
        await hall.bring()
        await hall.let_go(1, 2, 3)
        await hall.let_go(4)
        await busy

    play(scene)


def test_an_error_is_told_to_the_batch_it_belongs_to() -> None:
    """The others go on; what had not begun of that batch does not begin."""

    async def scene(hall: Hall) -> None:
        first, second = hall.bring(1, 2, 3, 4), hall.bring(5)
        await settle()
        await hall.fail(1, MemoryError("full"))
        with pytest.raises(MemoryError, match="full"):
            await first
        assert 4 not in hall.begun
        await hall.let_go(2, 3, 5)
        assert second.done()

    play(scene)


def test_what_has_not_begun_of_a_cancelled_batch_never_begins() -> None:
    """Nobody would settle it."""

    async def scene(hall: Hall) -> None:
        first, second = hall.bring(1, 2, 3, 4), hall.bring(5)
        await settle()
        first.cancel()
        await settle()
        await hall.let_go(1, 2, 3)
        assert hall.begun == [1, 2, 3, 5]
        await hall.let_go(5)
        assert second.done()

    play(scene)


def test_closing_cancels_what_runs() -> None:
    """Whoever waits is cancelled with it."""

    async def scene(hall: Hall) -> None:
        batch = hall.bring(1, 2)
        await settle()
        await hall.executors.close()
        await settle()
        assert batch.cancelled()

    play(scene)


def test_in_a_hurry_one_executor_more_takes_what_waits() -> None:
    """However busy the others are: to call off what has not begun takes no time."""

    async def scene(hall: Hall) -> None:
        batch, called_off = hall.bring(1, 2, 3), list[int]()

        async def call_off(item: int, _: Executor) -> None:
            called_off.append(item)

        await settle()
        waiting = asyncio.create_task(hall.executors.run([4, 5, 6], call_off))
        await settle()
        assert not called_off
        hall.executors.hurry()
        await waiting
        assert called_off == [4, 5, 6]
        await hall.let_go(1, 2, 3)
        await batch

    play(scene)
