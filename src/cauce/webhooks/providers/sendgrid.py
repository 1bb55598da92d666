"""SendGrid's Event Webhook: ECDSA P-256 (base64 DER) over ``{timestamp}{body}``; the key is shown on its settings page.

The body is a list of events, each with its ``sg_event_id``; SendGrid repeats them three times on average. It gives no
tolerance and tries again for a day, so a little more than that is allowed; the signed ids stop replays. Rules from
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features.
Needs ``cryptography``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.limits import MAX_BATCH
from cauce.webhooks.payload import Payload, split_batch
from cauce.webhooks.provider import DAY
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.signing import Algorithm, Encoding, KeyEncoding, PublicKeyProvider


@dataclass(frozen=True, kw_only=True)
class SendGrid(PublicKeyProvider):
    """SendGrid's delivery and engagement events; ``tipo`` is ``delivered``, ``bounce``..."""

    origen: str = "sendgrid"
    title: str = "SendGrid"
    secret_setting: str = "SENDGRID_WEBHOOK_PUBLIC_KEY"
    algorithm: Algorithm = "ecdsa-sha256"
    encoding: Encoding = "base64"
    key_encoding: KeyEncoding = "base64"
    header: str = "X-Twilio-Email-Event-Webhook-Signature"
    template: str = "{timestamp}{body}"
    timestamp_header: str | None = "X-Twilio-Email-Event-Webhook-Timestamp"
    tolerance: float = 1.25 * DAY
    id_from: tuple[str, ...] = ("body:sg_event_id",)
    type_from: tuple[str, ...] = ("body:event",)
    keep_headers: tuple[str, ...] = (
        "x-twilio-email-event-webhook-signature",
        "x-twilio-email-event-webhook-timestamp",
    )
    retry_horizon: float = DAY
    documentation: ClassVar[str] = (
        "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/"
        "getting-started-event-webhook-security-features"
    )

    def payloads(self, request: WebhookRequest) -> Sequence[Payload]:
        """Return one payload per event."""
        return split_batch(request.body, MAX_BATCH)
