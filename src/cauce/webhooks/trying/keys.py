"""New secrets to try an inbox, in each provider's format. In production the provider makes the secret.

Three providers sign with a private key and publish its public half, so a simulator needs its own pair.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cauce.webhooks.provider import Provider
from cauce.webhooks.providers.discord import Discord
from cauce.webhooks.providers.paypal import PayPal
from cauce.webhooks.providers.redsys import Redsys
from cauce.webhooks.providers.sendgrid import SendGrid
from cauce.webhooks.providers.standard import StandardWebhooks
from cauce.webhooks.providers.stripe import Stripe

CERTIFICATE_DAYS = 365
"""Days that a certificate made here is valid, before and after its moment."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets to verify and to sign with: the same text, unless the scheme has two keys."""

    verify: str = field(repr=False)
    sign: str = field(repr=False)
    certificate: str = ""
    """PEM, for PayPal only: what ``PayPal(certificates=...)`` must return."""

    def trusted_by(self, provider: Provider) -> Provider:
        """Return a provider that verifies with these keys; only PayPal's differs."""
        return trusting(provider, self.certificate.encode()) if self.certificate else provider


def trusting(provider: Provider, pem: bytes) -> Provider:
    """Return PayPal with one certificate, whatever the URL; other providers as they are."""

    def certificates(_: str) -> bytes:
        return pem

    return replace(provider, certificates=certificates) if isinstance(provider, PayPal) else provider


def has_two_keys(provider: Provider) -> bool:
    """Return whether the provider's setting holds a public key or an id, which cannot sign."""
    return isinstance(provider, Discord | SendGrid | PayPal)


def new_keys(provider: Provider, now: float) -> Keys:
    """Make a new secret, and for PayPal a certificate that is valid around ``now`` (Unix seconds).

    Raises:
        ValueError: the provider needs ``cryptography``, which is not installed.
    """
    if has_two_keys(provider):
        try:
            return _new_pair(provider, now)
        except ImportError as error:
            message = f"keys for {provider.origen} need cryptography: install cauce with its extra 'crypto'"
            raise ValueError(message) from error
    if isinstance(provider, StandardWebhooks | Redsys):
        prefix = "" if isinstance(provider, Redsys) else "whsec_"
        text = prefix + base64.b64encode(secrets.token_bytes(24)).decode("ascii")
    else:  # good as text, as hex and as base64
        text = ("whsec_" if isinstance(provider, Stripe) else "") + secrets.token_hex(32)
    return Keys(text, text)


def _new_pair(provider: Provider, now: float) -> Keys:
    if isinstance(provider, Discord):
        return _ed25519()
    return _p256() if isinstance(provider, SendGrid) else _rsa(now)


def _ed25519() -> Keys:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    return Keys(private.public_key().public_bytes_raw().hex(), private.private_bytes_raw().hex())


def _p256() -> Keys:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
    secret = private.private_bytes(form.Encoding.DER, form.PrivateFormat.PKCS8, form.NoEncryption())
    return Keys(base64.b64encode(public).decode("ascii"), base64.b64encode(secret).decode("ascii"))


def _rsa(now: float) -> Keys:
    """Make an RSA key, a self-signed certificate, and a webhook id."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cauce simulator")])
    moment, valid = datetime.fromtimestamp(now, UTC), timedelta(days=CERTIFICATE_DAYS)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(moment - valid)
    certificate = builder.not_valid_after(moment + valid).sign(private, hashes.SHA256())
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode("ascii")
    webhook_id = secrets.token_hex(9)[:17].upper()
    return Keys(webhook_id, f"{webhook_id}|{pem}", certificate.public_bytes(form.Encoding.PEM).decode("ascii"))
