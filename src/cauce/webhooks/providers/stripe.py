"""Stripe: ``Stripe-Signature: t=<unix s>,v1=<hex>[,v1=<hex>...]``, HMAC-SHA256 over ``{t}.{body}``.

The key is the whole ``whsec_...`` text. While a secret is rolled the header holds one ``v1`` per active secret; other
schemes (``v0``) are ignored. Unlike Stripe's own library the tolerance holds to both sides and cannot be switched off.
Connect endpoints are another instance with their own secret; their events carry ``account``. Thin events
(``object: v2.core.event``) have ``id`` and ``type`` in the same places. Rules from https://docs.stripe.com/webhooks and
stripe-python 16.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.signing import HmacProvider, Pairs

_PAIRS = Pairs(",", "t", "v1")


@dataclass(frozen=True, kw_only=True)
class Stripe(HmacProvider):
    """Stripe, account or Connect endpoint, snapshot or thin events."""

    origen: str = "stripe"
    title: str = "Stripe"
    secret_setting: str = "STRIPE_WEBHOOK_SECRET"
    header: str = "Stripe-Signature"
    pairs: Pairs | None = _PAIRS
    template: str = "{timestamp}.{body}"
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:type",)
    keep_headers: tuple[str, ...] = ("stripe-signature",)
    volatile_fields: tuple[str, ...] = ("pending_webhooks",)
    documentation: ClassVar[str] = "https://docs.stripe.com/webhooks#verify-events"
