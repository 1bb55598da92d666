"""The inbox of the other providers: handshakes, batches, answers in their own manner, secrets from anywhere."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import httpx
import pytest

from cauce.webhooks import PROVIDERS, Draft, NuevoWebhook, Provider, Secret, Verified, WebhookRequest
from cauce.webhooks.signing import HmacProvider
from tests.integration.web.conftest import Inbox

SLACK_SECRET: Final = "slack's"
ACME = HmacProvider(
    origen="acme",
    secret_setting="ACME_WEBHOOK_SECRET",
    header="X-Acme-Signature",
    id_from=("body:id",),
    type_from=("body:type",),
)


def post(inbox: Inbox, request: WebhookRequest, origen: str) -> httpx.Response:
    """Post what a provider has signed."""
    headers = dict(request.headers)
    return inbox.request("POST", f"/api/webhooks/{origen}", content=request.body, headers=headers)


def sign(provider: Provider, secret: str, event: object) -> WebhookRequest:
    """Sign as the provider does."""
    return provider.sign(Draft(json.dumps(event).encode()), Secret(secret), time.time())


def test_secrets_come_from_the_environment(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that the provider names holds its secret; it is read for every delivery."""
    request = sign(PROVIDERS["slack"], SLACK_SECRET, {"type": "event_callback", "event_id": "Ev1"})
    assert post(inbox, request, "slack").json()["error"] == "sin_secreto"
    monkeypatch.setenv("SLACK_SIGNING_SECRET", SLACK_SECRET)
    assert post(inbox, request, "slack").status_code == 200
    assert [(evento["origen"], evento["id_externo"]) for evento in inbox.events()] == [("slack", "Ev1")]


def test_secrets_come_from_a_callable(inbox: Inbox) -> None:
    """It is asked by the setting's name, every time, so that a rotation needs no restart; None is no secret."""
    held: dict[str, str] = {}
    inbox.configure(secrets=held.get)
    stripe = PROVIDERS["stripe"]
    statuses: list[int] = []
    for number, secret in enumerate(["first", "second"]):
        request = sign(stripe, secret, {"id": f"evt_{number}", "type": "t"})
        statuses.append(post(inbox, request, "stripe").status_code)
        held["STRIPE_WEBHOOK_SECRET"] = secret
        statuses.append(post(inbox, request, "stripe").status_code)
    assert statuses == [503, 200, 400, 200]
    assert [evento["id_externo"] for evento in inbox.events()] == ["evt_0", "evt_1"]


def test_a_provider_of_ones_own(inbox: Inbox) -> None:
    """What is given to the application is served beside the known ones, and instead of one of the same name."""
    connect = replace(PROVIDERS["stripe"], secret_setting="STRIPE_CONNECT_WEBHOOK_SECRET")
    secrets: Mapping[str, str] = {"ACME_WEBHOOK_SECRET": "a", "STRIPE_CONNECT_WEBHOOK_SECRET": "c"}
    inbox.configure(providers=[ACME, connect], secrets=secrets.get)
    for provider, secret in ((ACME, "a"), (connect, "c")):
        request = sign(provider, secret, {"id": "1", "type": "t"})
        assert post(inbox, request, provider.origen).status_code == 200
    assert [evento["origen"] for evento in inbox.events()] == ["acme", "stripe"]


def test_an_unknown_origin(inbox: Inbox) -> None:
    """404, whatever the method, and nothing stored."""
    for method in ("POST", "GET"):
        answer = inbox.request(method, "/api/webhooks/nobody", content=b"{}")
        assert (answer.status_code, answer.json()["error"]) == (404, "origen_desconocido")
    assert inbox.events() == []


