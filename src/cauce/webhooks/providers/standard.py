"""Standard Webhooks 1.0.0, and Svix, its origin: one verifier for many providers.

``{webhook,svix}-{id,timestamp,signature}``; signed is ``{id}.{timestamp}.{body}``. The signature's header is a list of
``v1,<base64 HMAC-SHA256>`` and ``v1a,<base64 Ed25519>`` separated by spaces. Secrets are ``whsec_`` + base64 for v1 and
``whpk_`` + base64 for v1a; both kinds may be configured at once. Rules from the specification's
``spec/standard-webhooks.md``; v1a is in no official library, its test vector is Svix's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from cauce.webhooks.asymmetric import ed25519_sign, ed25519_verifies, from_base64
from cauce.webhooks.limits import MAX_ID, MAX_SIGNATURES
from cauce.webhooks.payload import JsonValue
from cauce.webhooks.provider import DAY, Draft, Found, Provider, header_of, is_storable, skew_of, unix_seconds
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import encode, first_match, matching_secret, no_match
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

MIN_KEY: Final = 16
"""Fewest bytes of a shared secret. The specification asks for 24 to 64; any short text is base64 of something."""


@dataclass(frozen=True, kw_only=True)
class StandardWebhooks(Provider):
    """Any provider that follows Standard Webhooks; an instance needs its name, its setting and where its types are."""

    origen: str = "standard"
    title: str = "Standard Webhooks"
    secret_setting: str = "STANDARD_WEBHOOK_SECRET"
    type_from: tuple[str, ...] = ("body:type",)
    families: tuple[str, ...] = ("webhook", "svix")
    """First part of the headers' names. The first family with a signature is used."""
    keep_headers: tuple[str, ...] = (
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "svix-id",
        "svix-timestamp",
        "svix-signature",
    )
    retry_horizon: float = 3 * DAY
    answer_within: float = 15.0
    documentation: ClassVar[str] = "https://www.standardwebhooks.com"

    @property
    def signed(self) -> SignedScope:
        """Id, timestamp and body."""
        ids = tuple(f"header:{family}-id" for family in self.families)
        return SignedScope(raw_body=True, timestamp=True, fields=ids)

    @property
    def evidence(self) -> tuple[str, ...]:
        """The headers of every family, and the provider's others."""
        names = [f"{family}-{part}".lower() for family in self.families for part in ("id", "timestamp", "signature")]
        return tuple(dict.fromkeys((*names, *super().evidence)))

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Look for a signature of one of the secrets, each by its scheme, then check the timestamp."""
        family = self.family_of(request)
        id_text = header_of(request, f"{family}-id")
        if "." in id_text:
            # It would move the border between the id and the timestamp in what is signed.
            raise Refusal(Reason.MALFORMED_HEADER, f"{family}-id holds a dot")
        timestamp = header_of(request, f"{family}-timestamp")
        seconds = unix_seconds(timestamp, f"{family}-timestamp")
        listed = _signatures(header_of(request, f"{family}-signature"), f"{family}-signature")
        message = _message(id_text, timestamp, request.body)
        scheme, index = self._match(secrets, listed, message)
        if index is None:
            raise no_match(f"{family}-signature", secrets, self.secret_setting)
        return Verified(scheme, self.signed, index, seconds, skew_of(seconds, now, self.tolerance))

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Make a signed delivery: v1 with a ``whsec_`` secret, v1a with a ``whsk_`` one."""
        family = self.families[0]
        id_text = draft.id_externo or f"msg_{hashlib.sha256(draft.body).hexdigest()[:27]}"
        if "." in id_text:
            raise ValueError(f"the id of a Standard Webhook must not hold a dot: {id_text!r}")
        timestamp = f"{int(now)}"
        message = _message(id_text, timestamp, draft.body)
        if secret.text.startswith("whsk_"):
            seed = from_base64(secret.text.removeprefix("whsk_")) or b""
            signature = "v1a," + encode(ed25519_sign(seed, message, self.secret_setting), "base64")
        else:
            signature = "v1," + self._v1(secret, message)
        headers = {
            "content-type": draft.content_type,
            f"{family}-id": id_text,
            f"{family}-timestamp": timestamp,
            f"{family}-signature": signature,
        }
        return WebhookRequest(draft.body, Headers.of(headers), draft.url)

    def id_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Take the id from the family of headers that was verified, never from the other one."""
        name = f"{self.family_of(request)}-id"
        text = request.headers.get(name)
        return Found(text, f"header:{name}") if text is not None and is_storable(text, MAX_ID) else None

    def family_of(self, request: WebhookRequest) -> str:
        """Return the first part of the names of this request's headers."""
        present = (family for family in self.families if request.headers.all(f"{family}-signature"))
        return next(present, self.families[0])

    def _match(
        self, secrets: Sequence[tuple[int, Secret]], listed: dict[str, list[str]], message: bytes
    ) -> tuple[str, int | None]:
        """Return the scheme and the position of the secret that signed the message, or None for the position."""
        public = [(index, secret) for index, secret in secrets if secret.text.startswith("whpk_")]
        shared = [(index, secret) for index, secret in secrets if not secret.text.startswith("whpk_")]
        wanted = [scheme for scheme, those in (("v1", shared), ("v1a", public)) if those]
        if not any(listed.get(scheme) for scheme in wanted):
            found = ", ".join(sorted(listed)) or "none"
            raise Refusal(Reason.WRONG_SCHEME, f"signed by {found}, and the secrets are for {' and '.join(wanted)}")
        index = matching_secret(shared, listed.get("v1", []), lambda secret: self._v1(secret, message))
        if index is not None:
            return "standard-v1", index
        signatures = [from_base64(text) or b"" for text in listed.get("v1a", ())]
        return "standard-v1a", first_match(public, lambda secret: self._v1a(secret, signatures, message))

    def _v1a(self, secret: Secret, signatures: list[bytes], message: bytes) -> bool:
        """Say whether one of the signatures was made with the private half of a public key."""
        key = from_base64(secret.text.strip().removeprefix("whpk_")) or b""
        return any(ed25519_verifies(key, signature, message, self.secret_setting) for signature in signatures)

    def _v1(self, secret: Secret, message: bytes) -> str:
        """Sign with a shared secret."""
        key = from_base64(secret.text.strip().removeprefix("whsec_")) or b""
        if len(key) < MIN_KEY:
            problem = f"is not whsec_ and base64 of {MIN_KEY} bytes or more"
            raise Refusal(Reason.MALFORMED_SECRET, f"a secret in {self.secret_setting} {problem}")
        return base64.b64encode(hmac.digest(key, message, "sha256")).decode("ascii")


