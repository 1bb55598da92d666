"""Wait for a blocking call without a pool: a daemon thread per call, abandoned when its waiter is cancelled.

The loop's own executor would do until names resolve slowly: a handful of threads stuck in the system's resolver, which
nothing can interrupt, would then stop everything else that uses it, and the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread of its own; if the waiter is cancelled, what the call comes to is dropped.

    Raises:
        BaseException: whatever the call raises.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if waiter.done():
            return
        if error is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(result)  # type: ignore[arg-type]  # None only where T is None

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:  # noqa: BLE001 - handed to the waiter
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="cauce-outgoing", daemon=True).start()
    return await waiter
