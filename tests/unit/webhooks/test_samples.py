"""The samples and the simulator's requests: every provider's, signed, verified and described by its own verifier."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from cauce.cli import simulator
from cauce.cli.simulator import Answered, Plan
from cauce.stripe import StripeEvent, StripeThinEvent
from cauce.webhooks import PROVIDERS, NuevoWebhook, Provider, Reason, Rejected, Secret, Verified, WebhookRequest
from cauce.webhooks.limits import MAX_ID
from cauce.webhooks.trying.keys import Keys, has_two_keys, new_keys
from cauce.webhooks.trying.samples import changed, samples_of

NOW = 1_764_000_000.0
EVERY = [(origen, tipo) for origen in PROVIDERS for tipo in samples_of(origen)]
KEYS: dict[str, Keys] = {}
every_provider = pytest.mark.parametrize("origen", PROVIDERS)


def keys_of(origen: str) -> Keys:
    """Make keys once."""
    return KEYS.setdefault(origen, new_keys(PROVIDERS[origen], NOW))


def provider_of(origen: str) -> Provider:
    """Return a provider that needs nothing from outside."""
    return keys_of(origen).trusted_by(PROVIDERS[origen])


def plan_of(origen: str, tipo: str = "", **more: object) -> Plan:
    """Plan a delivery of the first sample, or of another one."""
    tipo = tipo or next(iter(samples_of(origen)))
    plan = Plan(
        provider=provider_of(origen), tipo=tipo, url="http://a.example/api", secret=Secret(keys_of(origen).sign),
        started=NOW,
    )  # fmt: skip
    return replace(plan, **more)  # type: ignore[arg-type]  # fields of a Plan


def events_of(origen: str, request: WebhookRequest, now: float = NOW) -> tuple[NuevoWebhook, ...]:
    """Verify and describe."""
    provider = provider_of(origen)
    verdict = provider.verify(request, [Secret(keys_of(origen).verify)], now)
    assert isinstance(verdict, Verified), verdict
    return provider.describe(request, verdict)


def test_every_provider_has_samples() -> None:
    """No provider is without one, and no file is without a provider."""
    assert [origen for origen in PROVIDERS if not samples_of(origen)] == []
    assert samples_of("nobody") == {}


@pytest.mark.parametrize(("origen", "tipo"), EVERY)
def test_a_sample_is_the_event_it_is_named_after(origen: str, tipo: str) -> None:
    """Signed, it verifies, is stored as JSON under its own name, and no placeholder is left in it."""
    request = plan_of(origen, tipo).request(NOW)
    if provider_of(origen).handshake(request) is None:
        (event,) = events_of(origen, request)
        assert (event.tipo, event.error) == (tipo, None)
        assert len(event.id_externo) <= MAX_ID
    assert not any(
        f"{{{name}}}" in request.body.decode()
        for name in ("id", "uuid", "code", "hex", "sha", "digits", "number", "unix", "ms", "iso")
    )


@every_provider
def test_every_delivery_is_another_event_and_one_id_makes_them_one(origen: str) -> None:
    """Without an id two deliveries are two events; with one they are one, even a minute later."""
    plan = plan_of(origen)
    one, other = (events_of(origen, plan.request(NOW))[0].id_externo for _ in range(2))
    assert one != other
    named = replace(plan, id_externo="evt-1")
    moments = (NOW, NOW + 60)
    same = {events_of(origen, named.request(moment), moment)[0].id_externo for moment in moments}
    assert len(same) == 1


@every_provider
def test_a_bad_signature_is_bad_and_nothing_else(origen: str) -> None:
    """It is refused for its signature, not for its form."""
    request = plan_of(origen, bad_signature=True).request(NOW)
    verdict = provider_of(origen).verify(request, [Secret(keys_of(origen).verify)], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.BAD_SIGNATURE


@every_provider
def test_age_is_the_age_of_the_signature(origen: str) -> None:
    """Past the tolerance, to either side, it is refused where the time is signed, and the plan knows."""
    provider = provider_of(origen)
    for age, reason in ((provider.tolerance + 5, Reason.STALE), (-provider.tolerance - 5, Reason.FUTURE)):
        plan = plan_of(origen, age=age)
        verdict = provider.verify(plan.request(NOW), [Secret(keys_of(origen).verify)], NOW)
        if provider.signed.timestamp:
            assert isinstance(verdict, Rejected)
            assert verdict.reason is reason
            assert plan.wanted in (400, 401)
        else:
            assert isinstance(verdict, Verified)
            assert plan.wanted is None
    assert plan_of(origen, age=60.0).wanted is None


def test_stripe_samples_are_of_the_types_that_applications_name() -> None:
    """Snapshot events parse as StripeEvent, the thin one as StripeThinEvent, the one of Connect names its account."""
    for tipo in samples_of("stripe"):
        body = plan_of("stripe", tipo).request(NOW).body
        if tipo.startswith("v1."):
            assert StripeThinEvent.model_validate_json(body).type == tipo
        else:
            assert StripeEvent[dict[str, object]].model_validate_json(body).type == tipo
    assert "account" in json.loads(plan_of("stripe", "account.updated").request(NOW).body)


def test_changes_are_made_before_signing() -> None:
    """Paths go through objects and lists, into JSON and forms; a new last step is new."""
    stripe = plan_of("stripe", changes=[("data.object.amount_total", 4200), ("data.object.new", [1])]).request(NOW)
    thing = json.loads(stripe.body)["data"]["object"]
    assert (thing["amount_total"], thing["new"]) == (4200, [1])
    adyen = plan_of("adyen", changes=[("notificationItems.0.NotificationRequestItem.amount.value", 1)])
    assert json.loads(events_of("adyen", adyen.request(NOW))[0].payload or "")["amount"]["value"] == 1
    twilio = plan_of("twilio", changes=[("To", "+1")]).request(NOW)
    assert b"To=%2B1" in twilio.body


@pytest.mark.parametrize("path", ["a.b", "list.3", "list.x", "text.x", "", "list..x"])
def test_a_path_that_leads_nowhere_is_told(path: str) -> None:
    """It says what is there instead."""
    with pytest.raises(ValueError, match="there is"):
        changed({"list": [1], "text": "t"}, path, 1)


def test_an_unknown_type_names_the_known_ones() -> None:
    """Who mistypes a type reads which there are."""
    with pytest.raises(ValueError, match=r"no sample of 'invoice\.payed': there are .*invoice\.paid"):
        plan_of("stripe", "invoice.payed").request(NOW)


def test_a_body_from_a_file_is_sent_as_it_is() -> None:
    """Byte for byte, under the type and the id that were given."""
    body = b'{ "action" : "opened", "issue": {} }\n'
    request = plan_of("github", "issues.opened", body=body, id_externo="d-1").request(NOW)
    assert request.body == body
    assert (request.headers.get("x-github-event"), request.headers.get("x-github-delivery")) == ("issues", "d-1")
    assert plan_of("twilio", body=b"A=1").request(NOW).headers.get("content-type") == simulator.FORM


def test_only_those_with_two_keys_have_two() -> None:
    """Everybody else signs with the text that verifies."""
    assert {origen for origen in PROVIDERS if keys_of(origen).sign != keys_of(origen).verify} == {
        origen for origen in PROVIDERS if has_two_keys(PROVIDERS[origen])
    } == {"discord", "paypal", "sendgrid"}  # fmt: skip
    assert "whsec" not in repr(keys_of("stripe"))


@pytest.mark.parametrize(
    ("answers", "twice", "bad", "said"),
    [
        ([Answered(200)], False, False, ""),
        ([Answered(204)], False, False, ""),
        ([Answered(302)], False, False, "expected 2xx, got 302"),
        ([Answered(400, b"no")], False, False, "got 400 no"),
        ([Answered(400)], False, True, ""),
        ([Answered(200)], False, True, "expected 400"),
        ([Answered(503)], False, True, "expected 400"),
        ([Answered(None, problem="no answer: x")], False, False, "got no answer: x"),
        ([Answered(200, b'{"duplicado": false}'), Answered(200, b'{"duplicado": true}')], True, False, ""),
        ([Answered(200), Answered(200, b'{"duplicado": false}')], True, False, "not recognized"),
        ([Answered(200), Answered(200, b"[accepted]")], True, False, ""),
        ([Answered(200), Answered(500)], True, False, "got 500"),
    ],
)
def test_an_answer_is_judged_by_what_was_sent(*, answers: list[Answered], twice: bool, bad: bool, said: str) -> None:
    """2xx for a good delivery, the provider's refusal for a bad one, and a second one must be recognized."""
    fault = plan_of("stripe", twice=twice, bad_signature=bad).fault(answers)
    assert said in fault if said else fault == ""


def test_urls_of_inboxes() -> None:
    """A server gets the usual path, an address stays as it is, anything else is refused."""
    assert simulator.inbox_url("http://127.0.0.1:8000", "stripe") == "http://127.0.0.1:8000/api/webhooks/stripe"
    assert simulator.inbox_url("https://a.example/", "x") == "https://a.example/api/webhooks/x"
    assert simulator.inbox_url("http://a/hooks/s", "stripe") == "http://a/hooks/s"
    assert urlsplit(plan_of("mercadopago").request(NOW).url).query.startswith("data.id=")
    for wrong in ("127.0.0.1:8000", "ftp://a", "http://", ""):
        with pytest.raises(ValueError, match="is not a URL"):
            simulator.inbox_url(wrong, "stripe")
