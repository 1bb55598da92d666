"""Sync handlers: how one runs in a thread, and how its connection is cut."""

from __future__ import annotations

import inspect
import os
import socket
from typing import TYPE_CHECKING, Any

from cauce.engine.deadlines import STOPS

if TYPE_CHECKING:
    from contextvars import Context

    from psycopg import AsyncConnection

    from cauce.catalog import AnyHandler


def cut(conn: AsyncConnection[Any]) -> None:
    """End a connection that another thread may be using: shut its socket, so that the thread gets an error."""
    with socket.socket(fileno=os.dup(conn.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def run_sync(context: Context, handler: AnyHandler, *arguments: object) -> None:
    """Run a sync handler in a thread, in the context of its delivery.

    What would stop a task is here the handler's failure like any other. A future cannot even carry StopIteration: its
    handler would never seem to end.
    """
    try:
        returned = context.run(handler, *arguments)
    except (StopIteration, *STOPS) as error:
        raise RuntimeError(f"the handler raised {type(error).__name__}") from error
    if inspect.iscoroutine(returned):  # a decorator, a lambda: by its signature it is sync, and it has done nothing yet
        returned.close()
        raise TypeError("the handler returned a coroutine, which nobody awaits: what wraps it must be `async def` too")
