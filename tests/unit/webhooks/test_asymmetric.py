"""Signatures with two keys, and what happens when the library or a key is missing."""

from __future__ import annotations

import base64
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from cauce.webhooks import PROVIDERS, Draft, Headers, Reason, Rejected, Secret, Verified, WebhookRequest
from cauce.webhooks.asymmetric import certificate_verifies, ecdsa_verifies
from cauce.webhooks.providers.paypal import PayPal
from cauce.webhooks.verdict import Refusal

NOW = 1_760_000_000.0
SEED = bytes(range(32))
PUBLIC = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
WHSK = Secret("whsk_" + base64.b64encode(SEED + PUBLIC).decode())
WHPK = Secret("whpk_" + base64.b64encode(PUBLIC).decode())
WHSEC = Secret("whsec_" + base64.b64encode(b"k" * 24).decode())
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def certificate(key: CertificateIssuerPrivateKeyTypes, end: float) -> bytes:
    """Issue a certificate for the day before ``end`` (Unix seconds)."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    moment = datetime.fromtimestamp(end, UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(moment - timedelta(days=1)).not_valid_after(moment)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_v1a_round_trip() -> None:
    """Standard Webhooks' Ed25519 scheme: signed with whsk_, verified with whpk_, beside a whsec_ or alone."""
    provider = PROVIDERS["standard"]
    request = provider.sign(Draft(b'{"type":"a"}'), WHSK, NOW)
    for secrets, index in (([WHPK], 0), ([WHSEC, WHPK], 1)):
        verdict = provider.verify(request, secrets, NOW)
        assert isinstance(verdict, Verified)
        assert (verdict.scheme, verdict.secret) == ("standard-v1a", index)


def test_v1a_is_refused_when_anything_differs() -> None:
    """Another key, body, id or moment is a bad signature."""
    provider = PROVIDERS["standard"]
    request = provider.sign(Draft(b"{}"), WHSK, NOW)
    headers = dict(request.headers)
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    stranger = Secret("whpk_" + base64.b64encode(other).decode())
    for spoiled, secret in (
        (request, stranger),
        (WebhookRequest(b"[]", request.headers), WHPK),
        (WebhookRequest(b"{}", Headers.of({**headers, "webhook-id": "msg_2"})), WHPK),
        (WebhookRequest(b"{}", Headers.of({**headers, "webhook-timestamp": f"{NOW + 1:.0f}"})), WHPK),
        (WebhookRequest(b"{}", Headers.of({**headers, "webhook-signature": "v1a,AAAA"})), WHPK),
        (WebhookRequest(b"{}", Headers.of({**headers, "webhook-signature": "v1a,!"})), WHPK),
    ):
        verdict = provider.verify(spoiled, [secret], NOW)
        assert isinstance(verdict, Rejected)
        assert verdict.reason is Reason.BAD_SIGNATURE


def test_a_signature_is_never_checked_by_the_scheme_of_another_key() -> None:
    """A v1 made with the public key's bytes as if they were a secret is refused: the confusion known from JWT."""
    provider = PROVIDERS["standard"]
    as_secret = Secret("whsec_" + base64.b64encode(PUBLIC).decode())
    forged = provider.sign(Draft(b"{}"), as_secret, NOW)
    verdict = provider.verify(forged, [WHPK], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.WRONG_SCHEME


@pytest.mark.parametrize("name", ["discord", "sendgrid", "standard"])
def test_without_cryptography_the_fault_is_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is said to be one, and asks the provider to come again."""
    ec_key = ec.derive_private_key(7, ec.SECP256R1())
    spki = base64.b64encode(ec_key.public_key().public_bytes(serialization.Encoding.DER, SPKI)).decode()
    pkcs8 = ec_key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    sign, verify = {
        "discord": (Secret(SEED.hex()), Secret(PUBLIC.hex())),
        "sendgrid": (Secret(base64.b64encode(pkcs8).decode()), Secret(spki)),
        "standard": (WHSK, WHPK),
    }[name]
    request = PROVIDERS[name].sign(Draft(b"[{}]"), sign, NOW)
    for module in [module for module in sys.modules if module.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, module, None)
    verdict = PROVIDERS[name].verify(request, [verify], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.UNAVAILABLE
    assert verdict.reason.is_ours
    assert "extra" in verdict.detail


def test_keys_of_the_wrong_kind_are_malformed() -> None:
    """An Ed25519 key is no elliptic curve key of SendGrid's, and an elliptic curve certificate no RSA one."""
    spki = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes(serialization.Encoding.DER, SPKI)
    with pytest.raises(Refusal) as refused:
        ecdsa_verifies(spki, b"", b"", "A_SETTING")
    assert refused.value.rejected.reason is Reason.MALFORMED_SECRET
    with pytest.raises(Refusal, match="no RSA key"):
        certificate_verifies(certificate(ec.derive_private_key(7, ec.SECP256R1()), NOW), b"", b"", NOW)


def test_a_certificate_counts_only_while_it_is_valid() -> None:
    """At its last second it is good, a second later it must be fetched again."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    provider = PayPal(certificates=lambda _: certificate(key, NOW))
    request = provider.sign(Draft(b"{}"), Secret(f"W1|{pem}"), NOW)
    assert isinstance(provider.verify(request, [Secret("W1")], NOW), Verified)
    verdict = provider.verify(request, [Secret("W1")], NOW + 1)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.UNAVAILABLE


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff"])
def test_what_is_no_certificate_is_not_the_senders_fault(pem: bytes) -> None:
    """Whatever the source of certificates returned, the request is not blamed for it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    provider = PayPal(certificates=lambda _: pem)
    verdict = provider.verify(provider.sign(Draft(b"{}"), Secret(f"W1|{text}"), NOW), [Secret("W1")], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason.is_ours


@pytest.mark.parametrize("name", ["discord", "sendgrid", "standard", "paypal", "redsys", "adyen", "mailgun"])
def test_a_signer_says_what_it_cannot_sign(name: str) -> None:
    """A key or a body of the wrong shape is a ValueError, as the interface promises."""
    with pytest.raises(ValueError, match=r"\S"):
        PROVIDERS[name].sign(Draft(b"[]"), Secret("whsk_!"), NOW)
