"""Zendesk: ``X-Zendesk-Webhook-Signature``, base64 HMAC-SHA256 over ``{timestamp}{body}``, the timestamp in ISO 8601.

Zendesk gives no tolerance and does not say whether a later attempt is signed again, so an hour is allowed here; the
signed ``id`` of its events stops replays. Rules from https://developer.zendesk.com/documentation/webhooks/verifying/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.signing import Encoding, HmacProvider, TimestampFormat


@dataclass(frozen=True, kw_only=True)
class Zendesk(HmacProvider):
    """Zendesk's event webhooks; those of triggers have the body their owner wrote, and are identified by its hash."""

    origen: str = "zendesk"
    title: str = "Zendesk"
    secret_setting: str = "ZENDESK_WEBHOOK_SECRET"
    header: str = "X-Zendesk-Webhook-Signature"
    encoding: Encoding = "base64"
    template: str = "{timestamp}{body}"
    timestamp_header: str | None = "X-Zendesk-Webhook-Signature-Timestamp"
    timestamp_format: TimestampFormat = "iso8601"
    tolerance: float = 3600.0
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:type",)
    keep_headers: tuple[str, ...] = (
        "x-zendesk-webhook-signature",
        "x-zendesk-webhook-signature-timestamp",
        "x-zendesk-webhook-id",
        "x-zendesk-webhook-invocation-id",
    )
    documentation: ClassVar[str] = "https://developer.zendesk.com/documentation/webhooks/verifying/"
