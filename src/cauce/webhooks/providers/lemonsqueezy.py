"""Lemon Squeezy: ``X-Signature``, hex HMAC-SHA256 over the body.

There is no timestamp and no event id (``meta.webhook_id`` is the endpoint's), so an event is identified by a hash of
its body. The type is read from the signed body, not from ``X-Event-Name``. Only a 200 counts as success, not any 2xx.
Rules from https://docs.lemonsqueezy.com/help/webhooks/signing-requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.signing import HmacProvider


@dataclass(frozen=True, kw_only=True)
class LemonSqueezy(HmacProvider):
    """Lemon Squeezy's webhooks."""

    origen: str = "lemonsqueezy"
    title: str = "Lemon Squeezy"
    secret_setting: str = "LEMONSQUEEZY_WEBHOOK_SECRET"
    header: str = "X-Signature"
    type_from: tuple[str, ...] = ("body:meta.event_name",)
    keep_headers: tuple[str, ...] = ("x-signature",)
    retry_horizon: float = 600.0
    documentation: ClassVar[str] = "https://docs.lemonsqueezy.com/help/webhooks/signing-requests"
