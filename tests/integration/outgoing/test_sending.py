"""One request to an untrusted receiver: pinned address, verified name, limited time and size."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from standardwebhooks.webhooks import Webhook as Official

from cauce.outgoing import AddressRefused, DeliveryFailed, Rules, Webhook
from cauce.testing import wait_for
from tests.integration.outgoing.kit import (
    OK,
    OWN,
    PATIENCE,
    SECRET,
    Authority,
    Receiver,
    attempt,
    deliver,
    drip,
    event,
    quick,
    silence,
    status,
)

if TYPE_CHECKING:
    Receive = Callable[..., Receiver]

HERE = ["127.0.0.1"]


def test_the_official_library_verifies_what_arrives(receive: Receive) -> None:
    """A receiver with the official package accepts the delivery, and finds type, moment and data in it."""
    receiver = receive(OK)
    deliver(Webhook(receiver.url("/a?b=c"), SECRET, rules=OWN))
    (request,) = receiver.requests
    assert request.line == "POST /a?b=c HTTP/1.1"
    assert Official(SECRET).verify(request.body, dict(request.headers.items())) == {
        "type": "reserva.creada",
        "timestamp": "2026-11-24T10:00:00Z",
        "data": {"n": 1},
    }
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "Cauce"
    assert request.headers["connection"] == "close"


def test_the_certificate_is_that_of_the_name_and_the_address_that_of_the_resolver(
    receive: Receive, authority: Authority
) -> None:
    """The host's name is in the handshake, in the certificate and in the request, wherever it was resolved to."""
    receiver = receive(OK, tls=authority.server("socio.example"))
    url = receiver.url(host="socio.example")
    deliver(Webhook(url, SECRET, rules=OWN, tls=authority.client(), resolver=lambda _host: HERE))
    assert receiver.names == ["socio.example"]
    assert receiver.requests[0].headers["host"] == f"socio.example:{receiver.port}"


@pytest.mark.parametrize("trusted", [True, False])
def test_a_receiver_that_cannot_prove_its_name_gets_nothing(
    receive: Receive, authority: Authority, *, trusted: bool
) -> None:
    """A certificate of another name, or of an unknown authority, ends the delivery before anything is sent."""
    receiver = receive(OK, tls=authority.server("other.example" if trusted else "socio.example"))
    tls = authority.client() if trusted else None
    url = receiver.url(host="socio.example")
    with pytest.raises(DeliveryFailed, match="CERTIFICATE_VERIFY_FAILED"):
        deliver(Webhook(url, SECRET, rules=OWN, tls=tls, resolver=lambda _host: HERE))
    assert receiver.requests == []


def test_the_name_is_resolved_once_and_the_checked_address_connected_to(
    receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is not resolved again between check and connection, so DNS rebinding cannot work."""
    receiver = receive(OK)
    asked: list[str] = []
    real = socket.getaddrinfo

    def literal_only(host: str, *more: object, **options: object) -> object:
        assert host == "127.0.0.1"
        return real(host, *more, **options)  # type: ignore[arg-type]  # passes on what it was given

    def resolver(host: str) -> list[str]:
        asked.append(host)
        return HERE

    monkeypatch.setattr(socket, "getaddrinfo", literal_only)
    deliver(Webhook(receiver.url(host="socio.example"), SECRET, rules=OWN, resolver=resolver))
    assert asked == ["socio.example"]
    assert len(receiver.requests) == 1


def test_a_name_that_changes_its_mind_is_checked_at_every_delivery(receive: Receive) -> None:
    """A host that was good the first time and points at the metadata the second time gets only the first."""
    receiver = receive(OK)
    answers = iter([HERE, ["169.254.169.254"]])
    webhook = Webhook(receiver.url(host="socio.example"), SECRET, rules=OWN, resolver=lambda _host: next(answers))
    deliver(webhook)
    with pytest.raises(AddressRefused, match="metadata"):
        deliver(webhook)
    assert receiver.connections == 1


def test_loopback_is_refused_by_default(receive: Receive) -> None:
    """Without ``allow_private``, a name that leads to loopback is not even connected to."""
    receiver = receive(OK)
    url = receiver.url(host="socio.example")
    with pytest.raises(AddressRefused, match="loopback"):
        deliver(Webhook(url, SECRET, rules=Rules(allow_http=True), resolver=lambda _host: HERE))
    assert receiver.connections == 0


def test_the_next_address_is_tried_where_nobody_listens(receive: Receive) -> None:
    """Of several addresses, the first that accepts gets the delivery, once."""
    receiver = receive(OK)
    url = receiver.url(host="socio.example")
    deliver(Webhook(url, SECRET, rules=OWN, resolver=lambda _host: ["127.0.0.2", *HERE]))
    assert len(receiver.requests) == 1


def test_where_nobody_listens_every_address_is_named(receive: Receive) -> None:
    """If no address accepts, the error says what each of them came to."""
    url = receive(OK).url(host="socio.example")
    with pytest.raises(DeliveryFailed, match=r"127\.0\.0\.2: .*refused; 127\.0\.0\.3: .*refused"):
        deliver(Webhook(url, SECRET, rules=OWN, resolver=lambda _host: ["127.0.0.2", "127.0.0.3"]))


def test_proxies_of_the_environment_are_not_used(receive: Receive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve the name itself, behind our check."""
    receiver, proxy = receive(OK), receive(OK)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url(""))
    deliver(Webhook(receiver.url(), SECRET, rules=OWN))
    assert (len(receiver.requests), proxy.connections) == (1, 0)


