"""uvloop and httptools, where they are installed: found, said in the log, and held to the limits that h11 has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import pytest
from starlette.types import Receive, Scope, Send

from cauce.web.fast import event_loop, name_of
from cauce.web.http import h11, http_protocol
from cauce.web.http.httptools import MAX_PENDING_BYTES
from tests.integration.http.kit import connected, run, serving, without

FLOOD: Final = 64 * 1_048_576
"""Bytes that a client sends in vain, far more than may wait unread in the kernel's buffers and the event loop's."""
PIECE: Final = 65_536
START: Final = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED: Final = START + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
FLOODS: Final = {
    "address": (b"GET /", b"a" * PIECE),
    "one header": (START + b"x-long: ", b"a" * PIECE),
    "many headers": (START, (b"x-many: " + b"a" * 1014 + b"\r\n") * 64),
    "chunk extension": (CHUNKED + b"1;x=", b"a" * PIECE),
    "trailers": (CHUNKED + b"0\r\n", (b"x-late: " + b"a" * 1014 + b"\r\n") * 64),
}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer how long the body was, as soon as it is whole."""
    if scope["type"] == "lifespan":
        for end in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{end}.complete"})
        return
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    body = b"%d" % length
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def talk(pieces: Iterable[bytes], end: bytes) -> bytes:
    """Send pieces to a server and return what it answers, until it hangs up or ``end`` comes."""

    async def session() -> bytes:
        async with serving(echo) as address, connected(address) as (reader, writer):
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                return await reader.readuntil(end)
            except asyncio.IncompleteReadError as hung_up:
                return hung_up.partial
            except ConnectionError:
                return b""

    return run(session())


def test_what_is_installed_is_used() -> None:
    """Here both are."""
    loop = event_loop()
    loop.close()
    assert name_of(loop) == "uvloop"
    assert http_protocol().__module__ == "cauce.web.http.httptools"


def test_nothing_of_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them it is asyncio's loop and h11."""
    without(monkeypatch, "uvloop", "httptools")
    loop = event_loop()
    loop.close()
    assert (name_of(loop), http_protocol()) == ("asyncio", h11.BoundedH11)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("flood", FLOODS)
def test_what_is_no_body_has_an_end(flood: str) -> None:
    """A client that sends on and on without a byte of a body is refused and hung up on, whatever parses it."""
    start, piece = FLOODS[flood]
    sent = 0

    def pieces() -> Iterable[bytes]:
        nonlocal sent
        yield start
        while sent < FLOOD:
            sent += len(piece)
            yield piece

    answer = talk(pieces(), b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert sent < FLOOD


@pytest.mark.usefixtures("parser")
def test_what_is_within_bounds_is_taken() -> None:
    """Large headers, a body in tiny chunks that are sent as one, and request after request on a connection."""
    large = START + b"x-large: " + b"a" * (MAX_PENDING_BYTES // 2) + b"\r\n"
    requests = [
        large + b"content-length: 200000\r\n\r\n" + b"x" * 200_000,
        large + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n",
        *[large + b"content-length: 1\r\n\r\nx"] * 3,
        START + b"content-length: 7\r\n\r\nthe end",
    ]
    answer = talk(requests, b"\r\n\r\n7")
    assert answer.count(b"HTTP/1.1 200 ") == len(requests)
    assert answer.count(b"200000") == answer.count(b"50000") == 1
