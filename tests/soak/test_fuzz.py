"""Hostile requests for as long as one likes: at the verifiers, at the application over ASGI, at uvicorn over sockets.

Nothing raises, nothing is answered 500, nothing hangs; and what is accepted although something was done to it has, in
all that its provider signs, what a signed delivery had. hypothesis makes the requests and shrinks those that fail. It
knows how a delivery is built, which a fuzzer that is led by coverage would have to find out by itself, and needs
nothing compiled. ``FUZZ_SECONDS=600 make soak ARGS='tests/soak/test_fuzz.py'`` takes longer over each.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from cauce import Bus, EventHandlers, Settings
from cauce.testing import Database
from cauce.web import create_app
from cauce.webhooks import PROVIDERS, NuevoWebhook, Outcome, Secret, Verdict, Verified, WebhookRequest
from cauce.webhooks.explaining.explain import explain
from cauce.webhooks.provider import TIPO_DESCONOCIDO
from cauce.webhooks.raw import read_request, write_request
from cauce.webhooks.trying.keys import Keys, new_keys
from tests.acceptance.test_http import SECRET, Service
from tests.soak.hostile import TOKENS, Target, Wire, signed_parts, spoiled, strange, target

pytestmark = pytest.mark.soak

FUZZ_SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "20"))
"""For each provider, and three times as long for the whole application."""
ROUND: Final = 200
"""Cases between two looks at the clock."""
ANSWER_SECONDS: Final = 15.0
"""Seconds within which anything must have been answered or cut: more than a database that is there ever takes."""
QUIET_SECONDS: Final = 0.3
"""Seconds of silence after which a sender has nothing more to say, and closes its half of the connection."""
NOW: Final = 1_764_000_000.0
CRON: Final = "cron secret"
dice = st.randoms(use_true_random=False)
mostly = st.integers(0, 4).map(bool)
seldom = st.integers(0, 9).map(lambda number: not number)


def for_seconds(seconds: float, check: Callable[..., None], **strategies: st.SearchStrategy[Any]) -> None:
    """Check generated cases, a round of them at least, until time is over; other ones in each round, and each time."""
    ends = time.monotonic() + seconds
    options = settings(
        max_examples=ROUND, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck)
    )
    while True:
        options(given(**strategies)(check))()
        if time.monotonic() >= ends:
            return


# --- the verifiers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origen", PROVIDERS)
def test_verifiers_survive_and_are_not_deceived(origen: str) -> None:
    """Whatever comes gets a verdict and an explanation; what is accepted is what was signed, under the same id."""
    one = target(origen, NOW)
    parts: frozenset[Any] = frozenset().union(*(signed_parts(origen, wire) for wire in one.deliveries))
    known = [event for wire in one.deliveries for event in everything(one, wire.request())[1]]
    assert known
    more = (*one.secrets, Secret("!\ud800"), Secret("whpk_"), Secret("\xf1"))

    def check(random: Random, *, good: bool, explained: bool) -> None:
        wire = (spoiled if good else strange)(random, one.deliveries)
        request = wire.request()
        verdict, events = everything(one, request)
        assert isinstance(one.provider.verify(request, more, NOW), Verified) == isinstance(verdict, Verified)
        if explained:
            assert explain(one.provider, request, one.secrets, NOW, {"OTHER": [Secret("x")]}).verdict == verdict
        if isinstance(verdict, Verified):
            assert signed_parts(origen, wire) <= parts
            for event in events:
                check_event(event, origen, known)

    for_seconds(FUZZ_SECONDS, check, random=dice, good=mostly, explained=seldom)


def everything(one: Target, request: WebhookRequest) -> tuple[Verdict, tuple[NuevoWebhook, ...]]:
    """Do with a request all that the HTTP layer does."""
    provider = one.provider
    provider.preflight(request)
    verdict = provider.verify(request, one.secrets, NOW)
    assert str(verdict)
    assert one.keys.verify not in str(verdict)
    events: tuple[NuevoWebhook, ...] = ()
    if isinstance(verdict, Verified):
        json.dumps(verdict.as_json())
        provider.handshake(request)
        events = provider.describe(request, verdict)
    for outcome in Outcome:
        provider.respond(outcome)
    return verdict, events


def check_event(event: NuevoWebhook, origen: str, known: list[NuevoWebhook]) -> None:
    """An event fits the columns, and has the id and type of a signed one, unless it says that these are unsigned."""
    for text in (event.id_externo, event.tipo):
        assert 0 < len(text) <= 255
        assert "\0" not in text
        text.encode()
    assert (event.payload is None) == (event.cuerpo is not None) == (event.error is not None)
    if event.payload is not None:
        json.loads(event.payload.encode())
    json.dumps(event.cabeceras).encode()
    assert not any("\0" in value for value in event.cabeceras.values())
    # Twilio signs a form without anything between names and values: they can be cut elsewhere, see its docstring.
    if origen != "twilio":
        assert "id_externo" in event.sin_firmar or event.id_externo in {one.id_externo for one in known}
        assert "tipo" in event.sin_firmar or event.tipo in {TIPO_DESCONOCIDO, *(one.tipo for one in known)}


def test_captures_are_read_or_refused() -> None:
    """Random bytes, and captures of which something was lost, are a request or a ValueError."""
    deliveries = [wire for origen in PROVIDERS for wire in target(origen, NOW).deliveries]

    def check(random: Random) -> None:
        raw = spoiled_bytes(random, write_request(random.choice(deliveries).request()))
        with suppress(ValueError):
            read_request(raw)

    for_seconds(FUZZ_SECONDS, check, random=dice)


def spoiled_bytes(random: Random, raw: bytes) -> bytes:
    """Change, insert, drop, double or cut some bytes, or none."""
    for _ in range(random.randint(0, 4)):
        start, end = sorted((random.randint(0, len(raw)), random.randint(0, len(raw))))
        end = random.choice((end, min(end, start + 3)))
        first, middle, last = raw[:start], raw[start:end], raw[end:]
        token = random.choice(
            (*TOKENS, b"\r\n\r\n", b"0\r\n\r\n", b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n")
        )
        raw = random.choice(
            (first + random.randbytes(1) + last, first + token + middle + last, first + last, raw + raw, first, last)
        )
    return raw


# --- the application, over ASGI ---------------------------------------------------------------------------------------


HOST: Final = "http://localhost"
UVICORNS_OWN: Final = "h11._util."
"""uvicorn answers 400 by itself as soon as a body's framing is broken, and complains in its log when that meets the
answer of an application that needed no body, or a HEAD."""


def test_the_application_survives_raw_messages(db: Database) -> None:
    """Any scope and any messages are answered once, and never by a 5xx: neither our fault nor the database's."""
    keys = {origen: new_keys(provider, time.time()) for origen, provider in PROVIDERS.items()}
    secrets = {PROVIDERS[origen].secret_setting: pair.verify for origen, pair in keys.items()}
    app = create_app(
        Bus(catalogs=[], event_handlers=EventHandlers()),
        Settings.model_validate({"database_url": db.dsn, "cron_secret": CRON}),
        providers=[pair.trusted_by(PROVIDERS[origen]) for origen, pair in keys.items()],
        secrets=secrets.get,
    )
    with asyncio.Runner() as runner:
        for targets in fresh_targets(keys):

            def check(random: Random, targets: list[Target], *, good: bool) -> None:
                one = random.choice(targets)
                wire = (spoiled if good else strange)(random, one.deliveries)
                scope, messages = asgi_of(random, wire)
                sent = runner.run(call(app, scope, messages))
                starts = [message for message in sent if message["type"] == "http.response.start"]
                left = messages[-1]["type"] == "http.disconnect"
                assert len(starts) == 1 or (left and not starts) or scope["type"] == "websocket", (scope, sent)
                assert all(message["status"] < 500 for message in starts), (scope, sent)

            for_seconds(0, check, random=dice, targets=st.just(targets), good=mostly)
        runner.run(call(app, {"type": "lifespan"}, [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]))
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        row = conn.execute("select count(*), count(distinct (origen, id_externo)) from cauce.eventos").fetchone()
    assert row is not None
    assert row[0] == row[1] > 0


