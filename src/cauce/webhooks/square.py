"""Square: ``x-square-hmacsha256-signature``, base64 HMAC-SHA256 over ``{url}{body}``.

The URL is the one registered with Square: give it as ``public_url``, or see to it that the request's own is that one.
Rules from https://developer.squareup.com/docs/webhooks/step3validate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.provider import DAY
from cauce.webhooks.signing import Encoding, HmacProvider


@dataclass(frozen=True, kw_only=True)
class Square(HmacProvider):
    """Square's webhooks."""

    origen: str = "square"
    secret_setting: str = "SQUARE_WEBHOOK_SIGNATURE_KEY"  # noqa: S105 - the name of a setting
    header: str = "x-square-hmacsha256-signature"
    encoding: Encoding = "base64"
    template: str = "{url}{body}"
    id_from: tuple[str, ...] = ("body:event_id",)
    type_from: tuple[str, ...] = ("body:type",)
    keep_headers: tuple[str, ...] = ("x-square-hmacsha256-signature", "square-retry-number", "square-retry-reason")
    retry_horizon: float = 3 * DAY  # the current page says 24 h, an older one 72 h
    documentation: ClassVar[str] = "https://developer.squareup.com/docs/webhooks/step3validate"
