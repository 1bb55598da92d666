"""What the application is given of a request: the whole of its body, its header fields, and nothing from behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest
from starlette.types import ASGIApp

from cauce import Bus, EventHandlers, Settings
from cauce.web import create_app
from tests.integration.http.kit import END, Recorder, Request, connected, rest, run, serving

pytestmark = pytest.mark.usefixtures("parser")

BODY: Final = b'{"id": "evt_1", "text": "' + b"x" * 50 + b'"}'
LENGTH: Final = b"content-length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKS: Final = b"transfer-encoding: chunked\r\n\r\n" + b"7\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (
    BODY[:7],
    len(BODY) - 7,
    BODY[7:],
)
FRAMED: Final = {"length": LENGTH, "chunks": CHUNKS}
OFFERS: Final = {
    "curl --http2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQC\r\n",
    "Java's HttpClient": b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n",
    "a WebSocket": b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "nothing": b"",
}
LINE: Final = b"POST /api/webhooks/gitlab_token?a=%20b HTTP/1.1\r\nHost: localhost\r\nX-Token: t\r\n"


async def exchange(app: ASGIApp, raw: bytes) -> bytes:
    """Send bytes, and read until the server hangs up."""
    async with serving(app) as address, connected(address) as (reader, writer):
        writer.write(raw)
        return await rest(reader)


def receive(*deliveries: Sequence[bytes], count: int = 1) -> list[Request]:
    """Return what an application is given of these, and check that it answered.

    Each delivery comes in its pieces on a connection of its own; they are of ``count`` requests each.
    """

    async def work() -> list[Request]:
        app = Recorder()
        async with serving(app) as address:
            for pieces in deliveries:
                async with connected(address) as (reader, writer):
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0)  # lets the server read this piece by itself, mostly; it must not matter
                    for _ in range(count):
                        assert (await reader.readuntil(END)).startswith(b"HTTP/1.1 200 ")
        return app.requests

    return run(work())


@pytest.mark.parametrize("framed", FRAMED)
@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_to_upgrade_costs_no_body(offer: str, framed: str) -> None:
    """Declined without a word: the request is served in HTTP/1.1, whole, in whatever pieces it comes."""
    raw = LINE + OFFERS[offer] + FRAMED[framed]
    head = raw.index(b"\r\n\r\n") + 4
    bytewise = [bytes([one]) for one in raw]
    requests = receive([raw], [raw[:head], raw[head:]], [raw[: head + 5], raw[head + 5 :]], bytewise)
    assert len(requests) == 4
    for request in requests:
        assert (request.body, request.path) == (BODY, "/api/webhooks/gitlab_token")
        assert (b"x-token", b"t") in request.headers


@pytest.mark.parametrize("framed", FRAMED)
def test_pipelined_requests_keep_their_bodies(framed: str) -> None:
    """Whether they offer to upgrade or not, and sent all at once."""
    raw = b"".join(LINE + b"X-Number: %s\r\n" % name.encode() + OFFERS[name] + FRAMED[framed] for name in OFFERS)
    for pieces in ([raw], [raw[:300], raw[300:]], [raw[start : start + 100] for start in range(0, len(raw), 100)]):
        requests = receive(pieces, count=len(OFFERS))
        assert [request.body for request in requests] == [BODY] * len(OFFERS)
        numbers = [dict(request.headers)[b"x-number"].decode() for request in requests]
        assert numbers == [*OFFERS]


def test_an_upgrade_without_a_body() -> None:
    """Such a request is served as well, and what follows it."""
    raw = b"GET /one HTTP/1.1\r\nHost: x\r\n" + OFFERS["curl --http2"] + b"\r\nGET /two HTTP/1.1\r\nHost: x\r\n\r\n"
    assert [(request.path, request.body) for request in receive([raw], count=2)] == [("/one", b""), ("/two", b"")]


@pytest.mark.parametrize("offer", OFFERS)
def test_trailers_are_no_header_fields(offer: str) -> None:
    """A signature or a bearer behind the body was not there when the body was read, and never is."""
    late = b"X-Signature: late\r\nAuthorization: Bearer late\r\n"
    raw = LINE + OFFERS[offer] + CHUNKS[:-2] + late + b"\r\n"
    end = len(raw) - len(late) - 2
    for pieces in ([raw], [raw[:end], raw[end:]]):
        requests = receive([*pieces, LINE + LENGTH], count=2)
        assert [request.body for request in requests] == [BODY, BODY]
        for request in requests:
            names = [name for name, _ in request.headers]
            assert not {b"x-signature", b"authorization"} & {*names}


def test_a_tunnel_is_refused() -> None:
    """``CONNECT`` always upgrades, and this is no proxy."""
    raw = b"CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\nConnection: close\r\n\r\n"
    app = create_app(Bus(catalogs=[], event_handlers=EventHandlers()), Settings(database_url="host=none"))
    answer = run(exchange(app, raw))
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))


@pytest.mark.parametrize("target", [b"/?\xe9", b"/?secreto=%C3%A9&x=\xff", b"/\xe9"])
def test_an_address_is_ascii(target: bytes) -> None:
    """400, not 500."""
    answer = run(exchange(Recorder(), b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 400 ")


AMBIGUOUS: Final = {
    "both": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "both, the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "both, and an upgrade": OFFERS["curl --http2"] + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "another coding": b"Transfer-Encoding: gzip\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n",
    "a length that is none": b"Content-Length: +4\r\n",
}


@pytest.mark.parametrize("path", ["/api/webhooks/stripe", "/api/webhooks/none", "/api/salud", "/elsewhere"])
@pytest.mark.parametrize("ambiguous", AMBIGUOUS)
def test_a_body_without_a_plain_end_is_refused(ambiguous: str, path: str) -> None:
    """400 and the connection is closed, at every address; what may be a second request is none."""
    start = b"POST " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n" + AMBIGUOUS[ambiguous]
    raw = start + b"\r\n0\r\n\r\nGET /api/salud HTTP/1.1\r\nHost: localhost\r\n\r\n"
    app = create_app(Bus(catalogs=[], event_handlers=EventHandlers()), Settings(database_url="host=none"))
    answer = run(exchange(app, raw))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close\r\n" in answer.lower()


def test_half_a_body_is_nothing() -> None:
    """Whoever stops sending in the middle of what he announced has sent nothing."""

    async def work() -> list[Request]:
        app = Recorder()
        async with serving(app) as address, connected(address) as (reader, writer):
            writer.write(LINE + OFFERS["curl --http2"] + LENGTH[:-1])
            writer.write_eof()
            assert await rest(reader) == b""
        return app.requests

    assert run(work()) == []


@pytest.mark.parametrize("framed", FRAMED)
def test_a_client_that_stops_sending_is_answered(framed: str) -> None:
    """Whoever shuts his side down behind a whole request, or several, still listens; then the connection is closed."""

    async def work(count: int) -> tuple[list[Request], bytes]:
        app = Recorder()
        app.may_answer.clear()
        async with serving(app) as address, connected(address) as (reader, writer):
            writer.write((LINE + FRAMED[framed]) * count)
            writer.write_eof()
            await app.until(1)
            answer = asyncio.create_task(rest(reader))
            await asyncio.sleep(0)  # the server reads the end, mostly, before it answers; it must not matter
            app.may_answer.set()
            return app.requests, await answer

    for count in (1, 3):
        requests, answer = run(work(count))
        assert [request.body for request in requests] == [BODY] * count
        assert answer.count(END) == count


@pytest.mark.parametrize("bad", [b"NO HTTP\r\n\r\n", b"GET /two HTTP/1.1\r\nHost: x\r\nX Y: 1\r\n\r\n"])
def test_a_request_has_its_own_answer_whatever_follows_it(bad: bytes) -> None:
    """Not the 400 of what was sent behind it; and what follows that is not read."""

    async def work() -> tuple[list[Request], bytes]:
        app = Recorder()
        async with serving(app) as address, connected(address) as (reader, writer):
            writer.write(LINE + LENGTH + bad + LINE + LENGTH)
            return app.requests, await rest(reader)

    requests, answer = run(work())
    assert [request.body for request in requests] == [BODY]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 200 ") == 1
