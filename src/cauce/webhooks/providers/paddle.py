"""Paddle Billing: ``Paddle-Signature: ts=<unix s>;h1=<hex>[;h1=<hex>]`` over ``{ts}:{body}``, HMAC-SHA256.

Several ``h1`` come while a secret is rotated. Paddle's own library allows 5 s between signing and verifying, which a
busy proxy exceeds; here 300 s are allowed, and the signed ``event_id`` stops replays. Rules from
https://developer.paddle.com/webhooks/signature-verification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.signing import HmacProvider, Pairs

_PAIRS = Pairs(";", "ts", "h1")


@dataclass(frozen=True, kw_only=True)
class Paddle(HmacProvider):
    """Paddle Billing's notifications."""

    origen: str = "paddle"
    title: str = "Paddle"
    secret_setting: str = "PADDLE_WEBHOOK_SECRET"
    header: str = "Paddle-Signature"
    pairs: Pairs | None = _PAIRS
    template: str = "{timestamp}:{body}"
    id_from: tuple[str, ...] = ("body:event_id",)
    type_from: tuple[str, ...] = ("body:event_type",)
    keep_headers: tuple[str, ...] = ("paddle-signature",)
    answer_within: float = 5.0
    documentation: ClassVar[str] = "https://developer.paddle.com/webhooks/signature-verification"
