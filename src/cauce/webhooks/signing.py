"""Declarative HMAC schemes: most providers differ only in where they put the parts.

A provider that signs its body with a shared secret is five lines::

    HmacProvider(
        origen="acme", secret_setting="ACME_WEBHOOK_SECRET",
        header="X-Acme-Signature", prefix="sha256=", template="{timestamp}.{body}", timestamp_header="X-Acme-Time",
        id_from=("body:id",), type_from=("body:type",),
    )

What the signature covers is computed from the template, so the two cannot differ.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Literal

from cauce.webhooks.asymmetric import ecdsa_sign, ecdsa_verifies, ed25519_sign, ed25519_verifies, from_base64
from cauce.webhooks.limits import MAX_SIGNATURES
from cauce.webhooks.payload import at, read_json
from cauce.webhooks.provider import Draft, Provider, header_of, skew_of, unix_seconds
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.urls import rewritten, shown_url
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

Digest = Literal["sha1", "sha256", "sha512"]
Encoding = Literal["hex", "base64"]
KeyEncoding = Literal["utf8", "hex", "base64"]
TimestampFormat = Literal["s", "ms", "iso8601"]
Algorithm = Literal["ed25519", "ecdsa-sha256"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A header of ``name=value`` pairs that holds the timestamp and one signature or several: ``t=1,v1=ab,v1=cd``."""

    separator: str
    timestamp: str
    signature: str


@dataclass(frozen=True, kw_only=True)
class TemplateProvider(Provider):
    """A provider that signs a template of ``{body}``, ``{timestamp}``, ``{id}`` and ``{url}``."""

    header: str
    """Name of the header that holds the signature."""
    prefix: str = ""
    """The text before the signature in its header (``sha256=``)."""
    pairs: Pairs | None = None
    """The form of a header that is a list of pairs; it replaces ``prefix`` and ``timestamp_header``."""
    encoding: Encoding = "hex"
    key_encoding: KeyEncoding = "utf8"
    template: str = "{body}"
    timestamp_header: str | None = None
    timestamp_path: str | None = None
    """Path of a timestamp inside the signed JSON body."""
    timestamp_format: TimestampFormat = "s"
    id_header: str | None = None
    """The header that ``{id}`` in the template stands for."""
    public_url: str | None = None
    """The URL that ``{url}`` stands for, as registered with the provider; None takes the request's."""

    def __post_init__(self) -> None:
        """Check the template.

        Raises:
            ValueError: the template has an unknown part, a part without its header, or no ``{body}``.
        """
        super().__post_init__()
        parts = set(re.findall(r"\{(\w+)\}", self.template))
        sources = {"body": True, "url": True, "timestamp": self.timestamp_header or self.pairs, "id": self.id_header}
        wrong = sorted(part for part in parts if not sources.get(part))
        if wrong or "body" not in parts:
            message = (
                f"template {self.template!r} of {self.origen}: it must hold {{body}}, and {{timestamp}} and {{id}} need"
                f" a header to come from{f' (wrong: {wrong})' if wrong else ''}"
            )
            raise ValueError(message)

    @property
    def signed(self) -> SignedScope:
        """What the template covers."""
        return _scope(self.template, self.id_header or "", self.timestamp_path or "")

    @property
    def evidence(self) -> tuple[str, ...]:
        """The headers of the template's parts, and the provider's others."""
        names = (self.header, self.timestamp_header or "", self.id_header or "", *super().evidence)
        return tuple(dict.fromkeys(name.lower() for name in names if name))

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Compare the header's signatures with each secret's, then check the timestamp."""
        timestamp, signatures = self._read_header(header_of(request, self.header))
        if self.timestamp_header is not None:
            timestamp = header_of(request, self.timestamp_header)
        seconds = None if timestamp is None else self._seconds(timestamp)
        id_text = header_of(request, self.id_header) if self.id_header else ""

        def matches(url: str) -> int | None:
            message = self._message(request.body, url, timestamp or "", id_text)
            return self._matching(secrets, signatures, message)

        url = self.public_url or request.url
        index = matches(url)
        if index is None:
            if self.signed.url:
                blame_url(url, matches)
            raise no_match(self.header, secrets, self.secret_setting)
        if self.timestamp_path is not None:
            seconds = self._body_seconds(request, self.timestamp_path)
        return Verified(
            scheme=self._scheme,
            covered=self.signed,
            secret=index,
            timestamp=seconds,
            skew=None if seconds is None else skew_of(seconds, now, self.tolerance),
        )

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Make a signed delivery."""
        timestamp = self._timestamp(now)
        headers = {"content-type": draft.content_type, **dict(self._other_headers(draft, timestamp))}
        url = self.public_url or draft.url
        signature = self._signature(secret, self._message(draft.body, url, timestamp, draft.id_externo))
        if self.pairs is None:
            headers[self.header] = self.prefix + signature
        else:
            time_pair, signature_pair = f"{self.pairs.timestamp}={timestamp}", f"{self.pairs.signature}={signature}"
            headers[self.header] = f"{time_pair}{self.pairs.separator}{signature_pair}"
        return WebhookRequest(draft.body, Headers.of(headers), url)

    def _read_header(self, text: str) -> tuple[str | None, list[str]]:
        """Split the signature's header into its timestamp (None without ``pairs``) and its signatures."""
        if self.pairs is not None:
            return read_pairs(text, self.pairs, self.header)
        if not text.startswith(self.prefix):
            raise Refusal(Reason.WRONG_SCHEME, f"{self.header} does not start with {self.prefix!r}")
        return None, [text[len(self.prefix) :]]

    def _message(self, body: bytes, url: str, timestamp: str, id_text: str) -> bytes:
        """Fill the template."""
        parts = {
            "{body}": body,
            "{timestamp}": timestamp.encode("latin-1"),
            "{id}": id_text.encode("latin-1"),
            "{url}": url.encode("utf-8", "surrogatepass"),
        }
        return b"".join(parts[piece] if piece in parts else piece.encode() for piece in _pieces(self.template))

    @property
    @abstractmethod
    def _scheme(self) -> str:
        """The name of the scheme in verdicts."""

    @abstractmethod
    def _matching(self, secrets: Sequence[tuple[int, Secret]], signatures: list[str], message: bytes) -> int | None:
        """Return the position of the secret that made one of the signatures."""

    @abstractmethod
    def _signature(self, secret: Secret, message: bytes) -> str:
        """Sign with one secret, in the provider's encoding."""

    def _key(self, secret: Secret) -> bytes:
        return key_of(secret, self.key_encoding, self.secret_setting)

    def _seconds(self, timestamp: str) -> float:
        """Read a timestamp from a header, in the provider's format."""
        if self.timestamp_format == "iso8601":
            return iso_seconds(timestamp, self.header)
        return unix_seconds(timestamp[:-3] if self.timestamp_format == "ms" else timestamp, self.header)

    def _body_seconds(self, request: WebhookRequest, path: str) -> float:
        """Read the timestamp from the signed body."""
        value = at(read_json(request.body).value, path)
        if not isinstance(value, int | str):
            raise Refusal(Reason.MALFORMED_BODY, f"the signed body has no {path}")
        return self._seconds(str(value))

    def _timestamp(self, now: float) -> str:
        """Write a timestamp in the provider's format."""
        if self.timestamp_format == "iso8601":
            return datetime.fromtimestamp(int(now), UTC).isoformat().replace("+00:00", "Z")
        return f"{int(now)}000" if self.timestamp_format == "ms" else f"{int(now)}"

    def _other_headers(self, draft: Draft, timestamp: str) -> Iterable[tuple[str, str]]:
        """Yield a delivery's other headers."""
        if self.timestamp_header is not None:
            yield self.timestamp_header.lower(), timestamp
        if self.id_header is not None:
            yield self.id_header.lower(), draft.id_externo
        for places, value in ((self.id_from, draft.id_externo), (self.type_from, draft.tipo)):
            for place in places:
                kind, _, name = place.partition(":")
                if kind == "header" and value:
                    yield name, value


