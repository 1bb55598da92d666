"""What is sent: the envelope, its id, and its signatures, as Standard Webhooks 1.0.0 has them.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. The signer is that of
``cauce.webhooks.providers.standard``, the same that verifies what others send.
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
"""Bytes of a shared secret, at least; the specification asks for 24 to 64."""
_STANDARD: Final = StandardWebhooks(origen="outgoing", secret_setting="Webhook(secret)")  # noqa: S106 - where it is given


def new_secret() -> str:
    """Make a secret for a new receiver: ``whsec_`` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def read_secrets(text: str) -> tuple[Secret, ...]:
    """Split one secret, or several separated by commas while they are rotated, and try each.

    Raises:
        ConfigError: there is none, or one cannot sign; it is named by its position, never quoted.
    """
    try:
        found = Secret.several(text)
    except ValueError as error:
        raise ConfigError(f"the secrets of a webhook cannot be read: {error}") from None
    if any(secret.since or secret.until for secret in found):
        raise ConfigError("what is sent is signed with every secret given, at any time: leave since= and until= out")
    if not found:
        raise ConfigError("a webhook needs a secret; make one with cauce.outgoing.new_secret()")
    for number, secret in enumerate(found, 1):
        _check(secret, f"secret {number} of {len(found)}")
    return found


def envelope(evento: Evento[Any]) -> bytes:
    """Write an event as its receiver shall read it: ``type``, ``timestamp`` (UTC), ``data``.

    The same bytes at every attempt. ``data`` is the payload by its own type: what that does not know is not sent.
    """
    body = {"type": evento.tipo, "timestamp": evento.creado_en.astimezone(UTC), "data": evento.payload}
    return to_json(body, by_alias=True, inf_nan_mode="null")


def message_id(evento: Evento[Any], idempotency_key: str) -> str:
    """Return the id by which the receiver knows a repetition: the same at every attempt of a delivery, and no other's.

    The event's id can be read in it. The key itself may hold dots, which the specification forbids, or any letter.
    """
    return f"evt_{evento.id}_{hashlib.sha256(idempotency_key.encode()).hexdigest()[:16]}"


def signed(body: bytes, id_text: str, keys: Sequence[Secret], now: float) -> WebhookRequest:
    """Sign a body with every secret, so that a receiver which knows any of them accepts it; ``now`` in Unix seconds."""
    draft = Draft(body, id_externo=id_text)
    requests = [_STANDARD.sign(draft, key, now) for key in keys]
    signatures = [signature for request in requests for signature in request.headers.all("webhook-signature")]
    return WebhookRequest(body, Headers.of({**dict(requests[0].headers), "webhook-signature": " ".join(signatures)}))


def without_secrets(text: str, keys: Sequence[Secret]) -> str:
    """Blot out every secret in a text of the receiver's, who knows them too and may show them in an error page."""
    for key in keys:
        bare = key.text.removeprefix("whsec_").removeprefix("whsk_")
        text = text.replace(key.text, "(secret)").replace(bare, "(secret)")
    return text


def _check(secret: Secret, name: str) -> None:
    if secret.text.startswith("whpk_"):
        raise ConfigError(f"{name} is a public key (whpk_), which only verifies; sign with its private half (whsk_)")
    key = from_base64(secret.text.removeprefix("whsec_")) or b""
    if not secret.text.startswith("whsk_") and 0 < len(key) < MIN_KEY:
        raise ConfigError(f"{name} has {len(key)} bytes; a secret that cannot be guessed has {MIN_KEY} or more")
    try:
        _STANDARD.sign(Draft(b""), secret, 0)
    except ValueError as error:
        raise ConfigError(f"{name} cannot sign: {error}") from None
