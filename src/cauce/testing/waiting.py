"""Waiting for facts: a test that sleeps for a while is slow on a good day and wrong on a bad one."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

SECONDS: Final = 10.0
"""Seconds that a fact may take, where it is not told otherwise: as long as a busy machine may need."""
LOOK_SECONDS: Final = 0.01
"""Seconds between two looks."""


def wait_for(fact: Callable[[], T], what: str = "", *, seconds: float = SECONDS) -> T:
    """Call ``fact`` until it returns something true, and return that.

    Args:
        fact: a function that checks the fact without waiting.
        what: the fact's name in the error.
        seconds: how long to wait at most.

    Raises:
        TimeoutError: the fact is still not true; the error contains the last result of ``fact``.
    """
    ends = time.monotonic() + seconds
    while not (found := fact()):
        if time.monotonic() > ends:
            raise _late(fact, what, seconds, found)
        time.sleep(LOOK_SECONDS)
    return found


async def wait_for_async(
    fact: Callable[[], T] | Callable[[], Awaitable[T]], what: str = "", *, seconds: float = SECONDS
) -> T:
    """Do the same as ``wait_for`` in the running event loop.

    Args:
        fact: a function, sync or async, that checks the fact.
        what: the fact's name in the error.
        seconds: how long to wait at most.
    """
    ends = time.monotonic() + seconds
    while True:
        answer = fact()
        found: Any = await answer if inspect.isawaitable(answer) else answer
        if found:
            return cast("T", found)
        if time.monotonic() > ends:
            raise _late(fact, what, seconds, found)
        await asyncio.sleep(LOOK_SECONDS)


def _late(fact: object, what: str, seconds: float, found: object) -> TimeoutError:
    name = what or getattr(fact, "__qualname__", repr(fact))
    return TimeoutError(f"still not so after {seconds:g} s: {name} (the last answer was {found!r})")
