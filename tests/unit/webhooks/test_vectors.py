"""Every official test vector verifies; ``tests/vectors/webhooks.json`` names the source of each."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from cauce.webhooks import PROVIDERS, Headers, Reason, Rejected, Secret, Verified, WebhookRequest
from cauce.webhooks.asymmetric import aes_cbc

# A vector is a JSON object of its own shape; only the builder of its family knows its keys.
Vector = dict[str, Any]

VECTORS: dict[str, Vector] = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parents[2] / "vectors" / "webhooks.json").read_text("utf-8"))
}
DERIVED_KEY = "redsys_sha512_derived_key"  # no whole request; it has its own test


def headers_of(**headers: str) -> Headers:
    """Make headers whose names are written with underscores."""
    return Headers.of({name.replace("_", "-"): value for name, value in headers.items()})


def standard(vector: Vector) -> WebhookRequest:
    """Standard Webhooks: three headers."""
    return WebhookRequest(
        vector["body"].encode(),
        headers_of(
            webhook_id=vector["id"], webhook_timestamp=vector["timestamp"], webhook_signature=vector["signature"]
        ),
    )


def slack(vector: Vector) -> WebhookRequest:
    """Slack: two headers."""
    headers = headers_of(x_slack_signature=vector["signature"], x_slack_request_timestamp=vector["timestamp"])
    return WebhookRequest(vector["body"].encode(), headers)


def sendgrid(vector: Vector) -> WebhookRequest:
    """SendGrid: two headers."""
    headers = headers_of(
        x_twilio_email_event_webhook_signature=vector["signature"],
        x_twilio_email_event_webhook_timestamp=vector["timestamp"],
    )
    return WebhookRequest(vector["body"].encode(), headers)


def twilio(vector: Vector) -> WebhookRequest:
    """Twilio: a URL, and a form or a body."""
    body = urlencode(vector["params"]) if "params" in vector else vector["body"]
    return WebhookRequest(body.encode(), headers_of(x_twilio_signature=vector["signature"]), vector["url"])


def adyen(vector: Vector) -> WebhookRequest:
    """Adyen: the signature stands inside the item."""
    item = {**vector["item"], "additionalData": {"hmacSignature": vector["signature"]}}
    body = {"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}
    return WebhookRequest(json.dumps(body).encode())


def redsys(vector: Vector) -> WebhookRequest:
    """Redsys: a form."""
    names = {"Ds_SignatureVersion": "version", "Ds_MerchantParameters": "parameters", "Ds_Signature": "signature"}
    return WebhookRequest(urlencode({name: vector[key] for name, key in names.items()}).encode())


def header(name: str, key: str = "signature") -> Callable[[Vector], WebhookRequest]:
    """Build for providers with one header."""
    return lambda vector: WebhookRequest(
        vector["body"].encode(), Headers.of({name: vector[key]}), vector.get("url", "")
    )


# The longest name that a vector's own begins with says which provider it is of.
FAMILIES: dict[str, tuple[str, Callable[[Vector], WebhookRequest]]] = {
    "standard_webhooks": ("standard", standard),
    "github": ("github", header("X-Hub-Signature-256")),
    "slack": ("slack", slack),
    "twilio": ("twilio", twilio),
    "adyen_standard": ("adyen", adyen),
    "adyen_platform": ("adyen_platform", header("HmacSignature")),
    "square": ("square", header("x-square-hmacsha256-signature")),
    "paddle": ("paddle", header("Paddle-Signature", "header")),
    "shopify": ("shopify", header("X-Shopify-Hmac-SHA256")),
    "sendgrid": ("sendgrid", sendgrid),
    "redsys": ("redsys", redsys),
}


def family_of(name: str) -> tuple[str, Callable[[Vector], WebhookRequest]]:
    """Find the provider and the builder of a vector."""
    return next(found for prefix, found in FAMILIES.items() if name.startswith(prefix))


@pytest.mark.parametrize("name", [name for name in VECTORS if name != DERIVED_KEY])
def test_official_vector_verifies(name: str) -> None:
    """The provider's own example is accepted at the moment it was signed, and refused with another secret."""
    vector = VECTORS[name]
    origen, build = family_of(name)
    provider, request = PROVIDERS[origen], build(vector)
    now = float(vector.get("timestamp", "1696195954"))
    verdict = provider.verify(request, [Secret(vector.get("secret") or vector["public_key"])], now)
    assert isinstance(verdict, Verified), verdict
    assert provider.describe(request, verdict)
    other = {"adyen": "00" * 32, "adyen_platform": "00" * 32, "redsys": base64.b64encode(b"k" * 24).decode()}
    if "secret" in vector:
        refused = provider.verify(request, [Secret(other.get(origen, "whsec_" + "A" * 32))], now)
        assert isinstance(refused, Rejected)
        assert refused.reason is Reason.BAD_SIGNATURE


def test_redsys_derives_the_documented_key() -> None:
    """The key derived from the order is the one in Redsys's worked example."""
    vector = VECTORS[DERIVED_KEY]
    order = vector["order"].encode()
    padding = 16 - len(order) % 16
    derived = aes_cbc(vector["secret"][:16].encode(), order + bytes([padding]) * padding, "the test")
    assert base64.b64encode(derived).decode() == vector["derived"]


def test_every_vector_names_its_source() -> None:
    """A vector without a source proves nothing to a reader."""
    assert all(vector["source"] and vector["official"] for vector in VECTORS.values())
