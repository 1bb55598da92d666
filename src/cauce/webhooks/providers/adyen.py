"""Adyen: a signature inside each item of a standard webhook, or over the whole body of a platform webhook.

Standard: ``additionalData.hmacSignature`` is base64 HMAC-SHA256, keyed by the hex-decoded key, over eight fields joined
by colons without escaping; ``eventDate``, ``reason`` and the rest of ``additionalData`` are not signed. Every item of a
batch must be signed (Adyen's own library checks the first). Adyen sends the same event for up to 30 days, and shows it
by equal ``pspReference``, ``eventCode`` and ``success``. Rules from
https://docs.adyen.com/development-resources/webhooks/verify-hmac-signatures and adyen-python-api-library.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Final

from cauce.webhooks.limits import MAX_BATCH, MAX_ID
from cauce.webhooks.payload import JsonValue, Payload, at, read_json, write_json
from cauce.webhooks.provider import DAY, Answer, Draft, Found, Outcome, Provider, is_storable
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import Encoding, HmacProvider, KeyEncoding, key_of, matching_secret, no_match
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

SIGNED_FIELDS: Final = (
    "pspReference",
    "originalReference",
    "merchantAccountCode",
    "merchantReference",
    "amount.value",
    "amount.currency",
    "eventCode",
    "success",
)
_ACCEPTED = Answer(200, b"[accepted]", "text/plain")


@dataclass(frozen=True, kw_only=True)
class Adyen(Provider):
    """Adyen's standard webhooks. The payload of each event is its ``NotificationRequestItem``."""

    origen: str = "adyen"
    title: str = "Adyen"
    secret_setting: str = "ADYEN_HMAC_KEY"
    type_from: tuple[str, ...] = ("body:eventCode",)
    retry_horizon: float = 30 * DAY
    documentation: ClassVar[str] = "https://docs.adyen.com/development-resources/webhooks/verify-hmac-signatures"

    @property
    def signed(self) -> SignedScope:
        """Eight fields of each item."""
        return SignedScope(fields=tuple(f"body:{field}" for field in SIGNED_FIELDS))

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Verify every item; the verdict names the secret that signed the last one."""
        index = None
        for number, item in enumerate(_items(request)):
            message = _message(item, f"item {number}")
            given = _text(at(at(item, "additionalData"), "hmacSignature"))
            if not given:
                raise Refusal(Reason.WRONG_SCHEME, f"item {number} has no additionalData.hmacSignature")
            index = matching_secret(secrets, [given], partial(self._signature, message=message))
            if index is None:
                raise no_match(f"item {number}", secrets, self.secret_setting)
        return Verified("adyen-hmac-sha256", self.signed, index)

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Sign every item of a body that is already a standard webhook."""
        request = WebhookRequest(draft.body, Headers.of({"content-type": draft.content_type}), draft.url)
        body: JsonValue = json.loads(draft.body)
        items = _items(request)
        signatures = [self._signature(secret, _message(item, "the item")) for item in items]
        listed = at(body, "notificationItems")
        for entry, signature in zip(listed if isinstance(listed, list) else [], signatures, strict=True):
            item = at(entry, "NotificationRequestItem")
            if isinstance(item, dict):
                data = item.setdefault("additionalData", {})
                if isinstance(data, dict):
                    data["hmacSignature"] = signature
        return replace(request, body=json.dumps(body).encode())

    def payloads(self, request: WebhookRequest) -> Sequence[Payload]:
        """Return one payload per item."""
        return [write_json(item) for item in _items(request)]

    def id_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Join the fields that Adyen's duplicates have in common."""
        text = ":".join(_text(at(value, field)) for field in ("eventCode", "pspReference", "success"))
        return Found(text, "body:pspReference") if at(value, "pspReference") and is_storable(text, MAX_ID) else None

    def respond(self, outcome: Outcome) -> Answer | None:
        """Say ``[accepted]``, which old accounts still look for."""
        return _ACCEPTED if outcome in (Outcome.STORED, Outcome.DUPLICATE) else None

    def _signature(self, secret: Secret, message: bytes) -> str:
        """Sign eight fields."""
        key = key_of(secret, "hex", self.secret_setting)
        return base64.b64encode(hmac.digest(key, message, "sha256")).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class AdyenPlatform(HmacProvider):
    """Adyen's platform and balance webhooks: one event a body, signed as a whole in the header ``HmacSignature``."""

    origen: str = "adyen_platform"
    title: str = "Adyen Balance Platform"
    secret_setting: str = "ADYEN_PLATFORM_HMAC_KEY"
    header: str = "HmacSignature"
    encoding: Encoding = "base64"
    key_encoding: KeyEncoding = "hex"
    type_from: tuple[str, ...] = ("body:type",)
    keep_headers: tuple[str, ...] = ("hmacsignature", "protocol")
    retry_horizon: float = 30 * DAY
    documentation: ClassVar[str] = "https://docs.adyen.com/development-resources/webhooks/verify-hmac-signatures"

    def respond(self, outcome: Outcome) -> Answer | None:
        """Say ``[accepted]``, which old accounts still look for."""
        return _ACCEPTED if outcome in (Outcome.STORED, Outcome.DUPLICATE) else None


def _items(request: WebhookRequest) -> list[JsonValue]:
    """Return the items of a standard webhook.

    Raises:
        Refusal: the body is no standard webhook, or has no items or more than ``MAX_BATCH``.
    """
    payload = read_json(request.body)
    entries = at(payload.value, "notificationItems")
    if not isinstance(entries, list):
        detail = payload.detail or "it holds no list notificationItems"
        raise Refusal(Reason.MALFORMED_BODY, f"the body is no standard webhook of Adyen's: {detail}")
    if not 0 < len(entries) <= MAX_BATCH:
        raise Refusal(Reason.MALFORMED_BODY, f"{len(entries)} items in one body; 1 to {MAX_BATCH} are accepted")
    return [at(entry, "NotificationRequestItem") for entry in entries]


def _message(item: JsonValue, where: str) -> bytes:
    """Join the signed fields of an item, as Adyen does: a missing one is empty, nothing is escaped."""
    if not isinstance(item, dict):
        raise Refusal(Reason.MALFORMED_BODY, f"{where} holds no NotificationRequestItem")
    texts = {field: _text(at(item, field)) for field in SIGNED_FIELDS}
    if any(":" in text for field, text in texts.items() if field != "merchantReference"):
        # With colons in one field only, what was signed can be read in one way only.
        raise Refusal(Reason.MALFORMED_BODY, f"a field of {where} other than merchantReference holds a colon")
    return ":".join(texts.values()).encode("utf-8", "surrogatepass")


def _text(value: JsonValue) -> str:
    """Write a field as it is signed; anything but text, a whole number or a boolean is empty and will not match."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""
