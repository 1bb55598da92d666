"""Twilio: ``X-Twilio-Signature``, base64 HMAC over the URL and the form's sorted fields, nothing between them.

JSON bodies are covered through ``bodySHA256`` in the signed URL. The URL is signed as Twilio called it, with or without
the default port: behind a proxy the inbox has it from ``CAUCE_PUBLIC_URL``, or this instance from ``public_url``.
There is no timestamp, so only the signed id stops replays; and since nothing separates names and values, anyone who has
a delivery can also split them elsewhere. ``digest="sha256"`` is for webhooks signed with a SharedKey, whose secret
replaces the account's auth token; the request cannot choose the digest. Rules from https://www.twilio.com/docs/usage/webhooks/webhooks-security.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from cauce.webhooks.limits import MAX_BATCH, MAX_ID, MAX_TIPO
from cauce.webhooks.payload import JsonValue, Payload, at, read_form, split_batch, without_bom
from cauce.webhooks.provider import Draft, Found, Provider, header_of, is_storable
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import Digest, blame_url, key_of, matching_secret, no_match
from cauce.webhooks.urls import with_and_without_port
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

_HEADER = "X-Twilio-Signature"
_BODY_HASH = "bodySHA256"


@dataclass(frozen=True, kw_only=True)
class Twilio(Provider):
    """Twilio's messages, calls and Event Streams.

    ``tipo`` is ``message.<status>`` or ``call.<status>``, or the CloudEvents type of an event stream. A message is
    identified by its sid and status; everything else, by a hash.
    """

    origen: str = "twilio"
    title: str = "Twilio"
    secret_setting: str = "TWILIO_AUTH_TOKEN"
    digest: Digest = "sha1"
    public_url: str | None = None
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:type",)
    keep_headers: tuple[str, ...] = ("x-twilio-signature", "i-twilio-idempotency-token")
    retry_horizon: float = 4 * 3600.0
    answer_within: float = 15.0
    documentation: ClassVar[str] = "https://www.twilio.com/docs/usage/webhooks/webhooks-security"

    @property
    def signed(self) -> SignedScope:
        """The URL and every field of the form, or of the JSON body."""
        return SignedScope(raw_body=True, url=True)

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Compare the signature with those of the URL's two spellings."""
        given = header_of(request, _HEADER)
        request = self._public(request)
        covered = self._covered(request)

        def matches(url: str) -> int | None:
            return matching_secret(secrets, [given], lambda secret: self._signature(secret, url, covered))

        for url in with_and_without_port(request.url):
            index = matches(url)
            if index is not None:
                return Verified(f"twilio-{self.digest}", self.signed, index)
        blame_url(request.url, matches)
        raise no_match(_HEADER, secrets, self.secret_setting)

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Make a signed delivery; a JSON body gets its hash into the URL."""
        url = self.public_url or draft.url
        if _is_json(draft.body):
            mark = "&" if "?" in url else "?"
            url = f"{url}{mark}{_BODY_HASH}={hashlib.sha256(draft.body).hexdigest()}"
        request = WebhookRequest(draft.body, url=url)
        headers = {
            "content-type": "application/json" if _is_json(draft.body) else "application/x-www-form-urlencoded",
            _HEADER: self._signature(secret, url, self._covered(request)),
        }
        return replace(request, headers=Headers.of(headers))

    def payloads(self, request: WebhookRequest) -> Sequence[Payload]:
        """Read a form, a JSON object, or the list of CloudEvents of an event stream."""
        if not _is_json(request.body):
            return (read_form(request.body),)
        return split_batch(request.body, MAX_BATCH)

    def tipo_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Return the kind of object and its status."""
        for key, kind in (("MessageStatus", "message"), ("SmsStatus", "message"), ("CallStatus", "call")):
            status = at(value, key)
            if isinstance(status, str) and is_storable(status, MAX_TIPO - len("message.")):
                return Found(f"{kind}.{status}", f"body:{key}")
        return super().tipo_of(request, value)

    def id_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Identify a message by its sid and status: each status is an event of its own."""
        sid = at(value, "MessageSid")
        status = at(value, "MessageStatus") or at(value, "SmsStatus")
        text = f"{sid}:{status}"
        if isinstance(sid, str) and isinstance(status, str) and is_storable(text, MAX_ID):
            return Found(text, "body:MessageSid")
        return super().id_of(request, value)

    def _public(self, request: WebhookRequest) -> WebhookRequest:
        """Put the configured address in front of the request's own query."""
        if self.public_url is None:
            return request
        _, mark, query = request.url.partition("?")
        return replace(request, url=self.public_url + mark + query)

    def _covered(self, request: WebhookRequest) -> bytes:
        """Return the part of the body that is signed after the URL.

        Raises:
            Refusal: the body is JSON, and the URL has no hash or another body's.
        """
        if not _is_json(request.body):
            return _form_text(request.body)
        given = request.parameter(_BODY_HASH) or ""
        if not given:
            raise Refusal(Reason.WRONG_SCHEME, f"the body is JSON, and the URL has no {_BODY_HASH} to cover it")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), hashlib.sha256(request.body).hexdigest().encode()):
            raise Refusal(Reason.BAD_SIGNATURE, f"the body is not the one whose hash is in {_BODY_HASH}")
        return b""

    def _signature(self, secret: Secret, url: str, covered: bytes) -> str:
        """Sign a URL and what follows it."""
        key = key_of(secret, "utf8", self.secret_setting)
        message = url.encode("utf-8", "surrogatepass") + covered
        return base64.b64encode(hmac.digest(key, message, self.digest)).decode("ascii")


def _is_json(body: bytes) -> bool:
    """Return whether the body is JSON, not a form; the content type is not signed."""
    return without_bom(body).lstrip()[:1] in (b"{", b"[")


def _form_text(body: bytes) -> bytes:
    """Write the form's fields as Twilio signs them: sorted by name, values sorted and each once."""
    form = read_form(body)
    if not isinstance(form.value, dict):
        raise Refusal(Reason.MALFORMED_BODY, f"the body is no form: {form.detail}")
    pieces: list[str] = []
    for name, value in sorted(form.value.items()):
        values = value if isinstance(value, list) else [value]
        pieces.extend(name + text for text in sorted({str(item) for item in values}))
    return "".join(pieces).encode("utf-8", "surrogatepass")
