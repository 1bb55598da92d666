"""The watch over time limits: one look at all that runs, whatever a handler does with its cancellation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from cauce.engine.deadlines import GivenBack, Watch

T = TypeVar("T")


def watched(scene: Callable[[Watch], Awaitable[T]]) -> T:
    """Play a scene under a running watch."""

    async def play() -> T:
        watch = Watch()
        running = asyncio.create_task(watch.run())
        try:
            return await scene(watch)
        finally:
            running.cancel()

    return asyncio.run(play())


async def forever() -> None:
    """Never end."""
    await asyncio.Event().wait()


def test_a_call_within_its_time_is_let_be() -> None:
    """Its failure, too, is its own."""

    async def fails() -> None:
        raise ValueError("mine")

    async def scene(watch: Watch) -> None:
        with watch.executor() as executor:
            with executor.within(10):
                await asyncio.sleep(0)
            with pytest.raises(ValueError, match="mine"), executor.within(10):
                await fails()

    watched(scene)


def test_one_executor_may_run_out_of_time_again_and_again() -> None:
    """Each time it is a timeout, and the task itself is not cancelled."""

    async def scene(watch: Watch) -> int:
        with watch.executor() as executor:
            for _ in range(2):
                with pytest.raises(TimeoutError, match=r"took longer than 0\.01 s"), executor.within(0.01):
                    await forever()
            with executor.within(10):
                await asyncio.sleep(0)
            return executor.task.cancelling()

    assert watched(scene) == 0


def test_a_handler_that_swallows_its_cancellation_leaves_no_trace() -> None:
    """It returned, so it is done; the next one in the executor is not cancelled for it."""

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await forever()

    async def scene(watch: Watch) -> int:
        with watch.executor() as executor:
            with executor.within(0.01):
                await stubborn()
            with executor.within(10):
                await asyncio.sleep(0)
            return executor.task.cancelling()

    assert watched(scene) == 0


def test_an_error_raised_while_being_cancelled_is_the_handlers() -> None:
    """What it says in its last moment counts."""

    async def protests() -> None:
        try:
            await forever()
        finally:
            raise ValueError("not like this")

    async def scene(watch: Watch) -> int:
        with watch.executor() as executor:
            with pytest.raises(ValueError, match="not like this"), executor.within(0.01):
                await protests()
            return executor.task.cancelling()

    assert watched(scene) == 0


def test_stopping_gives_back_what_runs_and_nothing_else() -> None:
    """An executor between two handlers is not touched."""

    async def scene(watch: Watch) -> None:
        with watch.executor() as executor:
            watch.stop()
            with executor.within(10):
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(watch.stop)
            with pytest.raises(GivenBack), executor.within(10):
                await forever()

    watched(scene)


def test_a_cancellation_from_within_is_a_failure_and_one_from_without_is_obeyed() -> None:
    """A handler's own CancelledError fails it; the worker's end ends it."""

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    async def scene(watch: Watch) -> None:
        cancelled = pytest.raises(RuntimeError, match="cancelled from within")
        with watch.executor() as executor, cancelled, executor.within(10):
            await cancels_itself()

        async def works() -> None:
            with watch.executor() as executor, executor.within(10):
                await forever()

        task = asyncio.create_task(works())
        await asyncio.sleep(0)  # lets the task begin
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    watched(scene)


def test_an_executor_needs_a_task() -> None:
    """Outside of a loop's task there is nothing to cancel."""
    with pytest.raises(RuntimeError), Watch().executor():
        pass