def test_a_redirect_is_not_followed(receive: Receive) -> None:
    """3xx is a failure that says where to, and nobody goes there."""
    elsewhere = receive(OK)
    receiver = receive(status(307, location=elsewhere.url("/x")))
    with pytest.raises(DeliveryFailed, match=r"answered 307, a redirect to http://127\.0\.0\.1:\d+/x; they are never"):
        deliver(Webhook(receiver.url(), SECRET, rules=OWN))
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    ("first", "rest"),
    [(b"", b"H"), (b"HTTP/1.1 200 OK\r\nx: ", b"y"), (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n")],
)
def test_a_receiver_that_drips_is_cut_at_the_deadline(receive: Receive, first: bytes, rest: bytes) -> None:
    """A byte now and then blocks no worker: at the deadline the connection is closed."""
    receiver = receive(drip(first, rest))
    with pytest.raises(DeliveryFailed, match=r"no complete answer within 0\.2 s"):
        deliver(Webhook(receiver.url(), SECRET, rules=OWN, timeouts=quick(total=0.2)))
    assert receiver.ended.wait(PATIENCE)


def test_a_receiver_that_says_nothing_fails_after_the_read_timeout(receive: Receive) -> None:
    """Silence ends the exchange and its connection before the deadline."""
    receiver = receive(silence)
    with pytest.raises(DeliveryFailed, match="did not answer in time"):
        deliver(Webhook(receiver.url(), SECRET, rules=OWN, timeouts=quick(read=0.05)))
    assert receiver.ended.wait(PATIENCE)


def test_a_handshake_that_never_ends_fails_after_the_connect_timeout(authority: Authority) -> None:
    """A port that accepts and then ignores TLS does not hold the worker."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/"
        with pytest.raises(DeliveryFailed, match="did not answer in time"):
            deliver(Webhook(url, SECRET, rules=OWN, tls=authority.client(), timeouts=quick(connect=0.05)))


def test_a_resolver_that_hangs_is_left_alone_at_the_deadline(receive: Receive) -> None:
    """The deadline holds for the resolver too; what it answers later leads nowhere."""
    receiver, answer = receive(OK), threading.Event()

    def slow(_host: str) -> list[str]:
        answer.wait(PATIENCE)
        return HERE

    with pytest.raises(DeliveryFailed, match="no complete answer"):
        deliver(Webhook(receiver.url(), SECRET, rules=OWN, resolver=slow, timeouts=quick(total=0.05)))
    answer.set()
    wait_for(lambda: all(thread.name != "cauce-outgoing" for thread in threading.enumerate()))
    assert receiver.connections == 0


def test_a_cancelled_delivery_ends_its_connection(receive: Receive) -> None:
    """A worker that stops, or a handler's own time limit, leaves no request behind."""
    receiver = receive(silence)

    async def main() -> None:
        task = asyncio.create_task(Webhook(receiver.url(), SECRET, rules=OWN, timeouts=quick())(event(), attempt()))
        await asyncio.to_thread(wait_for, lambda: receiver.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert receiver.ended.wait(PATIENCE)


@pytest.mark.parametrize("code", [200, 500])
def test_an_endless_body_is_not_read(receive: Receive, code: int) -> None:
    """Of a success nothing is read but its status, of a refusal the beginning: the connection ends while it flows."""
    receiver = receive(drip(f"HTTP/1.1 {code} X\r\n\r\n".encode() + b"y" * 10_000, b"y" * 100_000))
    webhook = Webhook(receiver.url(), SECRET, rules=OWN, timeouts=quick())
    if code == 200:
        deliver(webhook)
    else:
        with pytest.raises(DeliveryFailed, match=f"answered {code}: y{{500}}$"):
            deliver(webhook)
    assert receiver.ended.wait(PATIENCE)


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n"],
)
def test_what_is_not_http_is_a_failure(receive: Receive, answer: bytes) -> None:
    """Nothing, another protocol, a status that is none, too many headers: one kind of error, naming the receiver."""
    receiver = receive(answer)
    with pytest.raises(DeliveryFailed, match=rf"http://127\.0\.0\.1:{receiver.port} failed"):
        deliver(Webhook(receiver.url(), SECRET, rules=OWN))


def test_a_success_is_one_before_its_body_comes(receive: Receive) -> None:
    """A receiver that says 200 and keeps its body back has accepted the delivery, and is not waited for."""

    def late(conn: socket.socket, receiver: Receiver) -> None:
        conn.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        silence(conn, receiver)

    receiver = receive(late)
    deliver(Webhook(receiver.url(), SECRET, rules=OWN, timeouts=quick()))
    assert receiver.ended.wait(PATIENCE)
