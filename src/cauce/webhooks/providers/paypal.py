"""PayPal: an RSA signature over ``{transmission id}|{time}|{webhook id}|{crc32 of the body}``.

The secret is the webhook's id, which PayPal shows on the application's page; the certificate at ``PAYPAL-CERT-URL``
proves the sender. **This module opens no connection**: pass ``PayPal(certificates=...)`` a function that returns the
PEM file of a URL, from its cache if possible, or None if it is unavailable. Only https URLs of paypal.com are asked for
(PayPal's archived library fetches any URL).

Only the body's CRC-32 is signed, and anyone who has one valid delivery can make another body with the same CRC-32. So
id and type are marked ``sin_firmar``; for anything that matters, GET the resource. PayPal retries for three days and
does not document whether it signs again, so four days are allowed. Rules from
https://developer.paypal.com/api/rest/webhooks/rest/ and PayPal-Python-SDK. Needs ``cryptography``.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Final, TypeAlias

from cauce.webhooks.asymmetric import certificate_verifies, from_base64, rsa_sign
from cauce.webhooks.provider import DAY, Draft, Provider, Unsigned, header_of, skew_of
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import first_match, iso_seconds, no_match
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

Certificates: TypeAlias = Callable[[str], bytes | None]
"""Returns the PEM file at a URL of PayPal's; None if it is unavailable."""

_ALGORITHM: Final = "SHA256withRSA"
_CERTIFICATE_URL: Final = re.compile(r"https://[a-z0-9.-]+\.paypal\.com/[\x21-\x7e]*")


@dataclass(frozen=True, kw_only=True)
class PayPal(Provider):
    """PayPal's REST webhooks."""

    origen: str = "paypal"
    title: str = "PayPal"
    secret_setting: str = "PAYPAL_WEBHOOK_ID"
    certificates: Certificates | None = field(default=None, compare=False)
    tolerance: float = 4 * DAY
    id_from: tuple[str, ...] = ("body:id",)
    type_from: tuple[str, ...] = ("body:event_type",)
    accept_unsigned: frozenset[Unsigned] = frozenset({"tipo", "id_externo"})
    keep_headers: tuple[str, ...] = (
        "paypal-transmission-id",
        "paypal-transmission-time",
        "paypal-transmission-sig",
        "paypal-cert-url",
        "paypal-auth-algo",
    )
    documentation: ClassVar[str] = "https://developer.paypal.com/api/rest/webhooks/rest/"

    @property
    def signed(self) -> SignedScope:
        """The transmission, and a checksum of the body."""
        return SignedScope(timestamp=True, fields=("header:paypal-transmission-id", "crc32"))

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Check the signature with the certificate that the request names, if that is PayPal's."""
        transmission, time = (
            header_of(request, "PAYPAL-TRANSMISSION-ID"),
            header_of(request, "PAYPAL-TRANSMISSION-TIME"),
        )
        seconds = iso_seconds(time, "PAYPAL-TRANSMISSION-TIME")
        if header_of(request, "PAYPAL-AUTH-ALGO") != _ALGORITHM:
            raise Refusal(Reason.WRONG_SCHEME, f"PAYPAL-AUTH-ALGO is not {_ALGORITHM}")
        signature = from_base64(header_of(request, "PAYPAL-TRANSMISSION-SIG"))
        if not signature:
            raise Refusal(Reason.MALFORMED_HEADER, "PAYPAL-TRANSMISSION-SIG is not base64")
        pem = self._certificate(header_of(request, "PAYPAL-CERT-URL"))

        def matches(secret: Secret) -> bool:
            return certificate_verifies(pem, signature, message_of(request.body, transmission, time, secret), now)

        index = first_match(secrets, matches)
        if index is None:
            raise no_match("PAYPAL-TRANSMISSION-SIG", secrets, self.secret_setting)
        return Verified("paypal-rsa-sha256", self.signed, index, seconds, skew_of(seconds, now, self.tolerance))

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Sign a delivery; the secret is ``<webhook id>|<RSA private key in PEM>``."""
        webhook_id, _, pem = secret.text.partition("|")
        time = datetime.fromtimestamp(int(now), UTC).isoformat().replace("+00:00", "Z")
        transmission = draft.id_externo or "dfb3be50-fd74-11e4-8bf3-77339302725b"
        message = message_of(draft.body, transmission, time, Secret(webhook_id))
        signature = rsa_sign(pem.encode(), message, self.secret_setting)
        headers = {
            "content-type": draft.content_type,
            "PAYPAL-TRANSMISSION-ID": transmission,
            "PAYPAL-TRANSMISSION-TIME": time,
            "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode("ascii"),
            "PAYPAL-CERT-URL": "https://api.paypal.com/v1/notifications/certs/example",
            "PAYPAL-AUTH-ALGO": _ALGORITHM,
        }
        return WebhookRequest(draft.body, Headers.of(headers), draft.url)

    def _certificate(self, url: str) -> bytes:
        """Return the certificate at a URL of PayPal's."""
        if not _CERTIFICATE_URL.fullmatch(url):
            raise Refusal(Reason.CONTRADICTION, "PAYPAL-CERT-URL is not an https URL of paypal.com")
        if self.certificates is None:
            raise Refusal(Reason.UNAVAILABLE, "there is no source of certificates: use PayPal(certificates=...)")
        pem = self.certificates(url)
        if pem is None:
            raise Refusal(Reason.UNAVAILABLE, f"the certificate {url} cannot be had now")
        return pem


def message_of(body: bytes, transmission: str, time: str, webhook_id: Secret) -> bytes:
    """Return what PayPal signs."""
    text = f"{transmission}|{time}|{webhook_id.text.strip()}|{zlib.crc32(body)}"
    return text.encode("utf-8", "replace")
