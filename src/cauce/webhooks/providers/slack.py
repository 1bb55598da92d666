"""Slack: ``X-Slack-Signature: v0=<hex>`` over ``v0:{timestamp}:{body}``, HMAC-SHA256.

Events are JSON with an ``event_id``; slash commands and interactions are forms, identified by their ``trigger_id``. The
question ``url_verification`` is signed like the rest and answered with its ``challenge``. Slack waits 3 s and tries
again three times. Rules from https://docs.slack.dev/authentication/verifying-requests-from-slack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.payload import Payload, at, read_embedded, read_form, read_json, without_bom
from cauce.webhooks.provider import Answer
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.signing import HmacProvider


@dataclass(frozen=True, kw_only=True)
class Slack(HmacProvider):
    """Slack's Events API, slash commands and interactions."""

    origen: str = "slack"
    title: str = "Slack"
    secret_setting: str = "SLACK_SIGNING_SECRET"
    header: str = "X-Slack-Signature"
    prefix: str = "v0="
    template: str = "v0:{timestamp}:{body}"
    timestamp_header: str | None = "X-Slack-Request-Timestamp"
    id_from: tuple[str, ...] = ("body:event_id", "body:trigger_id")
    type_from: tuple[str, ...] = ("body:event.type", "body:type", "body:command")
    keep_headers: tuple[str, ...] = (
        "x-slack-signature",
        "x-slack-request-timestamp",
        "x-slack-retry-num",
        "x-slack-retry-reason",
    )
    retry_horizon: float = 600.0
    answer_within: float = 3.0
    documentation: ClassVar[str] = "https://docs.slack.dev/authentication/verifying-requests-from-slack"

    def payloads(self, request: WebhookRequest) -> Sequence[Payload]:
        """Read JSON, a form, or JSON in the field ``payload`` of a form, as the signed bytes show."""
        if without_bom(request.body).lstrip()[:1] == b"{":
            return (read_json(request.body),)
        if request.body.startswith(b"payload="):
            return (read_embedded(request.body, "payload"),)
        return (read_form(request.body),)

    def handshake(self, request: WebhookRequest) -> Answer | None:
        """Answer ``url_verification`` with its challenge."""
        value = read_json(request.body).value
        challenge = at(value, "challenge")
        if at(value, "type") != "url_verification" or not isinstance(challenge, str):
            return None
        return Answer(200, challenge.encode("utf-8", "replace"), "text/plain; charset=utf-8")
