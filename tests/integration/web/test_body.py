"""A body is read as far as it is wanted: the cap, chunks, slow senders, senders that leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import httpx
import pytest

from cauce.web import body as reading
from cauce.webhooks import PROVIDERS, Draft, Secret
from tests.integration.web.conftest import Inbox, Sign

CAP = 1000


def padded(size: int) -> str:
    """A Stripe event of so many bytes."""
    start = '{"id": "evt_1", "type": "t", "text": "'
    return start + "x" * (size - len(start) - 2) + '"}'


async def chunks(content: bytes, size: int) -> AsyncIterator[bytes]:
    """Cut a body, so that it is sent without a length."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("chunk", [0, 1, 7, 999, 1000, 1001], ids=lambda size: f"chunks of {size}" if size else "plain")
@pytest.mark.parametrize(("size", "status"), [(CAP, 200), (CAP + 1, 413)])
def test_the_cap(inbox: Inbox, signed: Sign, *, chunk: int, size: int, status: int) -> None:
    """Exactly ``max_body_bytes`` pass and one more does not, however the body is cut; nothing of the latter is kept."""
    inbox.configure(max_body_bytes=CAP)
    delivery = signed(body=padded(size))

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        content = chunks(delivery.body, chunk) if chunk else delivery.body
        return await client.post("/api/webhooks/stripe", content=content, headers=delivery.headers)

    answer = inbox.run(work)
    assert answer.status_code == status
    if status == 413:
        assert answer.json() == {"error": "cuerpo_demasiado_grande", "detalle": "a body may have 1000 bytes"}
        assert answer.headers["connection"] == "close"
    assert len(inbox.events()) == (1 if status == 200 else 0)


def test_the_default_cap(inbox: Inbox, signed: Sign) -> None:
    """A mebibyte is accepted."""
    assert inbox.deliver(signed(body=padded(1_048_576))).status_code == 200
    assert inbox.deliver(signed(body=padded(1_048_577))).status_code == 413
    assert len(inbox.events()) == 1


def call(inbox: Inbox, headers: Sequence[tuple[bytes, bytes]], messages: Iterable[Any]) -> tuple[list[Any], int]:
    """Speak ASGI with the inbox of Stripe; return what it sent, and how many messages it took."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/webhooks/stripe",
        "query_string": b"",
        "headers": list(headers),
    }
    script = iter(messages)
    sent: list[Any] = []
    taken = 0

    async def receive() -> Any:
        nonlocal taken
        message = next(script, None)
        if message is None:
            await asyncio.Event().wait()  # a client that says no more
        taken += 1
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    async def work(_: httpx.AsyncClient) -> None:
        await inbox.app(scope, receive, send)

    inbox.run(work)
    return sent, taken


@pytest.mark.parametrize("length", [b"1001", b"9" * 5000])
def test_a_declared_length_over_the_cap_is_refused_unread(inbox: Inbox, length: bytes) -> None:
    """Nothing is taken from the client, who gets no ``100 Continue`` either."""
    inbox.configure(max_body_bytes=CAP)
    sent, taken = call(inbox, [(b"content-length", length)], [])
    assert (sent[0]["status"], taken) == (413, 0)
    assert inbox.events() == []


@pytest.mark.parametrize("declared", [[], [(b"content-length", b"5")]], ids=["no length", "another length"])
def test_a_long_body_in_one_piece(inbox: Inbox, declared: list[tuple[bytes, bytes]]) -> None:
    """What came is counted, whatever was declared."""
    inbox.configure(max_body_bytes=CAP)
    delivery = PROVIDERS["stripe"].sign(Draft(padded(CAP + 1).encode()), Secret("whsec_one"), time.time())
    headers = [*delivery.headers.raw(), *declared]
    sent, _ = call(inbox, headers, [{"type": "http.request", "body": delivery.body}])
    assert sent[0]["status"] == 413
    assert inbox.events() == []


def test_no_more_is_taken_than_shows_that_it_is_too_much(inbox: Inbox) -> None:
    """An endless chunked body is refused at the chunk that crosses the cap."""
    inbox.configure(max_body_bytes=CAP)

    def endless() -> Iterable[Any]:
        while True:
            yield {"type": "http.request", "body": b"x" * 300, "more_body": True}

    sent, taken = call(inbox, [], endless())
    assert (sent[0]["status"], taken) == (413, 4)
    assert inbox.events() == []


def test_a_client_that_leaves(inbox: Inbox) -> None:
    """There is nobody to answer and half a body to forget, though a signature of that half may be good."""
    half = PROVIDERS["stripe"].sign(Draft(b'{"id": "evt_1", "type": "t"}'), Secret("whsec_one"), time.time())
    messages = [{"type": "http.request", "body": half.body, "more_body": True}, {"type": "http.disconnect"}]
    assert call(inbox, half.headers.raw(), messages) == ([], 2)
    assert inbox.events() == []


@pytest.mark.parametrize("first", [[], [{"type": "http.request", "body": b"{", "more_body": True}]])
def test_a_body_that_does_not_arrive(inbox: Inbox, monkeypatch: pytest.MonkeyPatch, first: list[Any]) -> None:
    """408 after ``BODY_SECONDS``, for the first byte and for later ones."""
    monkeypatch.setattr(reading, "BODY_SECONDS", 0.05)
    sent, _ = call(inbox, [], first)
    assert (sent[0]["status"], b"cuerpo_demasiado_lento" in sent[1]["body"]) == (408, True)
    assert (b"connection", b"close") in sent[0]["headers"]
    assert inbox.events() == []


@pytest.mark.parametrize(
    "announced",
    [
        [(b"content-length", b"29")],
        [(b"content-length", b"29"), (b"connection", b"upgrade"), (b"upgrade", b"h2c")],
    ],
    ids=["by a length", "by a length, with an upgrade"],
)
def test_a_body_of_which_something_is_missing(inbox: Inbox, announced: list[tuple[bytes, bytes]]) -> None:
    """A server that hands on less than was announced loses no event in silence, be the signature of the rest good."""
    whole = PROVIDERS["stripe"].sign(Draft(b'{"id": "evt_1", "type": "t"}'), Secret("whsec_one"), time.time())
    sent, _ = call(inbox, [*whole.headers.raw(), *announced], [{"type": "http.request", "body": whole.body}])
    assert (sent[0]["status"], b"cuerpo_incompleto" in sent[1]["body"]) == (400, True)
    assert (b"connection", b"close") in sent[0]["headers"]
    assert inbox.events() == []


def test_a_body_in_chunks_that_an_upgrade_lost(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    """What uvicorn with httptools hands on is empty; a scheme that signs no body would take it for the delivery."""
    empty = PROVIDERS["stripe"].sign(Draft(b""), Secret("whsec_one"), time.time())
    chunks_ = [*empty.headers.raw(), (b"transfer-encoding", b"chunked")]
    sent, _ = call(inbox, chunks_, [{"type": "http.request"}])
    assert sent[0]["status"] == 200, "which is what a provider gets who sends nothing, for it is signed"
    sent, _ = call(inbox, [*chunks_, (b"upgrade", b"h2c")], [{"type": "http.request"}])
    assert (sent[0]["status"], b"cuerpo_incompleto" in sent[1]["body"]) == (400, True)
    assert len(inbox.events()) == 1
    assert "cauce.web.http.httptools:BoundedHttpTools" in caplog.text
