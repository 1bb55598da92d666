"""Shopify: ``X-Shopify-Hmac-SHA256``, base64 HMAC-SHA256 over the body alone, keyed by the app's client secret.

Topic, shop, webhook id and event id are headers, and none is signed. The topic is nowhere else and is accepted; the
shop's domain in ``cabeceras`` is as unsigned, so compare it with the body. Events are identified by a hash of topic and
body, since Shopify sends one order's body under several topics: so a replay under another topic is another event, and
both fields are marked ``sin_firmar``. Shopify waits 5 s and deletes the subscription after eight failures. Rules from https://shopify.dev/docs/apps/build/webhooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.payload import Payload
from cauce.webhooks.provider import Found, Unsigned, sha256_of
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.signing import Encoding, HmacProvider


@dataclass(frozen=True, kw_only=True)
class Shopify(HmacProvider):
    """Shopify's HTTPS webhooks."""

    origen: str = "shopify"
    title: str = "Shopify"
    secret_setting: str = "SHOPIFY_CLIENT_SECRET"
    header: str = "X-Shopify-Hmac-SHA256"
    encoding: Encoding = "base64"
    id_from: tuple[str, ...] = ("header:x-shopify-webhook-id",)
    type_from: tuple[str, ...] = ("header:x-shopify-topic",)
    accept_unsigned: frozenset[Unsigned] = frozenset({"tipo"})
    keep_headers: tuple[str, ...] = (
        "x-shopify-hmac-sha256",
        "x-shopify-topic",
        "x-shopify-shop-domain",
        "x-shopify-api-version",
        "x-shopify-webhook-id",
        "x-shopify-event-id",
        "x-shopify-triggered-at",
    )
    retry_horizon: float = 4 * 3600.0
    answer_within: float = 5.0
    documentation: ClassVar[str] = "https://shopify.dev/docs/apps/build/webhooks/subscribe/https"

    def hash_of(self, request: WebhookRequest, payload: Payload) -> Found:
        """Identify an event by its topic and body; the id is unsigned, as the topic is."""
        topic = self.tipo_of(request, payload.value) or Found("", self.type_from[0])
        return Found(sha256_of(topic.text.encode() + b"\n" + payload.raw), topic.place)
