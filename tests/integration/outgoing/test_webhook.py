"""What each answer of a receiver means for the delivery."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from standardwebhooks.webhooks import Webhook as Official

from cauce import ConfigError, Discard, RetryAfter, RetryPolicy
from cauce.outgoing import MAX_RETRY_AFTER, WEBHOOK_RETRY, DeliveryFailed, Webhook, new_secret
from cauce.outgoing.sending import retry_after_seconds
from tests.integration.outgoing.kit import OK, OWN, SECRET, Receiver, attempt, deliver, status

if TYPE_CHECKING:
    Receive = Callable[..., Receiver]

AT_ONCE = RetryPolicy(max_attempts=3, base=0.0)
NOW = 1_764_000_000.0


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_any_2xx_is_done(receive: Receive, code: int) -> None:
    """The handler returns, whatever the body."""
    receiver = receive(status(code, b"<html>"))
    deliver(Webhook(receiver.url(), SECRET, rules=OWN))
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("code", [301, 400, 401, 404, 409, 429, 500, 502, 503])
def test_anything_else_is_a_failure_to_be_tried_again(receive: Receive, code: int) -> None:
    """4xx too: receivers answer so during a deploy or while misconfigured, and are corrected later."""
    receiver = receive(status(code, b"what went wrong"))
    with pytest.raises(DeliveryFailed, match=rf"http://127\.0\.0\.1:\d+ answered {code}.*: what went wrong$"):
        deliver(Webhook(receiver.url("/hush-hush"), SECRET, rules=OWN))


def test_410_gives_the_delivery_up(receive: Receive) -> None:
    """410 is permanent: there is no other attempt."""
    receiver = receive(status(410, b"moved out"))
    with pytest.raises(Discard, match="answered 410: moved out"):
        deliver(Webhook(receiver.url(), SECRET, rules=OWN))


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_retry_after_is_granted(receive: Receive, code: int) -> None:
    """The next attempt comes no sooner than the receiver asks for."""
    receiver = receive(status(code, retry_after="120"))
    with pytest.raises(RetryAfter, match=f"answered {code}") as caught:
        deliver(Webhook(receiver.url(), SECRET, rules=OWN, retry=AT_ONCE))
    assert caught.value.seconds == 120


def test_retry_after_does_not_count_elsewhere(receive: Receive) -> None:
    """A plain failure is tried again by the policy, whatever it asks for."""
    receiver = receive(status(500, retry_after="120"))
    with pytest.raises(DeliveryFailed):
        deliver(Webhook(receiver.url(), SECRET, rules=OWN))


def test_retry_after_is_capped(receive: Receive) -> None:
    """A receiver cannot delay a delivery for years."""
    receiver = receive(status(503, retry_after="999999999"))
    with pytest.raises(RetryAfter) as caught:
        deliver(Webhook(receiver.url(), SECRET, rules=OWN, retry=AT_ONCE))
    assert caught.value.seconds == MAX_RETRY_AFTER


def test_retry_after_does_not_hurry_the_policy(receive: Receive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy's own wait is added: "0" does not spend the attempts in a minute, "60" does not gather a crowd."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda _policy, number: 1000.0 * number)
    receiver = receive(status(503, retry_after="0"), status(503, retry_after="60"))
    webhook = Webhook(receiver.url(), SECRET, rules=OWN)
    waits: list[float] = []
    for number in (2, 3):
        with pytest.raises(RetryAfter) as caught:
            deliver(webhook, number)
        waits.append(caught.value.seconds)
    assert waits == [2000, 3060]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW + 90), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("1" * 20, None),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    """Both forms of RFC 9110 are read; what is neither is as if it were not there."""
    assert retry_after_seconds(text, NOW) == seconds


def test_the_schedule_spans_days() -> None:
    """The default schedule takes three days on average, and does not hurry its first steps."""
    longest = [WEBHOOK_RETRY.longest(number) for number in range(1, WEBHOOK_RETRY.max_attempts)]
    assert longest[0] == 10
    assert 3 <= sum(longest) / 2 / 86_400 < 3.2
    assert max(longest) == 28_800


def test_every_attempt_has_the_same_id_and_body(receive: Receive) -> None:
    """The receiver can tell a repetition: what differs is the time and its signature."""
    receiver = receive(status(500), OK)
    webhook = Webhook(receiver.url(), SECRET, rules=OWN)
    with pytest.raises(DeliveryFailed):
        deliver(webhook)
    deliver(webhook, 2)
    one, two = receiver.requests
    assert one.headers["webhook-id"] == two.headers["webhook-id"]
    assert one.body == two.body


def test_a_function_gives_the_secrets_of_the_moment(receive: Receive) -> None:
    """During a rotation the deliveries carry both signatures, after it the new one, without a restart."""
    receiver = receive(OK)
    old, new = SECRET, new_secret()
    moment = iter([f"{old},{new}", new])
    webhook = Webhook(receiver.url(), lambda: next(moment), rules=OWN)
    deliver(webhook)
    deliver(webhook)
    both, last = receiver.requests
    for secret, request in ((old, both), (new, both), (new, last)):
        Official(secret).verify(request.body, dict(request.headers.items()))
    assert len(last.headers["webhook-signature"].split(" ")) == 1


def test_without_a_secret_nothing_is_sent(receive: Receive) -> None:
    """A secret that is missing, at the start or later, never means an unsigned delivery."""
    receiver = receive(OK)
    with pytest.raises(ConfigError, match="needs a secret"):
        Webhook(receiver.url(), "", rules=OWN)
    with pytest.raises(ConfigError, match="needs a secret"):
        deliver(Webhook(receiver.url(), lambda: "", rules=OWN))
    assert receiver.connections == 0


def test_neither_secret_nor_path_is_told(receive: Receive) -> None:
    """A receiver's error page may show our secret, and its URL may be one: neither reaches log nor database."""
    page = f"<h1>500</h1>\r\nWEBHOOK_SECRET={SECRET}\0\x1b[31m KEY={SECRET[6:]}".encode()
    receiver = receive(status(500, page))
    webhook = Webhook(receiver.url("/token-hush-hush"), SECRET, rules=OWN)
    with pytest.raises(DeliveryFailed) as caught:
        deliver(webhook)
    told = f"{caught.value} {webhook!r} {webhook.destino}"
    assert "<h1>500</h1> WEBHOOK_SECRET=(secret) [31m KEY=(secret)" in told
    assert SECRET[6:] not in told
    assert "hush" not in told


def test_destinations_have_names_of_their_own() -> None:
    """By default two URLs of a host are two destinations, and one URL is the same in every process."""
    one, again, two = (Webhook(f"https://socio.example/{path}", SECRET) for path in ("a", "a", "b"))
    assert one.destino == again.destino != two.destino
    assert one.destino.startswith("socio.example/")
    assert Webhook("https://socio.example/a", SECRET, destino="socio").destino == "socio"
    assert attempt().subscriber not in {one.destino, two.destino}
