"""Stripe's endpoint: what is signed is stored once, and nothing else is stored."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
import stripe

from tests.integration.web.conftest import Inbox, Sign

SECRET = "whsec_one"


def test_a_signed_delivery_is_stored_and_answered_with_its_id(inbox: Inbox, signed: Sign) -> None:
    """The event is in the table as Stripe sent it, to the byte, first in line, with the verdict beside it."""
    delivery = signed()
    answer = inbox.deliver(delivery)
    (evento,) = inbox.events()
    assert (answer.status_code, answer.json()) == (200, {"id": evento["id"], "duplicado": False})
    assert answer.headers["content-type"] == "application/json"
    assert (evento["origen"], evento["tipo"]) == ("stripe", "checkout.session.completed")
    assert (evento["id_externo"], evento["payload"]["data"]) == ("evt_1", {"object": {"id": "cs_1"}})
    assert (evento["estado"], evento["prioridad"], evento["cuerpo"]) == ("pendiente", 0, delivery.body)
    verdict, headers = evento["cabeceras"]["webhook"], evento["cabeceras"]["headers"]
    assert (verdict["esquema"], verdict["cubre"]) == ("hmac-sha256", ["raw_body", "timestamp"])
    assert (verdict["secreto"], verdict["sin_firmar"]) == (0, [])
    assert headers.keys() == {"content-type", "stripe-signature"}


def test_the_bytes_are_kept_that_json_would_lose(inbox: Inbox, signed: Sign) -> None:
    """Order, doubled keys and the spelling of numbers are in ``cuerpo``, unless a setting says no."""
    body = '{"type": "t", "id": "evt_1", "amount": 1.50, "amount": 1.5e0}'
    inbox.deliver(signed(body=body))
    inbox.configure(keep_raw_bodies=False)
    inbox.deliver(signed(body=body.replace("evt_1", "evt_2")))
    assert [evento["cuerpo"] for evento in inbox.events()] == [body.encode(), None]


def test_a_byte_order_mark_is_kept_and_passed_over(inbox: Inbox, signed: Sign) -> None:
    """It is signed as it came; the payload is read, and the bytes have it still. Verified again, it is the same."""
    delivery = signed(body='\ufeff{"type": "t", "id": "evt_1"}')
    inbox.deliver(delivery)
    assert inbox.deliver(delivery).json()["duplicado"]
    (evento,) = inbox.events()
    assert (evento["estado"], evento["tipo"], evento["payload"]["id"]) == ("pendiente", "t", "evt_1")
    assert evento["cuerpo"] == delivery.body
    assert evento["cuerpo"].startswith(b"\xef\xbb\xbf{")


def test_stripes_own_library_accepts_what_is_accepted_here(inbox: Inbox, signed: Sign) -> None:
    """The same bytes and header pass Stripe's verification."""
    delivery = signed()
    stripe.WebhookSignature.verify_header(
        delivery.body.decode(), delivery.headers["stripe-signature"], SECRET, tolerance=300
    )
    assert inbox.deliver(delivery).status_code == 200
    assert len(inbox.events()) == 1


@pytest.mark.parametrize("age", [310, -310], ids=["stale", "future"])
def test_a_timestamp_out_of_tolerance_is_refused(inbox: Inbox, signed: Sign, age: float) -> None:
    """Five minutes to either side, and no more."""
    answer = inbox.deliver(signed(age=age))
    assert (answer.status_code, answer.json()["error"]) == (400, "firma_invalida")
    assert inbox.events() == []


@pytest.mark.parametrize("age", [290, -290], ids=["late", "early"])
def test_a_timestamp_within_tolerance_is_accepted(inbox: Inbox, signed: Sign, age: float) -> None:
    """Clocks may differ by less than five minutes, either way."""
    assert inbox.deliver(signed(age=age)).status_code == 200
    assert len(inbox.events()) == 1


def test_a_bad_signature_is_refused(inbox: Inbox, signed: Sign) -> None:
    """Another secret's signature, another body, no header: 400, nothing stored, nothing told that is not theirs."""
    good = signed()
    attacks = [
        signed(secrets=["whsec_other"]),
        good._replace(body=good.body + b" "),
        good._replace(headers={}),
        good._replace(headers={"stripe-signature": "t=1,v0=" + "0" * 64}),
    ]
    for attack in attacks:
        answer = inbox.deliver(attack)
        assert (answer.status_code, answer.json()["error"]) == (400, "firma_invalida")
        assert SECRET not in answer.text
        assert "cs_1" not in answer.text
    assert inbox.events() == []


def test_one_of_several_signatures_is_enough(inbox: Inbox, signed: Sign) -> None:
    """While Stripe rolls a secret it signs with both."""
    assert inbox.deliver(signed(secrets=["whsec_rolled", SECRET])).status_code == 200
    assert inbox.events()[0]["cabeceras"]["webhook"]["secreto"] == 0


