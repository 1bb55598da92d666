"""Mercado Pago: ``x-signature: ts=...,v1=<hex>`` over ``id:{data.id};request-id:{x-request-id};ts:{ts};``, HMAC-SHA256.

**The body is not signed.** Trust only ``data.id`` of the URL: a handler must GET the resource.
``tipo`` comes from the body and is marked ``sin_firmar``; the id is made of signed parts.

Its documentation and its libraries disagree, so both forms are accepted: ``ts`` in seconds or in milliseconds,
``data.id`` signed as sent or in lower case (the libraries stopped lowering it in June 2026). It is not documented
whether a retry is signed again, so three days are allowed; the signed id stops replays. An unsigned copy of each
webhook may come (IPN: ``?id=&topic=``); it is answered 200 and dropped. Rules from
https://www.mercadopago.com/developers/en/docs/your-integrations/notifications/webhooks.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Final
from urllib.parse import urlencode

from cauce.webhooks.limits import MAX_ID
from cauce.webhooks.payload import JsonValue, at, read_json
from cauce.webhooks.provider import (
    DAY,
    Answer,
    Draft,
    Found,
    Provider,
    Unsigned,
    header_of,
    is_storable,
    skew_of,
    unix_seconds,
)
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import Pairs, key_of, matching_secret, no_match, read_pairs
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

_HEADER: Final = "x-signature"
_PAIRS: Final = Pairs(",", "ts", "v1")
SECONDS_DIGITS: Final = 11
"""A timestamp with more digits is in milliseconds: as seconds it would be after the year 5138."""


@dataclass(frozen=True, kw_only=True)
class MercadoPago(Provider):
    """Mercado Pago's webhooks. Opting in to ``id_externo`` takes the notification's own, unsigned id."""

    origen: str = "mercadopago"
    title: str = "Mercado Pago"
    secret_setting: str = "MERCADOPAGO_WEBHOOK_SECRET"
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:action", "body:type", "query:type")
    accept_unsigned: frozenset[Unsigned] = frozenset({"tipo"})
    keep_headers: tuple[str, ...] = ("x-signature", "x-request-id")
    tolerance: float = 3 * DAY
    answer_within: float = 22.0
    documentation: ClassVar[str] = (
        "https://www.mercadopago.com/developers/en/docs/your-integrations/notifications/webhooks"
    )

    @property
    def signed(self) -> SignedScope:
        """The resource's id, the request's id and the timestamp; nothing of the body."""
        return SignedScope(timestamp=True, fields=("query:data.id", "header:x-request-id"))

    def preflight(self, request: WebhookRequest) -> Answer | None:
        """Drop the unsigned IPN copy of a webhook; 200 stops its retries."""
        is_ipn = request.parameter("topic") is not None and request.parameter("data.id") is None
        return Answer(200) if is_ipn and not request.headers.all(_HEADER) else None

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Compare with the manifest of the id as it came, and in lower case."""
        timestamp, signatures = read_pairs(header_of(request, _HEADER), _PAIRS, _HEADER)
        seconds = _seconds(timestamp)
        request_id = header_of(request, "x-request-id") if request.headers.all("x-request-id") else ""
        data_id = request.parameter("data.id") or ""
        if ";" in data_id + request_id:  # it would move the borders between the parts of what is signed
            raise Refusal(Reason.MALFORMED_HEADER, "data.id or x-request-id holds a semicolon")
        for spelling in dict.fromkeys((data_id, data_id.lower())):
            message = _manifest(spelling, request_id, timestamp)
            index = matching_secret(secrets, signatures, partial(self._signature, message=message))
            if index is not None:
                return Verified("mercadopago-v1", self.signed, index, seconds, skew_of(seconds, now, self.tolerance))
        raise no_match(_HEADER, secrets, self.secret_setting)

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Make a signed delivery; the body's ``data.id`` and ``type`` go into the URL, ``id_externo`` into a header."""
        value = read_json(draft.body).value
        data_id = str(at(value, "data.id") or "")
        mark = "&" if "?" in draft.url else "?"
        url = f"{draft.url}{mark}{urlencode({'data.id': data_id, 'type': str(at(value, 'type') or '')})}"
        request_id = draft.id_externo or "00000000-0000-4000-8000-000000000000"
        timestamp = f"{int(now)}"
        signature = self._signature(secret, _manifest(data_id, request_id, timestamp))
        headers = {
            "content-type": draft.content_type,
            "x-request-id": request_id,
            _HEADER: f"ts={timestamp},v1={signature}",
        }
        return replace(WebhookRequest(draft.body, Headers.of(headers)), url=url)

    def id_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Join the signed ids of the resource and of the request; without a request id, use the timestamp.

        In lower case: both cases verify, and a replay in the other case must not get another id.
        """
        if "id_externo" in self.accept_unsigned:
            return super().id_of(request, value)
        timestamp, _ = read_pairs(header_of(request, _HEADER), _PAIRS, _HEADER)
        text = f"{request.parameter('data.id') or ''}:{request.headers.get('x-request-id') or timestamp}".lower()
        return Found(text, "query:data.id") if is_storable(text, MAX_ID) else None

    def _signature(self, secret: Secret, message: bytes) -> str:
        """Sign a manifest."""
        return hmac.digest(key_of(secret, "utf8", self.secret_setting), message, "sha256").hex()


def _manifest(data_id: str, request_id: str, timestamp: str) -> bytes:
    """Return what is signed, without the names of absent parts."""
    parts = (("id", data_id), ("request-id", request_id), ("ts", timestamp))
    return "".join(f"{name}:{value};" for name, value in parts if value).encode("utf-8", "surrogatepass")


def _seconds(timestamp: str) -> float:
    """Read a timestamp that may be in milliseconds."""
    if len(timestamp) > SECONDS_DIGITS:
        return unix_seconds(timestamp[:-3], _HEADER)
    return unix_seconds(timestamp, _HEADER)
