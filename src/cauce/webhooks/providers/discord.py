"""Discord: ``X-Signature-Ed25519`` (hex) over ``{X-Signature-Timestamp}{body}``, checked with the application's key.

Discord sends wrong signatures on purpose and removes the URL unless they are answered 401. It checks an endpoint with a
PING, answered 204 (webhook events) or ``{"type": 1}`` (interactions). Events have no id and are identified by a hash.
Discord waits 3 s and retries for ten minutes. Rules from
https://docs.discord.com/developers/events/webhook-events. Needs ``cryptography``.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.asymmetric import ed25519_sign, ed25519_verifies
from cauce.webhooks.payload import at, read_json
from cauce.webhooks.provider import Answer, Draft, Outcome, Provider, header_of, skew_of, unix_seconds
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import first_match, key_of, no_match
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

_HEADER = "X-Signature-Ed25519"
_TIMESTAMP = "X-Signature-Timestamp"
_EMPTY = Answer(204, content_type="application/json")  # Discord asks for a content type even without content


@dataclass(frozen=True, kw_only=True)
class Discord(Provider):
    """Discord's webhook events. Interactions verify too, but need an immediate reply, which an inbox cannot give."""

    origen: str = "discord"
    title: str = "Discord"
    secret_setting: str = "DISCORD_PUBLIC_KEY"
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:event.type",)
    keep_headers: tuple[str, ...] = ("x-signature-ed25519", "x-signature-timestamp")
    retry_horizon: float = 600.0
    answer_within: float = 3.0
    documentation: ClassVar[str] = "https://docs.discord.com/developers/events/webhook-events"

    @property
    def signed(self) -> SignedScope:
        """Timestamp and body."""
        return SignedScope(raw_body=True, timestamp=True)

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Check the signature with each public key."""
        text = header_of(request, _HEADER)
        if not set(text) <= set(string.hexdigits) or len(text) % 2:
            raise Refusal(Reason.MALFORMED_HEADER, f"{_HEADER} is not hex")
        timestamp = header_of(request, _TIMESTAMP)
        seconds = unix_seconds(timestamp, _TIMESTAMP)
        signature, message = bytes.fromhex(text), timestamp.encode() + request.body

        def matches(secret: Secret) -> bool:
            key = key_of(secret, "hex", self.secret_setting)
            return ed25519_verifies(key, signature, message, self.secret_setting)

        index = first_match(secrets, matches)
        if index is None:
            raise no_match(_HEADER, secrets, self.secret_setting)
        return Verified("ed25519", self.signed, index, seconds, skew_of(seconds, now, self.tolerance))

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Sign a delivery; the secret is the private key in hex."""
        timestamp = f"{int(now)}"
        seed = key_of(secret, "hex", self.secret_setting)
        signature = ed25519_sign(seed, timestamp.encode() + draft.body, self.secret_setting)
        headers = {"content-type": draft.content_type, _HEADER: signature.hex(), _TIMESTAMP: timestamp}
        return WebhookRequest(draft.body, Headers.of(headers), draft.url)

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
