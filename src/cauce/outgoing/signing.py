"""The body, the id and the signatures of an outgoing webhook, as in Standard Webhooks 1.0.0.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. It signs with
``cauce.webhooks.providers.standard``, which also verifies incoming webhooks.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from cauce.errors import ConfigError
from cauce.webhooks.asymmetric import from_base64
from cauce.webhooks.provider import Draft
from cauce.webhooks.providers.standard import StandardWebhooks
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret

if TYPE_CHECKING:
    from cauce.evento import Evento

MIN_KEY: Final = 24
"""The fewest bytes of a shared secret; the specification asks for 24 to 64."""
_STANDARD: Final = StandardWebhooks(origen="outgoing", secret_setting="Webhook(secret)")  # noqa: S106 - where it is given


def new_secret() -> str:
    """Create a secret for a new receiver: ``whsec_`` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def read_secrets(text: str) -> tuple[Secret, ...]:
    """Read one secret, or several separated by commas during a rotation, and check that each can sign.

    Raises:
        ConfigError: there is none, or one cannot sign. The message has its position and never quotes it.
    """
    try:
        found = Secret.several(text)
    except ValueError as error:
        raise ConfigError(f"the secrets of a webhook cannot be read: {error}") from None
    if any(secret.since or secret.until for secret in found):
        raise ConfigError("outgoing webhooks are always signed with every secret: omit since= and until=")
    if not found:
        raise ConfigError("a webhook needs a secret; create one with cauce.outgoing.new_secret()")
    for number, secret in enumerate(found, 1):
        _check(secret, f"secret {number} of {len(found)}")
    return found


def envelope(evento: Evento[Any]) -> bytes:
    """Write the body that the receiver gets: ``type``, ``timestamp`` (UTC), ``data``.

    The bytes are the same at every attempt. ``data`` has the fields of the payload's type; unknown ones are not sent.
    """
    body = {"type": evento.tipo, "timestamp": evento.creado_en.astimezone(UTC), "data": evento.payload}
    return to_json(body, by_alias=True, inf_nan_mode="null")


def message_id(evento: Evento[Any], idempotency_key: str) -> str:
    """Return the id by which the receiver recognizes duplicates: unique, and the same at every attempt of a delivery.

    It contains the event's id and a hash of the key, which may contain characters that the specification forbids.
    """
    return f"evt_{evento.id}_{hashlib.sha256(idempotency_key.encode()).hexdigest()[:16]}"


def signed(body: bytes, id_text: str, keys: Sequence[Secret], now: float) -> WebhookRequest:
    """Sign a body with every secret, so that a receiver with any of them accepts it; ``now`` in Unix seconds."""
    draft = Draft(body, id_externo=id_text)
    requests = [_STANDARD.sign(draft, key, now) for key in keys]
    signatures = [signature for request in requests for signature in request.headers.all("webhook-signature")]
    return WebhookRequest(body, Headers.of({**dict(requests[0].headers), "webhook-signature": " ".join(signatures)}))


def without_secrets(text: str, keys: Sequence[Secret]) -> str:
    """Replace every secret in an answer of the receiver, whose error pages may show them."""
    for key in keys:
        bare = key.text.removeprefix("whsec_").removeprefix("whsk_")
        text = text.replace(key.text, "(secret)").replace(bare, "(secret)")
    return text


def _check(secret: Secret, name: str) -> None:
    if secret.text.startswith("whpk_"):
        raise ConfigError(f"{name} is a public key (whpk_), which can only verify; use the private key (whsk_)")
    key = from_base64(secret.text.removeprefix("whsec_")) or b""
    if not secret.text.startswith("whsk_") and 0 < len(key) < MIN_KEY:
        raise ConfigError(f"{name} has {len(key)} bytes; use {MIN_KEY} or more, so that it cannot be guessed")
    try:
        _STANDARD.sign(Draft(b""), secret, 0)
    except ValueError as error:
        raise ConfigError(f"{name} cannot sign: {error}") from None
