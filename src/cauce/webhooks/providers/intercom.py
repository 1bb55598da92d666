"""Intercom: ``X-Hub-Signature: sha1=<hex>``, HMAC-SHA1 over the body, keyed by the app's client secret.

SHA-1 is Intercom's choice; HMAC does not need its collision resistance. There is no timestamp: the signed ``id`` stops
replays. A HEAD request checks the endpoint when it is registered. Rules from
https://developers.intercom.com/docs/webhooks/webhook-notifications.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.provider import DAY, Answer
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.signing import Digest, HmacProvider


@dataclass(frozen=True, kw_only=True)
class Intercom(HmacProvider):
    """Intercom's notifications; ``tipo`` is the topic."""

    origen: str = "intercom"
    title: str = "Intercom"
    secret_setting: str = "INTERCOM_CLIENT_SECRET"
    header: str = "X-Hub-Signature"
    prefix: str = "sha1="
    digest: Digest = "sha1"
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:topic",)
    keep_headers: tuple[str, ...] = ("x-hub-signature",)
    retry_horizon: float = 7 * DAY
    answer_within: float = 5.0
    documentation: ClassVar[str] = "https://developers.intercom.com/docs/webhooks/webhook-notifications"

    def preflight(self, request: WebhookRequest) -> Answer | None:
        """Answer the HEAD request that checks an endpoint."""
        return Answer(200) if request.method == "HEAD" else None