@dataclass(frozen=True, kw_only=True)
class HmacProvider(TemplateProvider):
    """A provider whose signature is an HMAC, keyed by the secret that both sides have."""

    digest: Digest = "sha256"

    @property
    def _scheme(self) -> str:
        return f"hmac-{self.digest}"

    def _matching(self, secrets: Sequence[tuple[int, Secret]], signatures: list[str], message: bytes) -> int | None:
        return matching_secret(secrets, signatures, lambda secret: self._signature(secret, message))

    def _signature(self, secret: Secret, message: bytes) -> str:
        return encode(hmac.digest(self._key(secret), message, self.digest), self.encoding)


@dataclass(frozen=True, kw_only=True)
class PublicKeyProvider(TemplateProvider):
    """A provider that signs with a private key: to verify, the secret is the public key, to sign, the private one."""

    algorithm: Algorithm

    @property
    def _scheme(self) -> str:
        return self.algorithm

    def _matching(self, secrets: Sequence[tuple[int, Secret]], signatures: list[str], message: bytes) -> int | None:
        given = decode(signatures[0], self.encoding)
        if not given:
            raise Refusal(Reason.MALFORMED_HEADER, f"{self.header} is not {self.encoding}")
        verifies = ed25519_verifies if self.algorithm == "ed25519" else ecdsa_verifies
        return first_match(secrets, lambda secret: verifies(self._key(secret), given, message, self.secret_setting))

    def _signature(self, secret: Secret, message: bytes) -> str:
        sign = ed25519_sign if self.algorithm == "ed25519" else ecdsa_sign
        return encode(sign(self._key(secret), message, self.secret_setting), self.encoding)


