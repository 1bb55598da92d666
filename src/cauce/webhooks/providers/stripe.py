"""Stripe: ``Stripe-Signature: t=<unix s>,v1=<hex>[,v1=<hex>...]``, HMAC-SHA256 over ``{t}.{body}``.

The key is the whole ``whsec_...`` text. While a secret is rolled the header holds one ``v1`` per active secret; other
schemes (``v0``) are ignored. Unlike Stripe's own library the tolerance holds to both sides and cannot be switched off.
Connect endpoints are another instance with their own secret; their events carry ``account``. Thin events
(``object: v2.core.event``) have ``id`` and ``type`` in the same places. Rules from https://docs.stripe.com/webhooks and
stripe-python 16.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cauce.webhooks.limits import MAX_BATCH
from cauce.webhooks.payload import JsonValue, Payload, Problem, at, split_batch, write_json
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.signing import HmacProvider, Pairs
from cauce.webhooks.verdict import SignedScope, Verified

if TYPE_CHECKING:
    from cauce.webhooks.provider import NuevoWebhook


_PAIRS = Pairs(",", "t", "v1")


@dataclass(frozen=True, kw_only=True)
class Stripe(HmacProvider):
    """Stripe, account or Connect endpoint, snapshot or thin events."""

    origen: str = "stripe"
    title: str = "Stripe"
    secret_setting: str = "STRIPE_WEBHOOK_SECRET"  # noqa: S105 - the name of a setting
    header: str = "Stripe-Signature"
    pairs: Pairs | None = _PAIRS
    template: str = "{timestamp}.{body}"
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:type",)
    keep_headers: tuple[str, ...] = ("stripe-signature",)
    volatile_fields: tuple[str, ...] = ("pending_webhooks",)
    documentation: ClassVar[str] = "https://docs.stripe.com/webhooks#verify-events"

    def from_trusted_transport(self, body: bytes) -> tuple[Verified, tuple[NuevoWebhook, ...]]:
        """Take events out of an AWS EventBridge or Azure Event Grid envelope, or of a list of them.

        There is **no signature**: call this only behind a transport that authenticates its sender (IAM, a private
        queue), never from a public URL. The event keeps Stripe's id, so one that also came as a webhook is a duplicate.
        A body without any Stripe event in it is kept raw.
        """
        request = WebhookRequest(body)
        events = tuple(self.event(request, payload) for payload in _unwrap(body))
        return Verified(scheme="trusted-transport", covered=SignedScope()), events


def is_thin(value: JsonValue) -> bool:
    """Say whether an event is a thin one: it names the object that changed, and must be fetched."""
    return at(value, "object") == "v2.core.event"


def _unwrap(body: bytes) -> tuple[Payload, ...]:
    """Return the Stripe events in an envelope: EventBridge's ``detail``, Event Grid's ``data``, or the event itself."""
    payloads = split_batch(body, MAX_BATCH)
    if payloads[0].problem and payloads[0].value is None:
        return payloads
    events = [_stripe_event(payload.value) for payload in payloads]
    if any(event is None for event in events):
        return (Payload(raw=body, problem=Problem.NOT_AN_EVENT, detail="no envelope of a Stripe event"),)
    return tuple(write_json(event) for event in events)


def _stripe_event(value: JsonValue) -> JsonValue:
    """Return the event inside one envelope; None if there is none."""
    for candidate in (value, at(value, "detail"), at(value, "data")):
        if at(candidate, "object") in ("event", "v2.core.event"):
            return candidate
    return None
