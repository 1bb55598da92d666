"""Mailgun: a signature *inside* the JSON body, hex HMAC-SHA256 over its ``timestamp`` and ``token``.

**The rest of the body is not signed.** An event is identified by its signed token, which also stops replays; its type
is marked ``sin_firmar``. Mailgun retries for eight hours and does not document whether it signs again, so twelve
are allowed. Rules from https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from cauce.webhooks.payload import JsonValue, at, read_json
from cauce.webhooks.provider import Draft, Provider, Unsigned, skew_of, unix_seconds
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import key_of, matching_secret, no_match
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

_TOKEN = "signature.token"
_TIMESTAMP = "signature.timestamp"


@dataclass(frozen=True, kw_only=True)
class Mailgun(Provider):
    """Mailgun's webhooks; ``tipo`` is ``delivered``, ``failed``..."""

    origen: str = "mailgun"
    title: str = "Mailgun"
    secret_setting: str = "MAILGUN_WEBHOOK_SIGNING_KEY"
    tolerance: float = 12 * 3600.0
    id_from: tuple[str, ...] = (f"body:{_TOKEN}",)
    type_from: tuple[str, ...] = ("body:event-data.event",)
    accept_unsigned: frozenset[Unsigned] = frozenset({"tipo"})
    retry_horizon: float = 8 * 3600.0
    documentation: ClassVar[str] = (
        "https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks"
    )

    @property
    def signed(self) -> SignedScope:
        """Timestamp and token."""
        return SignedScope(timestamp=True, fields=(f"body:{_TIMESTAMP}", f"body:{_TOKEN}"))

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Compare the signature in the body."""
        payload = read_json(request.body)
        timestamp, token, given = (at(payload.value, path) for path in (_TIMESTAMP, _TOKEN, "signature.signature"))
        if isinstance(timestamp, int):
            timestamp = str(timestamp)
        if not isinstance(timestamp, str) or not isinstance(token, str) or not isinstance(given, str):
            raise Refusal(
                Reason.MALFORMED_BODY, f"the body has no signature of Mailgun's: {payload.detail or 'no key'}"
            )
        seconds = unix_seconds(timestamp, _TIMESTAMP)
        index = matching_secret(secrets, [given], partial(self._signature, timestamp=timestamp, token=token))
        if index is None:
            raise no_match("the body", secrets, self.secret_setting)
        return Verified("mailgun-hmac-sha256", self.signed, index, seconds, skew_of(seconds, now, self.tolerance))

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Put a signature into a JSON object; ``id_externo`` is the token."""
        body: JsonValue = json.loads(draft.body)
        if not isinstance(body, dict):
            raise ValueError("a body of Mailgun's is a JSON object")  # noqa: TRY004 - see Provider.sign
        timestamp, token = f"{int(now)}", draft.id_externo or "0" * 50
        signature = self._signature(secret, timestamp=timestamp, token=token)
        body = {**body, "signature": {"timestamp": timestamp, "token": token, "signature": signature}}
        return WebhookRequest(json.dumps(body).encode(), Headers.of({"content-type": draft.content_type}), draft.url)

    def _signature(self, secret: Secret, *, timestamp: str, token: str) -> str:
        """Sign a timestamp and a token."""
        key = key_of(secret, "utf8", self.secret_setting)
        return hmac.digest(key, (timestamp + token).encode("utf-8", "surrogatepass"), "sha256").hex()