def test_a_handshake_is_answered_and_not_stored(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slack's challenge comes back if it is signed, and only then."""
    monkeypatch.setenv("SLACK_SIGNING_SECRET", SLACK_SECRET)
    event = {"type": "url_verification", "challenge": "3eZbrw1a"}
    answer = post(inbox, sign(PROVIDERS["slack"], SLACK_SECRET, event), "slack")
    assert (answer.status_code, answer.text) == (200, "3eZbrw1a")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert post(inbox, sign(PROVIDERS["slack"], "other", event), "slack").status_code == 400
    assert inbox.events() == []


def test_a_request_that_is_no_delivery_is_answered_before_verification(inbox: Inbox) -> None:
    """Intercom tries an endpoint with HEAD; Mercado Pago sends an unsigned twin of every webhook."""
    assert inbox.request("HEAD", "/api/webhooks/intercom").status_code == 200
    assert inbox.request("POST", "/api/webhooks/mercadopago?topic=payment&id=1").status_code == 200
    assert inbox.events() == []


def test_answers_in_the_manner_of_the_provider(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Discord wants 401 for a bad signature and 204, without a body, for an event."""
    private, public = "11" * 32, "d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737"
    monkeypatch.setenv("DISCORD_PUBLIC_KEY", public)
    event = {"type": 1, "event": {"type": "ENTITLEMENT_CREATE"}}
    answer = post(inbox, sign(PROVIDERS["discord"], private, event), "discord")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    assert post(inbox, sign(PROVIDERS["discord"], "22" * 32, event), "discord").status_code == 401
    assert [evento["tipo"] for evento in inbox.events()] == ["ENTITLEMENT_CREATE"]


def adyen_item(reference: str) -> dict[str, object]:
    """One item of Adyen's."""
    return {
        "NotificationRequestItem": {
            "eventCode": "AUTHORISATION",
            "pspReference": reference,
            "success": "true",
            "merchantAccountCode": "shop",
            "amount": {"value": 100, "currency": "EUR"},
        }
    }


def test_a_batch_is_stored_whole(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every item is an event, in the order they came; one that came before is stored once."""
    monkeypatch.setenv("ADYEN_HMAC_KEY", "AB" * 32)
    for references in (["b"], ["c", "b", "a"]):
        batch = {"live": "false", "notificationItems": [adyen_item(reference) for reference in references]}
        answer = post(inbox, sign(PROVIDERS["adyen"], "AB" * 32, batch), "adyen")
        assert (answer.status_code, answer.text) == (200, "[accepted]")
    assert [evento["payload"]["pspReference"] for evento in inbox.events()] == ["b", "c", "a"]


def test_the_bytes_of_a_batch_are_kept_once(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its first event, and not with each: a thousand events would keep a thousand copies."""
    monkeypatch.setenv("ADYEN_HMAC_KEY", "AB" * 32)
    batch = {"live": "false", "notificationItems": [adyen_item(reference) for reference in "abc"]}
    request = sign(PROVIDERS["adyen"], "AB" * 32, batch)
    post(inbox, request, "adyen")
    assert [evento["cuerpo"] for evento in inbox.events()] == [request.body, None, None]


@dataclass(frozen=True, kw_only=True)
class Batches(HmacProvider):
    """A provider whose bodies are lists, for the answer to a batch."""

    def describe(self, request: WebhookRequest, verified: Verified) -> tuple[NuevoWebhook, ...]:
        """Make an event of each name in the list."""
        (whole,) = super().describe(request, verified)
        names = json.loads(request.body)
        return tuple(replace(whole, id_externo=name, payload=json.dumps(name)) for name in names)


LISTS = Batches(origen="lists", secret_setting="LISTS", header="X-Signature")


@pytest.mark.parametrize("names", [["a", "b", "a", "c"], []])
def test_the_answer_to_a_batch(inbox: Inbox, names: list[str]) -> None:
    """All ids, in the order of the batch, and those of them that had come before."""
    inbox.configure(providers=[LISTS], secrets={"LISTS": "s"}.get)
    answer = post(inbox, sign(LISTS, "s", names), "lists")
    stored = {evento["id_externo"]: evento["id"] for evento in inbox.events()}
    assert list(stored) == list(dict.fromkeys(names))
    duplicates = [stored[name] for number, name in enumerate(names) if name in names[:number]]
    assert answer.json() == {"ids": [stored[name] for name in names], "duplicados": duplicates}


@pytest.mark.parametrize("names", [["bad"], ["a", "bad", "c"]])
def test_what_the_table_refuses_is_kept_raw(inbox: Inbox, names: list[str]) -> None:
    """A payload whose key is too long for its column was verified all the same; the rest of its batch is as usual."""
    inbox.query("insert into cauce.catalogo values ('lists', 'desconocido', 5, 'key') returning 1")
    provider = Keys(origen="lists", secret_setting="LISTS", header="X-S")
    inbox.configure(providers=[provider], secrets={"LISTS": "s"}.get)
    answer = post(inbox, sign(provider, "s", names), "lists")
    assert answer.status_code == 200
    events = {evento["id_externo"]: evento for evento in inbox.events()}
    assert list(events) == names
    assert {name: evento["estado"] for name, evento in events.items()} == {
        name: "error" if name == "bad" else "pendiente" for name in names
    }
    content = {"key": "bad" * 200} if len(names) > 1 else ["bad"]  # the item of a batch, or the delivery's own bytes
    assert json.loads(events["bad"]["cuerpo"]) == content
    assert "too long" in events["bad"]["ultimo_error"]


@dataclass(frozen=True, kw_only=True)
class Keys(Batches):
    """The same, with payloads whose key is short or very long."""

    def describe(self, request: WebhookRequest, verified: Verified) -> tuple[NuevoWebhook, ...]:
        """Make the key of the name."""
        webhooks = super().describe(request, verified)
        return tuple(
            replace(one, payload=json.dumps({"key": one.id_externo * (200 if one.id_externo == "bad" else 1)}))
            for one in webhooks
        )


def test_the_address_that_is_signed_is_the_one_that_was_called(inbox: Inbox) -> None:
    """Scheme, host, path and query, as they came; forwarded headers say nothing."""
    square = PROVIDERS["square"]
    inbox.configure(secrets={square.secret_setting: "s"}.get)
    url = "http://test/api/webhooks/square?a=%20b"
    request = square.sign(Draft(b'{"event_id": "1", "type": "t"}', url=url), Secret("s"), time.time())
    path, headers = url.removeprefix("http://test"), dict(request.headers)
    forwarded = {**headers, "x-forwarded-host": "elsewhere", "x-forwarded-proto": "https"}
    assert inbox.request("POST", path, content=request.body, headers=forwarded).status_code == 200
    elsewhere = {**headers, "host": "elsewhere"}
    assert inbox.request("POST", path, content=request.body, headers=elsewhere).status_code == 400
    assert [evento["id_externo"] for evento in inbox.events()] == ["1"]
