"""Everything that needs ``cryptography``, the optional extra ``cauce[crypto]``, which is imported only when it is used.

Ed25519 (Standard Webhooks v1a, Discord), ECDSA P-256 (SendGrid), RSA (PayPal), and the two block ciphers with which
Redsys derives a key from an order. Functions take and return bytes and raise ``Refusal``, never the library's errors.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from cauce.webhooks.verdict import Reason, Refusal

ED25519_KEY: Final = 32
"""Bytes of an Ed25519 key, and of the seed that is its private half."""


@contextmanager
def _library(setting: str) -> Generator[None]:
    """Turn a missing library, and a key that it cannot read, into refusals that are our fault, not the provider's."""
    try:
        yield
    except ImportError as error:
        message = "cryptography is not installed: install cauce with its extra 'crypto'"
        raise Refusal(Reason.UNAVAILABLE, message) from error
    except Exception as error:  # whatever the library raises, the key is useless
        raise Refusal(Reason.MALFORMED_SECRET, f"a key in {setting} cannot be read") from error


def _accepts(verify: Callable[..., None], *arguments: object) -> bool:
    """Return whether a key's ``verify`` accepts a signature."""
    from cryptography.exceptions import InvalidSignature

    try:
        verify(*arguments)
    except InvalidSignature:
        return False
    return True


def ed25519_verifies(key: bytes, signature: bytes, message: bytes, setting: str) -> bool:
    """Check an Ed25519 signature with a raw public key."""
    with _library(setting):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        public = Ed25519PublicKey.from_public_bytes(key)
    return _accepts(public.verify, signature, message)


def ed25519_sign(seed: bytes, message: bytes, setting: str) -> bytes:
    """Sign with a raw Ed25519 private key, or with the 64 bytes of private and public key together."""
    with _library(setting):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(seed[:ED25519_KEY]).sign(message)


def ecdsa_verifies(spki: bytes, signature: bytes, message: bytes, setting: str) -> bool:
    """Check an ECDSA signature (DER) over SHA-256 with a public key (DER SubjectPublicKeyInfo)."""
    with _library(setting):
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        public = load_der_public_key(spki)
    if not isinstance(public, EllipticCurvePublicKey):
        raise Refusal(Reason.MALFORMED_SECRET, f"a key in {setting} is no elliptic curve key")
    return _accepts(public.verify, signature, message, ECDSA(SHA256()))


def ecdsa_sign(pkcs8: bytes, message: bytes, setting: str) -> bytes:
    """Sign with an elliptic curve private key (DER PKCS#8)."""
    with _library(setting):
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_der_private_key

        private = load_der_private_key(pkcs8, password=None)
    if not isinstance(private, EllipticCurvePrivateKey):
        raise Refusal(Reason.MALFORMED_SECRET, f"a key in {setting} is no elliptic curve key")
    return private.sign(message, ECDSA(SHA256()))


def certificate_verifies(pem: bytes, signature: bytes, message: bytes, now: float) -> bool:
    """Check an RSA-SHA256 (PKCS#1 v1.5) signature with the first certificate of a PEM file that is valid at ``now``.

    Raises:
        Refusal: the file holds no RSA certificate, or it is not valid at ``now`` (Unix seconds).
    """
    with _library("the certificate"):
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.x509 import load_pem_x509_certificate

        certificate = load_pem_x509_certificate(pem)
        public = certificate.public_key()
    if not isinstance(public, RSAPublicKey):
        raise Refusal(Reason.UNAVAILABLE, "the certificate holds no RSA key")
    if not certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp():
        raise Refusal(Reason.UNAVAILABLE, "the certificate is not valid now; fetch it again")
    return _accepts(public.verify, signature, message, PKCS1v15(), SHA256())


def rsa_sign(pkcs8: bytes, message: bytes, setting: str) -> bytes:
    """Sign with an RSA private key (PEM), SHA-256 and PKCS#1 v1.5."""
    with _library(setting):
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        private = load_pem_private_key(pkcs8, password=None)
    if not isinstance(private, RSAPrivateKey):
        raise Refusal(Reason.MALFORMED_SECRET, f"a key in {setting} is no RSA key")
    return private.sign(message, PKCS1v15(), SHA256())


def triple_des_cbc(key: bytes, data: bytes, setting: str) -> bytes:
    """Encrypt whole blocks with 3DES-CBC and a zero initialization vector (Redsys, ``HMAC_SHA256_V1``)."""
    with _library(setting):
        from cryptography.hazmat.primitives.ciphers import Cipher, modes

        try:
            from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
        except ImportError:
            from cryptography.hazmat.primitives.ciphers.algorithms import TripleDES
        # The cipher is Redsys's choice; it hides nothing here, it only spreads the key over the orders.
        encryptor = Cipher(TripleDES(key), modes.CBC(bytes(8))).encryptor()
        return encryptor.update(data) + encryptor.finalize()


def aes_cbc(key: bytes, data: bytes, setting: str) -> bytes:
    """Encrypt whole blocks with AES-CBC and a zero initialization vector (Redsys, ``HMAC_SHA512_V1`` and ``V2``)."""
    with _library(setting):
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        encryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
        return encryptor.update(data) + encryptor.finalize()


def from_base64(text: str) -> bytes | None:
    """Decode base64 or base64url, padded or not; None if it is neither."""
    text = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None