def _message(id_text: str, timestamp: str, body: bytes) -> bytes:
    """Return what is signed."""
    return f"{id_text}.{timestamp}.".encode() + body


def _signatures(text: str, header: str) -> dict[str, list[str]]:
    """Split ``v1,<base64> v1a,<base64>`` by scheme."""
    parts = text.split(" ")
    if len(parts) > MAX_SIGNATURES:
        raise Refusal(Reason.MALFORMED_HEADER, f"{header} holds {len(parts)} signatures, over {MAX_SIGNATURES}")
    listed: dict[str, list[str]] = {}
    for part in parts:
        scheme, comma, signature = part.partition(",")
        if comma:
            listed.setdefault(scheme, []).append(signature)
    return listed


SVIX = StandardWebhooks(origen="svix", title="Svix", secret_setting="SVIX_WEBHOOK_SECRET")
OPENAI = StandardWebhooks(origen="openai", title="OpenAI", secret_setting="OPENAI_WEBHOOK_SECRET")
ANTHROPIC = StandardWebhooks(
    origen="anthropic",
    title="Anthropic",
    secret_setting="ANTHROPIC_WEBHOOK_SIGNING_KEY",
    type_from=("body:data.type", "body:type"),  # its own "type" is always "event"
)
CLERK = StandardWebhooks(origen="clerk", title="Clerk", secret_setting="CLERK_WEBHOOK_SIGNING_SECRET")
RESEND = StandardWebhooks(origen="resend", title="Resend", secret_setting="RESEND_WEBHOOK_SECRET")
SUPABASE = StandardWebhooks(origen="supabase", title="Supabase", secret_setting="SUPABASE_WEBHOOK_SECRET")
GITLAB = StandardWebhooks(
    origen="gitlab",
    title="GitLab",
    secret_setting="GITLAB_WEBHOOK_SIGNING_TOKEN",
    type_from=("body:object_kind", "body:event_name"),
    answer_within=10.0,
)
"""GitLab with a signing token; ``gitlab_token`` is its older scheme, which signs nothing."""