def fresh_targets(keys: dict[str, Keys]) -> Iterator[list[Target]]:
    """Sign everything again and again, for signatures get old, until time is over."""
    ends = time.monotonic() + 3 * FUZZ_SECONDS
    while time.monotonic() < ends:
        yield [target(origen, time.time(), pair, HOST) for origen, pair in keys.items()]


def asgi_of(random: Random, wire: Wire) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make a scope and its messages: the request in any pieces, or a client that leaves before the last one."""
    url = urlsplit_or_nothing(wire.url)
    path = random.choice((url.path, url.path, url.path, "/api/salud", "/api/trabajadores/procesar_lote", "", "//"))
    scope = {
        "type": random.choice(("http",) * 9 + ("websocket",)),
        "asgi": {"version": "3.0"},
        "http_version": random.choice(("1.1", "1.0", "2")),
        "method": wire.method,
        "scheme": "http",
        "path": path,
        "raw_path": random.choice((path.encode("utf-8", "surrogatepass"), random.randbytes(4))),
        "query_string": random.choice((url.query.encode("utf-8", "surrogatepass"), random.randbytes(4), b"limite=1")),
        "root_path": "",
        "headers": list(wire.headers) + [(b"authorization", b"Bearer " + CRON.encode())] * random.randint(0, 1),
        "client": None,
        "server": None,
    }
    if random.randint(0, 3) == 0:
        del scope["raw_path"]
    if scope["type"] == "websocket":
        return scope, [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1005}]
    cuts = sorted(random.randint(0, len(wire.body)) for _ in range(random.randint(0, 3)))
    pieces = [wire.body[start:end] for start, end in pairwise((0, *cuts, len(wire.body)))]
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages[-1] = random.choice(
        (
            {**messages[-1], "more_body": False},
            {**messages[-1], "more_body": False},
            {"type": "http.request", "body": messages[-1]["body"]},
            {"type": "http.disconnect"},
        )
    )
    return scope, messages


def urlsplit_or_nothing(url: str) -> SplitResult:
    """Split a URL, if it is one."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


