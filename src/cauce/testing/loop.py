"""Running async code from a plain test."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], what: str) -> T:
    """Run a coroutine to its end in an event loop of its own.

    Raises:
        RuntimeError: a loop runs already: there the function named ``what`` is to be awaited.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    coroutine.close()
    raise RuntimeError(f"{what} blocks, and an event loop runs here: await {what}_async instead")
