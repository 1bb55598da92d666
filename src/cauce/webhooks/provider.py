"""The interface of all providers, and the parts they share.

For each request, the HTTP layer calls ``preflight``, answers 405 unless the method is POST, calls ``verify``,
``handshake`` and ``describe``, commits the events, and answers with ``respond`` or its default. These methods do no IO,
read no clock and never raise on a stranger's input. A provider is a frozen dataclass, so other settings are
``Stripe(origen="stripe_connect", secret_setting="STRIPE_CONNECT_WEBHOOK_SECRET")``.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import ClassVar, Final, Literal, NamedTuple, TypeAlias

from cauce.webhooks.limits import MAX_ID, MAX_SIGNATURE_HEADER, MAX_STORED_HEADER, MAX_TIPO
from cauce.webhooks.payload import JsonValue, Payload, at, read_json
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.secrets import Secret, written
from cauce.webhooks.verdict import Reason, Refusal, Rejected, SignedScope, Verdict, Verified

DEFAULT_TOLERANCE: Final = 300.0
"""Seconds a signed timestamp may differ from now, to either side (Stripe, Standard Webhooks and Slack use the same)."""

DAY: Final = 86_400.0
TIPO_DESCONOCIDO: Final = "desconocido"
"""``tipo`` of a verified webhook whose type could not be read from what was signed."""

Unsigned: TypeAlias = Literal["tipo", "id_externo"]


class Outcome(StrEnum):
    """The outcome of a request, which ``Provider.respond`` turns into an answer."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    """The status code."""
    body: bytes = b""
    """The body."""
    content_type: str | None = None
    """The value of ``Content-Type``; None: no such header."""
    headers: tuple[tuple[str, str], ...] = ()
    """Other headers: (name, value) pairs."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A delivery to be signed."""

    body: bytes
    """The body."""
    url: str = "https://example.com/api/webhooks"
    """The address; some providers sign it."""
    id_externo: str = ""
    """The event's id, for providers that send it outside the body."""
    tipo: str = ""
    """The event's type, for providers that send it outside the body."""
    content_type: str = "application/json"
    """The value of ``Content-Type``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NuevoWebhook:
    """One verified event, ready to be stored; the fields are the columns."""

    origen: str
    """The provider's ``origen``."""
    tipo: str
    """The event's type; ``desconocido`` if none was found."""
    id_externo: str
    """The provider's id of the event, or a hash."""
    payload: str | None
    """JSON text that ``jsonb`` accepts; None: see ``error``."""
    cuerpo: bytes | None = field(default=None, repr=False)
    """The raw bytes, if there is no ``payload``."""
    error: str | None = None
    """Why there is no ``payload``."""
    cabeceras: Mapping[str, str] = field(default_factory=dict[str, str])
    """The stored headers, by lower-case name."""
    sin_firmar: tuple[Unsigned, ...] = ()
    """The fields that the signature does not cover."""


WHOLE_BODY: Final = "body:"
"""The place of a value computed from the whole body."""


