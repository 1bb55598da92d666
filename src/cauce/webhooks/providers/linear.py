"""Linear: ``Linear-Signature``, hex HMAC-SHA256 over the body, which holds ``webhookTimestamp`` in milliseconds.

The delivery's id is an unsigned header, and the timestamp differs between attempts, so an event is identified by a hash
of its body without the timestamp. Linear's own library allows 60 s. Rules from https://linear.app/developers/webhooks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.limits import MAX_TIPO
from cauce.webhooks.payload import JsonValue, Payload, at
from cauce.webhooks.provider import WHOLE_BODY, Found, is_storable, sha256_of
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.signing import HmacProvider, TimestampFormat


@dataclass(frozen=True, kw_only=True)
class Linear(HmacProvider):
    """Linear's webhooks; ``tipo`` is ``<type>.<action>``."""

    origen: str = "linear"
    title: str = "Linear"
    secret_setting: str = "LINEAR_WEBHOOK_SECRET"
    header: str = "Linear-Signature"
    timestamp_path: str | None = "webhookTimestamp"
    timestamp_format: TimestampFormat = "ms"
    id_from: tuple[str, ...] = ("header:linear-delivery",)
    type_from: tuple[str, ...] = ("body:type",)
    keep_headers: tuple[str, ...] = ("linear-signature", "linear-delivery", "linear-event")
    retry_horizon: float = 8 * 3600.0
    answer_within: float = 5.0
    documentation: ClassVar[str] = "https://linear.app/developers/webhooks#securing-webhooks"

    def tipo_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Join the type and the action, both signed."""
        kind, action = super().tipo_of(request, value), at(value, "action")
        if kind is None or not isinstance(action, str):
            return kind
        tipo = f"{kind.text}.{action}"
        return Found(tipo, kind.place) if is_storable(tipo, MAX_TIPO) else kind

    def hash_of(self, request: WebhookRequest, payload: Payload) -> Found:
        """Identify an event by its content, which is the same in every attempt but for the timestamp."""
        if not isinstance(payload.value, dict):
            return super().hash_of(request, payload)
        content = {key: value for key, value in payload.value.items() if key != "webhookTimestamp"}
        return Found(sha256_of(json.dumps(content, sort_keys=True).encode()), WHOLE_BODY)