@cache
def _scope(template: str, id_header: str, timestamp_path: str) -> SignedScope:
    """Return what a template covers; cached, since each delivery asks several times."""
    return SignedScope(
        raw_body=True,
        timestamp="{timestamp}" in template or bool(timestamp_path),
        url="{url}" in template,
        fields=(f"header:{id_header.lower()}",) if id_header and "{id}" in template else (),
    )


@cache
def _pieces(template: str) -> list[str]:
    """Cut a template at its parts."""
    return re.split(r"(\{\w+\})", template)


def read_pairs(text: str, pairs: Pairs, header: str) -> tuple[str, list[str]]:
    """Split ``t=1,v1=ab,v1=cd`` into the timestamp and the signatures; ignore other names.

    Raises:
        Refusal: no timestamp or two different ones, no signature, or more than ``MAX_SIGNATURES``.
    """
    found: dict[str, list[str]] = {}
    for part in text.split(pairs.separator):
        name, _, value = part.strip().partition("=")
        found.setdefault(name, []).append(value)
    timestamps, signatures = found.get(pairs.timestamp, []), found.get(pairs.signature, [])
    if len(set(timestamps)) != 1:
        raise Refusal(Reason.MALFORMED_HEADER, f"{header} must hold one {pairs.timestamp}=, not {len(timestamps)}")
    if not signatures:
        raise Refusal(Reason.WRONG_SCHEME, f"{header} holds no {pairs.signature}= signature")
    if len(signatures) > MAX_SIGNATURES:
        raise Refusal(Reason.MALFORMED_HEADER, f"{header} holds {len(signatures)} signatures, over {MAX_SIGNATURES}")
    return timestamps[0], signatures


def first_match(secrets: Iterable[tuple[int, Secret]], matches: Callable[[Secret], bool]) -> int | None:
    """Return the position of the first secret that matches.

    A secret that cannot be read is skipped, so that the others still work.

    Raises:
        Refusal: none matches, and none could be read or something needed to read one is not installed.
    """
    unreadable: Refusal | None = None
    readable = False
    for index, secret in secrets:
        try:
            if matches(secret):
                return index
            readable = True
        except Refusal as refusal:
            unreadable = refusal
    if unreadable is not None and (not readable or unreadable.rejected.reason is Reason.UNAVAILABLE):
        raise unreadable
    return None


def matching_secret(
    secrets: Iterable[tuple[int, Secret]], signatures: Sequence[str], sign: Callable[[Secret], str]
) -> int | None:
    """Return the position of the secret whose signature is among those given, compared in constant time.

    Raises:
        Refusal: see ``first_match``.
    """
    given = [signature.encode("utf-8", "surrogatepass") for signature in signatures]

    def matches(secret: Secret) -> bool:
        expected = sign(secret).encode("ascii")
        return any(hmac.compare_digest(expected, signature) for signature in given)

    return first_match(secrets, matches)


def blame_url(seen: str, matches: Callable[[str], int | None]) -> None:
    """Check whether a proxy rewrote the URL, so that the secret is not blamed.

    Raises:
        Refusal: the signature fits another spelling of the URL.
    """
    for url in rewritten(seen):
        if matches(url) is not None:
            signed, here = shown_url(url), shown_url(seen)
            raise Refusal(Reason.URL_MISMATCH, f"the provider signed {signed}, and here the URL is {here}")


def no_match(header: str, secrets: Sequence[object], setting: str) -> Refusal:
    """Return the refusal of a signature that no secret made."""
    whose = "the secret" if len(secrets) == 1 else f"any of the {len(secrets)} secrets"
    detail = f"no signature in {header} is that of {whose} in {setting}"
    return Refusal(Reason.BAD_SIGNATURE, detail)


def key_of(secret: Secret, encoding: KeyEncoding, setting: str) -> bytes:
    """Return the bytes of a secret.

    Raises:
        Refusal: it does not have this encoding, or is empty.
    """
    text = secret.text.strip()
    try:
        if encoding == "utf8":
            key = text.encode()
        elif encoding == "hex":
            key = bytes.fromhex(text)
        else:
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not key:
        raise Refusal(Reason.MALFORMED_SECRET, f"a secret in {setting} is not {encoding}")
    return key


def encode(raw: bytes, encoding: Encoding) -> str:
    """Write a signature as text."""
    return raw.hex() if encoding == "hex" else base64.b64encode(raw).decode("ascii")


def decode(text: str, encoding: Encoding) -> bytes | None:
    """Read a signature; None if it is not in that encoding."""
    if encoding == "base64":
        return from_base64(text)
    return bytes.fromhex(text) if re.fullmatch(r"([0-9a-fA-F]{2})+", text) else None


def iso_seconds(text: str, where: str) -> float:
    """Read an ISO 8601 timestamp with its offset as Unix seconds.

    Raises:
        Refusal: it is not ISO 8601, or has no offset.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise Refusal(Reason.MALFORMED_HEADER, f"the timestamp in {where} is not ISO 8601 with an offset")
