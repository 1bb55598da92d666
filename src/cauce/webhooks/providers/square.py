"""Square: ``x-square-hmacsha256-signature``, base64 HMAC-SHA256 over ``{url}{body}``.

The URL is the one registered with Square: set ``public_url`` to it, or make sure that the request has it. Nothing
separates URL and body, so a part of one could be moved to the other: without ``public_url`` the body must begin at the
first brace.
Rules from https://developer.squareup.com/docs/webhooks/step3validate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.provider import DAY
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import Encoding, HmacProvider
from cauce.webhooks.verdict import Reason, Refusal, Verified


@dataclass(frozen=True, kw_only=True)
class Square(HmacProvider):
    """Square's webhooks."""

    origen: str = "square"
    title: str = "Square"
    secret_setting: str = "SQUARE_WEBHOOK_SIGNATURE_KEY"
    header: str = "x-square-hmacsha256-signature"
    encoding: Encoding = "base64"
    template: str = "{url}{body}"
    id_from: tuple[str, ...] = ("body:event_id",)
    type_from: tuple[str, ...] = ("body:type",)
    keep_headers: tuple[str, ...] = ("x-square-hmacsha256-signature", "square-retry-number", "square-retry-reason")
    retry_horizon: float = 3 * DAY  # the current page says 24 h, an older one 72 h
    documentation: ClassVar[str] = "https://developer.squareup.com/docs/webhooks/step3validate"

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Verify, then check where the body begins, unless the URL is known."""
        verified = super().check(request, secrets, now)
        if self.public_url is None and ("{" in request.url or not request.body.startswith(b"{")):
            detail = "the body does not begin with the first brace of URL and body, so their border may have been moved"
            raise Refusal(Reason.MALFORMED_BODY, detail)
        return verified