def test_two_secrets_are_accepted_during_rotation(inbox: Inbox, signed: Sign) -> None:
    """Either secret signs; the event says which one did."""
    inbox.configure(stripe_webhook_secret=f"whsec_two, {SECRET}")
    for number, secret in enumerate([SECRET, "whsec_two"]):
        assert inbox.deliver(signed({"id": f"evt_{number}", "type": "t"}, secrets=[secret])).status_code == 200
    assert inbox.deliver(signed({"id": "evt_x"}, secrets=["whsec_three"])).status_code == 400
    verdicts = [(evento["id_externo"], evento["cabeceras"]["webhook"]["secreto"]) for evento in inbox.events()]
    assert verdicts == [("evt_0", 1), ("evt_1", 0)]


def test_twenty_at_once_are_stored_once(inbox: Inbox, signed: Sign) -> None:
    """However often and however fast it comes: one row, one answer that says it is new, all with its id."""
    delivery = signed()

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        posts = [
            client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers) for _ in range(20)
        ]
        return await asyncio.gather(*posts)

    answers = inbox.run(work)
    (evento,) = inbox.events()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["id"] for answer in answers} == {evento["id"]}
    assert sorted(answer.json()["duplicado"] for answer in answers) == [False] + [True] * 19


def test_a_duplicate_with_another_body_raises_an_alarm(
    inbox: Inbox, signed: Sign, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one stays; the log says which fields of the second differ, and is silent about an equal one."""
    first = {"id": "evt_1", "type": "t", "amount": 1, "pending_webhooks": 2}
    inbox.deliver(signed(first))
    with caplog.at_level(logging.WARNING, "cauce.web"):
        again = {**dict(reversed(first.items())), "pending_webhooks": 1}  # counts deliveries that Stripe still owes
        assert inbox.deliver(signed(again)).json()["duplicado"] is True
        assert caplog.messages == []
        assert inbox.deliver(signed({**first, "amount": 2})).json()["duplicado"] is True
    (message,) = caplog.messages
    assert message.endswith("differs in amount")
    (evento,) = inbox.events()
    assert evento["payload"] == first


def test_a_type_that_nobody_knows_is_stored(inbox: Inbox, signed: Sign) -> None:
    """The inbox keeps what is signed; whether anybody handles it is the bus's question."""
    assert inbox.deliver(signed({"id": "evt_9", "type": "never.heard.of"})).status_code == 200
    (evento,) = inbox.events()
    assert (evento["tipo"], evento["estado"]) == ("never.heard.of", "pendiente")


@pytest.mark.parametrize(
    "body",
    ['{"id": "evt_1", "type": "t", "text": "a\\u0000b"}', '{"id": "evt_1",', "", '{"id": "evt_1", "n": NaN}'],
    ids=["nul", "broken", "empty", "nan"],
)
def test_a_signed_body_that_is_no_json_of_postgresql_is_kept_raw(inbox: Inbox, signed: Sign, body: str) -> None:
    """It was verified, so it is not lost: the bytes are in ``cuerpo``, the event is in error and says why."""
    delivery = signed(body=body)
    answers = [inbox.deliver(delivery) for _ in range(2)]
    (evento,) = inbox.events()
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"id": evento["id"], "duplicado": duplicado}) for duplicado in (False, True)
    ]
    assert (evento["estado"], evento["payload"], evento["cuerpo"]) == ("error", None, body.encode())
    assert evento["ultimo_error"]


def test_a_raw_body_is_kept_whatever_the_setting_says(inbox: Inbox, signed: Sign) -> None:
    """``CAUCE_KEEP_RAW_BODIES`` is about what is kept twice; of what is no JSON there is nothing else."""
    inbox.configure(keep_raw_bodies=False)
    inbox.deliver(signed(body="{"))
    assert inbox.events()[0]["cuerpo"] == b"{"


def test_a_duplicate_of_what_is_kept_raw(inbox: Inbox, signed: Sign, caplog: pytest.LogCaptureFixture) -> None:
    """The same bytes again are no alarm, whatever was refused of them the first time."""
    inbox.query("insert into cauce.catalogo values ('stripe', 't', 0, 'key') returning 1")
    delivery = signed({"id": "evt_1", "type": "t", "key": "k" * 501})
    for keep in (True, False):
        inbox.configure(keep_raw_bodies=keep)
        assert inbox.deliver(delivery).status_code == 200
    assert [evento["cuerpo"] for evento in inbox.events()] == [delivery.body]
    assert caplog.messages == []


@pytest.mark.parametrize("secret", ["", " , "])
def test_without_a_secret_nothing_is_accepted(inbox: Inbox, signed: Sign, secret: str) -> None:
    """503, for Stripe will try again when there is one; a signature with the empty secret is no signature."""
    inbox.configure(stripe_webhook_secret=secret)
    for delivery in (signed(), signed(secrets=[secret])):
        answer = inbox.deliver(delivery)
        assert (answer.status_code, answer.json()["error"]) == (503, "sin_secreto")
    assert inbox.events() == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_post_delivers(inbox: Inbox, signed: Sign, method: str) -> None:
    """Other methods are told so, even with a good signature."""
    delivery = signed()
    answer = inbox.request(method, "/api/webhooks/stripe", content=delivery.body, headers=delivery.headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or answer.json()["error"] == "metodo_no_permitido"
    assert inbox.events() == []
