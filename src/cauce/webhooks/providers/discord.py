"""Discord: ``X-Signature-Ed25519`` (hex) over ``{X-Signature-Timestamp}{body}``, checked with the application's key.

Discord sends wrong signatures on purpose and removes the URL unless they are answered 401. It checks an endpoint with a
PING, answered 204 (webhook events) or ``{"type": 1}`` (interactions). Events have no id and are identified by a hash.
Discord waits 3 s and retries for ten minutes. Rules from
https://docs.discord.com/developers/events/webhook-events. Needs ``cryptography``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.payload import at, read_json
from cauce.webhooks.provider import Answer, Outcome
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.signing import Algorithm, KeyEncoding, PublicKeyProvider

_EMPTY = Answer(204, content_type="application/json")  # Discord asks for a content type even without content


@dataclass(frozen=True, kw_only=True)
class Discord(PublicKeyProvider):
    """Discord's webhook events. Interactions verify too, but need an immediate reply, which an inbox cannot give."""

    origen: str = "discord"
    title: str = "Discord"
    secret_setting: str = "DISCORD_PUBLIC_KEY"
    algorithm: Algorithm = "ed25519"
    key_encoding: KeyEncoding = "hex"
    header: str = "X-Signature-Ed25519"
    template: str = "{timestamp}{body}"
    timestamp_header: str | None = "X-Signature-Timestamp"
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:event.type",)
    keep_headers: tuple[str, ...] = ("x-signature-ed25519", "x-signature-timestamp")
    retry_horizon: float = 600.0
    answer_within: float = 3.0
    documentation: ClassVar[str] = "https://docs.discord.com/developers/events/webhook-events"

    def handshake(self, request: WebhookRequest) -> Answer | None:
        """Answer PING, in the manner of webhook events or of interactions."""
        value = read_json(request.body).value
        if at(value, "type") == 0:
            return _EMPTY
        if at(value, "type") == 1 and at(value, "event") is None:
            return Answer(200, b'{"type":1}', "application/json")
        return None

    def respond(self, outcome: Outcome) -> Answer | None:
        """Answer 401 to a bad signature, 204 to an event."""
        if outcome is Outcome.REJECTED:
            return Answer(401)
        return _EMPTY if outcome in (Outcome.STORED, Outcome.DUPLICATE) else None
