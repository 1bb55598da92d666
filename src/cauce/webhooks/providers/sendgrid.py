"""SendGrid's Event Webhook: ECDSA P-256 (base64 DER) over ``{timestamp}{body}``; the key is shown on its settings page.

The body is a list of events, each with its ``sg_event_id``; SendGrid repeats them three times on average. It gives no
tolerance and tries again for a day, so a little more than that is allowed; the signed ids stop replays. Rules from
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features.
Needs ``cryptography``.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.asymmetric import ecdsa_sign, ecdsa_verifies, from_base64
from cauce.webhooks.limits import MAX_BATCH
from cauce.webhooks.payload import Payload, split_batch
from cauce.webhooks.provider import DAY, Draft, Provider, header_of, skew_of, unix_seconds
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import first_match, key_of, no_match
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
_TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"


@dataclass(frozen=True, kw_only=True)
class SendGrid(Provider):
    """SendGrid's delivery and engagement events; ``tipo`` is ``delivered``, ``bounce``..."""

    origen: str = "sendgrid"
    title: str = "SendGrid"
    secret_setting: str = "SENDGRID_WEBHOOK_PUBLIC_KEY"
    tolerance: float = 1.25 * DAY
    id_from: tuple[str, ...] = ("body:sg_event_id",)
    type_from: tuple[str, ...] = ("body:event",)
    keep_headers: tuple[str, ...] = (_HEADER.lower(), _TIMESTAMP.lower())
    retry_horizon: float = DAY
    documentation: ClassVar[str] = (
        "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/"
        "getting-started-event-webhook-security-features"
    )

    @property
    def signed(self) -> SignedScope:
        """Timestamp and body."""
        return SignedScope(raw_body=True, timestamp=True)

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Check the signature with each public key."""
        signature = from_base64(header_of(request, _HEADER))
        if not signature:
            raise Refusal(Reason.MALFORMED_HEADER, f"{_HEADER} is not base64")
        timestamp = header_of(request, _TIMESTAMP)
        seconds = unix_seconds(timestamp, _TIMESTAMP)
        message = timestamp.encode() + request.body

        def matches(secret: Secret) -> bool:
            key = key_of(secret, "base64", self.secret_setting)
            return ecdsa_verifies(key, signature, message, self.secret_setting)

        index = first_match(secrets, matches)
        if index is None:
            raise no_match(_HEADER, secrets, self.secret_setting)
        return Verified("ecdsa-sha256", self.signed, index, seconds, skew_of(seconds, now, self.tolerance))

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Sign a delivery; the secret is the private key, PKCS#8 in base64."""
        timestamp = f"{int(now)}"
        key = key_of(secret, "base64", self.secret_setting)
        signature = ecdsa_sign(key, timestamp.encode() + draft.body, self.secret_setting)
        headers = {
            "content-type": draft.content_type,
            _HEADER: base64.b64encode(signature).decode("ascii"),
            _TIMESTAMP: timestamp,
        }
        return WebhookRequest(draft.body, Headers.of(headers), draft.url)

    def payloads(self, request: WebhookRequest) -> Sequence[Payload]:
        """Return one payload per event."""
        return split_batch(request.body, MAX_BATCH)