def sha256_of(content: bytes) -> str:
    """Return a hash of the content, to be used as an id."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Found(NamedTuple):
    """A text from a request, and its place in it."""

    text: str
    place: str


@dataclass(frozen=True, kw_only=True)
class Provider(ABC):
    """A sender of webhooks: how it signs, what it sends, which answers it expects."""

    origen: str
    """The provider's name in ``/api/webhooks/{origen}`` and in the column ``origen``."""
    secret_setting: str
    """Name of the setting that holds the secrets, as ``Secret.several`` reads them."""
    title: str = ""
    """The provider's display name (``Mercado Pago``); empty: ``origen``."""
    id_from: tuple[str, ...] = ()
    """Places of the event's id, tried in order: ``body:data.id``, ``header:x-id``, ``query:id``. By default a hash."""
    type_from: tuple[str, ...] = ()
    """Places of the event's type, tried in order."""
    accept_unsigned: frozenset[Unsigned] = frozenset()
    """Fields that may come from places that the signature does not cover; the event lists them in ``sin_firmar``."""
    keep_headers: tuple[str, ...] = ()
    """Headers stored beside the event. An allow-list: providers have leaked secrets in headers (GitHub, 2025)."""
    volatile_fields: tuple[str, ...] = ()
    """Top-level fields of the payload that may differ between deliveries of one event; other differences are logged."""
    tolerance: float = DEFAULT_TOLERANCE
    """Seconds a signed timestamp may differ from now, in either direction."""
    retry_horizon: float = 3 * DAY
    """Seconds during which the provider retries an event."""
    answer_within: float = 10.0
    """Seconds the provider waits for the answer."""
    documentation: ClassVar[str] = ""
    """The provider's page about its signatures."""

    def __post_init__(self) -> None:
        """Check the tolerance.

        Raises:
            ValueError: the tolerance is not a positive number of seconds.
        """
        if not self.tolerance > 0:
            raise ValueError(f"tolerance of {self.origen} is {self.tolerance}; give a positive number of seconds")

    def __str__(self) -> str:
        """Return the display name and ``origen``: ``Mercado Pago (mercadopago)``."""
        return f"{self.title} ({self.origen})" if self.title else self.origen

    @property
    @abstractmethod
    def signed(self) -> SignedScope:
        """What this provider's signature covers."""

    @property
    def evidence(self) -> tuple[str, ...]:
        """Headers, in lower case, that verifying and describing a request again needs; never a token."""
        names = ("content-type", *self.keep_headers, *self._places("header"))
        return tuple(dict.fromkeys(name.lower() for name in names))

    @property
    def reads_query(self) -> bool:
        """Whether the URL's query is signed, or holds an id or a type."""
        return (
            self.signed.url
            or any(place.startswith("query:") for place in self.signed.fields)
            or bool(self._places("query"))
        )

    @abstractmethod
    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Verify a request; ``verify`` calls this.

        Args:
            request: the request.
            secrets: the secrets accepted now, each with its position.
            now: Unix seconds.

        Raises:
            Refusal: the request is rejected.
        """

    @abstractmethod
    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Sign a draft; ``sign`` calls this.

        Args:
            draft: the delivery.
            secret: the secret to sign with.
            now: Unix seconds.

        Raises:
            Refusal: the secret cannot be used.
            ValueError: the body cannot be signed.
        """

    def sign(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Make a signed delivery, for tests and simulators.

        Args:
            draft: the delivery.
            secret: the secret to sign with.
            now: when it is signed, in Unix seconds.

        Raises:
            ValueError: the scheme cannot sign with this secret, or this body.
        """
        if not secret.text.strip():
            raise ValueError(f"the secret to sign for {self.origen} is empty")
        try:
            return self.make(draft, secret, now)
        except Refusal as refusal:
            raise ValueError(str(refusal.rejected)) from refusal

    def verify(self, request: WebhookRequest, secrets: Sequence[Secret], now: float) -> Verdict:
        """Check whether one of the secrets signed the request; never raises.

        Args:
            request: the request.
            secrets: the configured secrets; an empty one, or one outside its window, verifies nothing.
            now: Unix seconds.
        """
        held = [(index, secret) for index, secret in enumerate(secrets) if secret.text.strip()]
        usable = [(index, secret) for index, secret in held if secret.accepted_at(now)]
        try:
            if usable:
                return self.check(request, usable, now)
            why = "no secret that is accepted now" if held else "no secret"
            rejected = Rejected(Reason.EMPTY_SECRET, f"{self.secret_setting} has {why}")
        except Refusal as refusal:
            rejected = refusal.rejected
        return (self._out_of_window(request, secrets, now) if len(usable) < len(held) else None) or rejected

    def _out_of_window(self, request: WebhookRequest, secrets: Sequence[Secret], now: float) -> Rejected | None:
        """Return a better reason if the request is signed with an expired or early secret."""
        for index, secret in enumerate(secrets):
            if not secret.text.strip() or secret.accepted_at(now):
                continue
            try:
                self.check(request, [(index, secret)], now)
            except Refusal:
                continue
            which = "the secret" if len(secrets) == 1 else f"secret {index + 1} of {len(secrets)}"
            signed = f"it is signed with {which} in {self.secret_setting}"
            if secret.until is not None and secret.expired_at(now):
                return Rejected(Reason.EXPIRED_SECRET, f"{signed}, which expired at {written(secret.until)}")
            if secret.since is not None:
                return Rejected(Reason.EARLY_SECRET, f"{signed}, which is accepted from {written(secret.since)} on")
        return None

    def preflight(self, request: WebhookRequest) -> Answer | None:  # noqa: ARG002 - for providers that need one
        """Answer a request that is no delivery, before verification; None: verify it.

        Some providers send HEAD when an endpoint is registered, or an unsigned copy of each delivery.

        Args:
            request: the request, not yet verified.
        """
        return None

    def handshake(self, request: WebhookRequest) -> Answer | None:  # noqa: ARG002 - for providers that have one
        """Answer a verified request that is a question, and is not stored; None: it is an event.

        Args:
            request: the verified request.
        """
        return None

    def describe(self, request: WebhookRequest, verified: Verified) -> tuple[NuevoWebhook, ...]:  # noqa: ARG002 - for those that need it
        """Return the events to store: one, or several if the provider sends batches.

        Args:
            request: the verified request.
            verified: the verdict.
        """
        return tuple(self.event(request, payload) for payload in self.payloads(request))

    def respond(self, outcome: Outcome) -> Answer | None:  # noqa: ARG002 - most providers take the default
        """Return the answer that the provider expects; None: 200, 400 or 503.

        Args:
            outcome: the outcome of the request.
        """
        return None

    def payloads(self, request: WebhookRequest) -> Iterable[Payload]:
        """Read the body; overridden for batches and forms.

        Args:
            request: the verified request.
        """
        return (read_json(request.body),)

    def event(self, request: WebhookRequest, payload: Payload) -> NuevoWebhook:
        """Describe one event of the request.

        Args:
            request: the verified request.
            payload: the event's payload.
        """
        tipo = self.tipo_of(request, payload.value)
        id_externo = self.id_of(request, payload.value) or self.hash_of(request, payload)
        found: tuple[tuple[Unsigned, Found | None], ...] = (("tipo", tipo), ("id_externo", id_externo))
        return NuevoWebhook(
            origen=self.origen,
            tipo=tipo.text if tipo else TIPO_DESCONOCIDO,
            id_externo=id_externo.text,
            payload=payload.text,
            cuerpo=payload.raw if payload.problem else None,
            error=f"{payload.problem}: {payload.detail}" if payload.problem else None,
            cabeceras=self.kept(request),
            sin_firmar=tuple(name for name, it in found if it is not None and not self.signed.covers(it.place)),
        )

    def _places(self, kind: str) -> list[str]:
        """Return the names of the places of one kind in ``id_from`` and ``type_from``."""
        places = (place.partition(":") for place in (*self.id_from, *self.type_from))
        return [name for found, _, name in places if found == kind]

    def tipo_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Find the event's type and its place.

        Args:
            request: the verified request.
            value: the parsed payload.
        """
        return self.find(self._trusted_tipo, request, value, MAX_TIPO)

    def id_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Find the event's id and its place.

        Args:
            request: the verified request.
            value: the parsed payload.
        """
        return self.find(self._trusted_id, request, value, MAX_ID)

    @cached_property
    def _trusted_tipo(self) -> list[str]:
        return self.trusted("tipo", self.type_from)

    @cached_property
    def _trusted_id(self) -> list[str]:
        return self.trusted("id_externo", self.id_from)

    def trusted(self, name: Unsigned, places: Iterable[str]) -> list[str]:
        """Return the places a field may be taken from: the signed ones, then the others if accepted.

        Args:
            name: the field.
            places: its places, in order.
        """
        signed = [place for place in places if self.signed.covers(place)]
        return signed + [place for place in places if name in self.accept_unsigned and place not in signed]

    @staticmethod
    def find(places: Iterable[str], request: WebhookRequest, value: JsonValue, longest: int) -> Found | None:
        """Return the first text that a column can hold.

        Args:
            places: the places to look at, in order.
            request: the request.
            value: the parsed payload.
            longest: the most characters.
        """
        for place in places:
            text = text_at(place, request, value)
            if text is not None and is_storable(text, longest):
                return Found(text, place)
        return None

    def hash_of(self, request: WebhookRequest, payload: Payload) -> Found:  # noqa: ARG002 - some use more than the body
        """Identify an event without an id by a hash of its body.

        Args:
            request: the verified request.
            payload: the event's payload.
        """
        return Found(sha256_of(payload.raw), WHOLE_BODY)

    def kept(self, request: WebhookRequest) -> dict[str, str]:
        """Return the headers to store, repeated ones joined by commas, cut to ``MAX_STORED_HEADER`` characters.

        Args:
            request: the verified request.
        """
        kept: dict[str, str] = {}
        for name in ("content-type", *self.keep_headers):
            value = ", ".join(request.headers.all(name)).replace("\0", "")[:MAX_STORED_HEADER]
            if value:
                kept[name.lower()] = value
        return kept


def header_of(request: WebhookRequest, name: str) -> str:
    """Return the only value of a header that verification needs.

    Raises:
        Refusal: it is missing, came twice, is longer than ``MAX_SIGNATURE_HEADER`` or not printable ASCII.
    """
    values = request.headers.all(name)
    if len(values) > 1:
        raise Refusal(Reason.REPEATED_HEADER, f"{name} came {len(values)} times")
    if not values or not values[0]:
        raise Refusal(Reason.MISSING_HEADER, f"there is no {name} header")
    if len(values[0]) > MAX_SIGNATURE_HEADER:
        raise Refusal(Reason.HEADER_TOO_LONG, f"{name} is longer than {MAX_SIGNATURE_HEADER} characters")
    if not (values[0].isascii() and values[0].isprintable()):
        raise Refusal(Reason.MALFORMED_HEADER, f"{name} holds characters that are not printable ASCII")
    return values[0]


def unix_seconds(text: str, where: str) -> float:
    """Read a timestamp in whole Unix seconds.

    Raises:
        Refusal: it is anything but one to twelve decimal digits.
    """
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise Refusal(Reason.MALFORMED_HEADER, f"the timestamp in {where} is not a number of seconds")
    return float(text)


def skew_of(timestamp: float, now: float, tolerance: float) -> float:
    """Return how many seconds ago a signed timestamp was.

    Raises:
        Refusal: that is more than the tolerance, in either direction.
    """
    skew = now - timestamp
    if skew > tolerance:
        raise Refusal(Reason.STALE, f"it was signed {skew:.0f} s ago and at most {tolerance:.0f} s are allowed")
    if -skew > tolerance:
        raise Refusal(Reason.FUTURE, f"it is signed {-skew:.0f} s ahead and at most {tolerance:.0f} s are allowed")
    return skew


def text_at(place: str, request: WebhookRequest, value: JsonValue) -> str | None:
    """Return the text or the number at a place, as text; None for anything else."""
    kind, _, name = place.partition(":")
    if kind == "header":
        return request.headers.get(name)
    if kind == "query":
        return request.parameter(name)
    found = at(value, name)
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def is_storable(text: str, longest: int) -> bool:
    """Return whether a text column can hold it: not empty, not too long, printable."""
    return 0 < len(text) <= longest and text.isprintable()
