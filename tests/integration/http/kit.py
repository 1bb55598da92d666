"""What the tests of connections share: the server of ``cauce serve`` in the loop of a test, with either parser."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeVar

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from cauce.web.fast import event_loop
from cauce.web.serving import UvicornServer, configured

T = TypeVar("T")

SECONDS: Final = 30.0
"""After which a test that waits for a server gives up."""
PARSERS: Final = ["httptools", "h11"]
END: Final = b"the end"
"""What ``Recorder`` answers with."""


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Have these modules look as if they were not installed."""
    ours = ("uvicorn.protocols.http.httptools_impl", "cauce.web.http.httptools")
    for name in [name for name in sys.modules if name.startswith((*ours, *modules))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("cauce.web.http.httptools", raising=False)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


class Request(NamedTuple):
    """What an application was given."""

    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Recorder:
    """An application that keeps what it is given, and answers each request when its body is whole."""

    def __init__(self, answer: bytes = END) -> None:
        self.requests: list[Request] = []
        self.arrived = asyncio.Condition()
        """Notified of each request, before it is answered."""
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        async with self.arrived:
            self.requests.append(Request(scope["path"], [*scope["headers"]], body))
            self.arrived.notify_all()
        await self.may_answer.wait()
        headers = [(b"content-length", b"%d" % len(self._answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._answer})

    async def until(self, count: int) -> None:
        """Wait until so many requests have arrived."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncGenerator[tuple[str, int]]:
    """Serve an application; yields the address."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server = UvicornServer(configured(app, grace_seconds=1))
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            await running


@asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect, and hang up in the end."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()


def run(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine in the loop that ``cauce serve`` would have, with a time limit."""

    async def limited() -> T:
        async with asyncio.timeout(SECONDS):
            return await work

    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(limited())


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Read until the server hangs up."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""
