"""Connections that wait for their clients: they have deadlines, and their number has a limit."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Final

import pytest
from starlette.types import ASGIApp

from cauce import Bus, EventHandlers, Settings
from cauce.web import create_app
from cauce.web import serving as serving_module
from cauce.web.http import bounded
from tests.integration.http.kit import END, Recorder, connected, rest, run, serving

pytestmark = pytest.mark.usefixtures("parser")

SOON: Final = 0.1
"""Seconds: a deadline that comes while a test waits for it."""
LATE: Final = 3_600.0
"""Seconds: a deadline that must not count."""
REQUEST: Final = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
NOWHERE: Final = create_app(Bus(catalogs=[], event_handlers=EventHandlers()), Settings(database_url="host=none"))
"""An application that waits for no body where it has no address."""
LARGE: Final = 64 * 1_048_576
"""Bytes of an answer that no buffer holds."""


@pytest.fixture(autouse=True)
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no deadline by itself."""
    for module, name in (
        (bounded, "HEADER_SECONDS"),
        (bounded, "SEND_SECONDS"),
        (serving_module, "KEEP_ALIVE_SECONDS"),
    ):
        monkeypatch.setattr(module, name, LATE)


def converse(
    work: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]], app: ASGIApp | None = None
) -> bytes:
    """Connect, and do something."""

    async def session() -> bytes:
        async with serving(app or Recorder()) as address, connected(address) as (reader, writer):
            return await work(reader, writer)

    return run(session())


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send one byte after another until the server hangs up; return what it says."""
    answer = asyncio.ensure_future(rest(reader))
    while not answer.done() and not writer.is_closing():
        writer.write(b"a")
        await asyncio.wait([answer], timeout=SOON / 10)  # the sender's own pace
    return await answer


@pytest.mark.parametrize(
    "start", [b"", b"POST /", b"POST / HTTP/1.1\r\nx-slow: "], ids=["nothing", "half a line", "half of the fields"]
)
def test_header_fields_have_a_deadline(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    """From the acceptance on: 408, and the connection is closed, whether the sender is silent or not."""
    monkeypatch.setattr(bounded, "HEADER_SECONDS", SOON)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(start)
        return await rest(reader)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(start or b"POST /")
        return await trickle(reader, writer)

    answer = converse(silent)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n")
    assert b'"error": "cabeceras_demasiado_lentas"' in answer
    assert converse(slow) in (answer, b""), "what was said last may be lost, if the sender had more to say"


def test_every_request_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of a connection too, from its first byte; there is no answer, for the first has had its own."""
    monkeypatch.setattr(bounded, "HEADER_SECONDS", SOON)

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for _ in range(2):
            writer.write(REQUEST)
            await reader.readuntil(END)
        writer.write(b"POST /")
        return await trickle(reader, writer)

    assert converse(work) == b""


def test_a_body_that_nobody_wants_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answered before it is there, as an unknown address is: a trickle of it keeps no connection open."""
    monkeypatch.setattr(bounded, "HEADER_SECONDS", SOON)

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 404 ")
        return await trickle(reader, writer)

    assert converse(work, NOWHERE) == b""


def test_an_idle_connection_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two requests."""
    monkeypatch.setattr(serving_module, "KEEP_ALIVE_SECONDS", SOON)

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(REQUEST)
        await reader.readuntil(END)
        return await rest(reader)

    assert converse(work) == b""


def test_the_application_has_all_the_time_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No deadline of a connection counts while its request is being answered."""
    monkeypatch.setattr(bounded, "HEADER_SECONDS", SOON)
    monkeypatch.setattr(bounded, "SEND_SECONDS", SOON)
    monkeypatch.setattr(serving_module, "KEEP_ALIVE_SECONDS", SOON)

    async def work() -> bytes:
        app = Recorder()
        app.may_answer.clear()
        async with serving(app) as address, connected(address) as (reader, writer):
            writer.write(REQUEST)
            await app.until(1)
            async with connected(address) as (other_reader, other):
                other.write(b"POST /")
                assert (await rest(other_reader)).startswith(b"HTTP/1.1 408 "), "a deadline as long has passed"
            app.may_answer.set()
            return await reader.readuntil(END)

    assert run(work()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("closing", [b"", b"connection: close\r\n"], ids=["kept", "closed"])
def test_whoever_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch, closing: bytes) -> None:
    """An answer that its client does not take keeps no connection open, not one that is closing either."""
    monkeypatch.setattr(bounded, "SEND_SECONDS", SOON)

    async def work() -> int:
        async with serving(Recorder(b"x" * LARGE)) as address:
            loop = asyncio.get_running_loop()
            with socket.create_connection(address) as deaf:
                deaf.settimeout(0)
                await loop.sock_sendall(deaf, REQUEST.replace(b"host", closing + b"host"))
                with suppress(ConnectionError):
                    while True:  # fails as soon as the server has cut the connection
                        await loop.sock_sendall(deaf, b"\r\n")
                        await asyncio.sleep(SOON / 10)  # a drip: the client's own pace
                received = 0
                with suppress(ConnectionError):
                    while piece := await loop.sock_recv(deaf, 1_048_576):
                        received += len(piece)
        return received

    assert run(work()) < LARGE


# ------------------------------------------------------------------------------------------------------- not too many


def test_the_longest_to_wait_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """One half request more than the limit: the oldest are closed, and new requests are served."""
    monkeypatch.setattr(bounded, "max_connections", lambda: 4)
    starts = [b"", b"POST", REQUEST[:-6], REQUEST[:-1]] * 2

    async def work() -> None:
        async with AsyncExitStack() as stack:
            address = await stack.enter_async_context(serving(Recorder()))
            opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
            for start in starts:
                reader, writer = await stack.enter_async_context(connected(address))
                writer.write(start)
                opened.append((reader, writer))
                async with connected(address) as (honest_reader, honest):
                    honest.write(REQUEST.replace(b"host", b"connection: close\r\nhost"))
                    assert (await rest(honest_reader)).endswith(END)
            for reader, _ in opened[:5]:
                assert await rest(reader) == b""
            for (reader, writer), start in zip(opened[5:], starts[5:], strict=True):
                writer.write(REQUEST.removeprefix(start))
                assert (await reader.readuntil(END)).startswith(b"HTTP/1.1 200 ")

    run(work())


def test_whoever_is_being_answered_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all are, the next is refused: 503, with the time to try again."""
    monkeypatch.setattr(bounded, "max_connections", lambda: 3)

    async def work() -> None:
        app = Recorder()
        app.may_answer.clear()
        async with AsyncExitStack() as stack:
            address = await stack.enter_async_context(serving(app))
            opened = [await stack.enter_async_context(connected(address)) for _ in range(3)]
            for _, writer in opened:
                writer.write(REQUEST)
            await app.until(3)
            reader, _ = await stack.enter_async_context(connected(address))
            answer = await rest(reader)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 10\r\n" in answer
            assert b'"error": "demasiadas_conexiones"' in answer
            app.may_answer.set()
            for reader, _ in opened:
                assert (await reader.readuntil(END)).startswith(b"HTTP/1.1 200 ")

    run(work())


@pytest.mark.parametrize(
    ("descriptors", "most"), [(1024, 768), (256, 128), (20, 10), (65_536, 1000), (resource.RLIM_INFINITY, 1000)]
)
def test_descriptors_are_left_over(monkeypatch: pytest.MonkeyPatch, descriptors: int, most: int) -> None:
    """For the database, the log and the application itself: a quarter of the usual 1,024."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert bounded.max_connections() == most