async def call(app: ASGIApp, scope: dict[str, Any], messages: list[dict[str, Any]]) -> list[Any]:
    """Call an application; return what it sent. Behind the last message the client has left."""
    todo, sent = iter(messages), list[Any]()

    async def receive() -> Any:
        return next(todo, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(ANSWER_SECONDS):
        await app(scope, receive, send)
    return sent


# --- uvicorn, over sockets --------------------------------------------------------------------------------------------


def test_the_server_survives_raw_bytes(
    db: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever bytes come, it answers or hangs up, never by a 500; then it is well, and nothing of ours was raised."""
    keys = {origen: new_keys(provider, time.time()) for origen, provider in PROVIDERS.items()}
    keys["stripe"] = Keys(SECRET, SECRET)
    for origen, pair in keys.items():
        monkeypatch.setenv(PROVIDERS[origen].secret_setting, pair.verify)
    with Service(db.dsn) as service:
        for targets in fresh_targets(keys):

            def check(random: Random, targets: list[Target]) -> None:
                wire = spoiled(random, random.choice(targets).deliveries)
                raw = spoiled_bytes(random, http_of(random, wire))
                statuses = re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", converse(service.address, raw))
                assert b"500" not in statuses, raw

            for_seconds(0, check, random=dice, targets=st.just(targets))
            assert httpx.get(service.url("/api/salud"), timeout=ANSWER_SECONDS).status_code == 200
        assert service.process is not None
        assert service.process.poll() is None
    raised = re.findall(r"(?m)^([a-zA-Z_][\w.]*(?:Error|Exception|Group)\b.*)$", capfd.readouterr().err)
    assert {line for line in raised if not line.startswith(UVICORNS_OWN)} == set()
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        row = conn.execute("select count(*) from cauce.eventos").fetchone()
    assert row is not None
    assert row[0] > 0


def http_of(random: Random, wire: Wire) -> bytes:
    """Write a request, with a length or in chunks, that asks for the connection to be closed."""
    target = wire.url.removeprefix(HOST) or "/"
    head = f"{wire.method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in wire.headers)
    if random.randint(0, 2):
        framing, body = b"content-length: %d\r\n\r\n" % len(wire.body), wire.body
    else:
        cut = random.randint(0, len(wire.body))
        pieces = (piece for piece in (wire.body[:cut], wire.body[cut:]) if piece)
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        framing = b"transfer-encoding: chunked\r\n\r\n"
    return head.encode("utf-8", "surrogatepass") + lines + framing + body


def converse(address: tuple[str, int], raw: bytes) -> bytes:
    """Send bytes, and read until the server hangs up; after some silence, say that no more will come."""
    answer = b""
    with socket.create_connection(address, timeout=ANSWER_SECONDS) as sock, suppress(ConnectionError):
        sock.sendall(raw)
        sock.settimeout(QUIET_SECONDS)
        while True:
            try:
                piece = sock.recv(65_536)
            except TimeoutError:
                if sock.gettimeout() == ANSWER_SECONDS:
                    raise
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(ANSWER_SECONDS)
                continue
            if not piece:
                break
            answer += piece
    return answer
