"""`cauce.stripe`: Stripe's payloads, typed, and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from cauce import Catalog, Evento, EventType
from cauce.handlers import takes_payload
from cauce.stripe import StripeEvent, StripeThinEvent


class Charge(BaseModel):
    """As much of a charge as these tests use."""

    id: str
    amount: int


class Refund(BaseModel):
    """Another object."""

    id: str


class ChargeEvents(Catalog, origen="stripe", prioridad=0):
    """Events of charges."""

    updated = EventType("charge.updated", StripeEvent[Charge])


# The fields of https://docs.stripe.com/api/events/object, one of a newer version, and one of the object's.
SNAPSHOT: dict[str, Any] = {
    "id": "evt_1",
    "object": "event",
    "account": "acct_1",
    "api_version": "2025-09-30.clover",
    "created": 1_760_000_000,
    "data": {
        "object": {"id": "ch_1", "object": "charge", "amount": 1000},
        "previous_attributes": {"amount": 900},
    },
    "livemode": False,
    "pending_webhooks": 2,
    "request": {"id": "req_1", "idempotency_key": "key"},
    "type": "charge.updated",
    "context": "acct_1",
}


def test_a_snapshot_event_is_typed() -> None:
    """The object inside has the application's type; what is around it has Stripe's."""
    payload = ChargeEvents.updated.adapter.validate_json(json.dumps(SNAPSHOT))
    assert payload.data.object == Charge(id="ch_1", amount=1000)
    assert payload.data.previous_attributes == {"amount": 900}
    assert payload.request is not None
    assert (payload.id, payload.created, payload.account) == ("evt_1", 1_760_000_000, "acct_1")
    assert (payload.request.id, payload.request.idempotency_key) == ("req_1", "key")


def test_unknown_fields_are_kept() -> None:
    """A field that Stripe added is no fault, and is written back when the event is."""
    payload = ChargeEvents.updated.adapter.validate_python(SNAPSHOT)
    assert payload.model_extra == {"context": "acct_1"}
    written = json.loads(ChargeEvents.updated.dump(payload))
    assert {**written, "data": None} == {**SNAPSHOT, "data": None}


def test_what_stripe_may_leave_out_may_be_missing() -> None:
    """An event needs its id, name, moment and object, as a test or a tool would write it."""
    few = {name: SNAPSHOT[name] for name in ("id", "type", "created", "data")}
    payload = ChargeEvents.updated.adapter.validate_python(few)
    assert (payload.account, payload.request, payload.livemode) == (None, None, False)


@pytest.mark.parametrize("name", ["id", "type", "created", "data"])
def test_what_makes_an_event_must_be_there(name: str) -> None:
    """Without one of them it is none, and the error names it."""
    with pytest.raises(ValidationError, match=rf"(?m)^{name}$"):
        ChargeEvents.updated.adapter.validate_python({key: SNAPSHOT[key] for key in SNAPSHOT if key != name})


def test_the_object_inside_must_fit_its_type() -> None:
    """An event of another object is refused, with the path to the fault."""
    strange = {**SNAPSHOT, "data": {"object": {"id": "cs_1", "object": "checkout.session"}}}
    with pytest.raises(ValidationError, match=r"data\.object\.amount"):
        ChargeEvents.updated.adapter.validate_python(strange)


def test_a_thin_event_is_not_a_snapshot() -> None:
    """The two styles do not pass for each other."""
    thin = {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "created": "2026-11-24T10:00:00.000Z",
        "livemode": True,
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
    }
    event = StripeThinEvent.model_validate(thin)
    assert event.related_object is not None
    assert event.related_object.url == "/v1/billing/meters/mtr_1"
    with pytest.raises(ValidationError):
        ChargeEvents.updated.adapter.validate_python(thin)
    with pytest.raises(ValidationError):
        StripeThinEvent.model_validate(SNAPSHOT)


def test_a_handler_is_known_by_the_object_inside() -> None:
    """The bus tells a handler of one Stripe object from that of another at start-up."""

    async def charged(evento: Evento[StripeEvent[Charge]]) -> None:
        """Handle a charge."""

    async def refunded(evento: Evento[StripeEvent[Refund]]) -> None:
        """Handle a refund."""

    assert takes_payload(charged, ChargeEvents.updated)
    assert not takes_payload(refunded, ChargeEvents.updated)
