"""The one interface of all providers, and the parts they share.

The HTTP layer does, in this order: ``preflight`` (of every request, whatever its method), 405 for anything but POST,
``verify``, ``handshake``, ``describe``, stores what that returned, commits, and answers with ``respond`` or its own
default. None of these methods does IO, reads a clock or raises on what a stranger sent. A provider is a frozen
dataclass, so an instance with other settings is
``Stripe(origen="stripe_connect", secret_setting="STRIPE_CONNECT_WEBHOOK_SECRET")``.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, TypeAlias

from cauce.webhooks.limits import MAX_ID, MAX_SIGNATURE_HEADER, MAX_STORED_HEADER, MAX_TIPO
from cauce.webhooks.payload import JsonValue, Payload, at, read_json
from cauce.webhooks.secrets import written
from cauce.webhooks.verdict import Reason, Refusal, Rejected, SignedScope, Verdict, Verified

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cauce.webhooks.request import WebhookRequest
    from cauce.webhooks.secrets import Secret

DEFAULT_TOLERANCE: Final = 300.0
"""Seconds a signed timestamp may differ from now, to either side (Stripe, Standard Webhooks and Slack use the same)."""

DAY: Final = 86_400.0
TIPO_DESCONOCIDO: Final = "desconocido"
"""``tipo`` of a verified webhook whose type could not be read from what was signed."""

Unsigned: TypeAlias = Literal["tipo", "id_externo"]


class Outcome(StrEnum):
    """What became of a request; ``Provider.respond`` turns it into the answer its provider expects."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer in a provider's own manner."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A delivery to be signed.

    ``id_externo`` and ``tipo`` are used by providers that send them outside the body, ``url`` by those that sign it.
    """

    body: bytes
    url: str = "https://example.com/api/webhooks"
    id_externo: str = ""
    tipo: str = ""
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class NuevoWebhook:
    """One verified event, ready to be stored; the fields are the columns.

    Either ``payload`` is JSON text that ``jsonb`` accepts, or it is None, ``cuerpo`` holds the raw bytes and ``error``
    says why. ``sin_firmar`` names the fields that were taken from a part of the request that is not signed.
    """

    origen: str
    tipo: str
    id_externo: str
    payload: str | None
    cuerpo: bytes | None = field(default=None, repr=False)
    error: str | None = None
    cabeceras: Mapping[str, str] = field(default_factory=dict[str, str])
    sin_firmar: tuple[Unsigned, ...] = ()


WHOLE_BODY: Final = "body:"
"""The place of what is computed from the body as it came."""


def sha256_of(content: bytes) -> str:
    """Write the hash that stands for an id."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Found(NamedTuple):
    """A text taken from a request, and the place it stood at."""

    text: str
    place: str


@dataclass(frozen=True, kw_only=True)
class Provider(ABC):
    """A sender of webhooks: how it signs, what it sends, what it wants to hear.

    ``id_from`` and ``type_from`` are places, tried in order: ``body:data.id``, ``header:x-github-event``, ``query:id``.
    A place that the signature does not cover is passed over, unless ``accept_unsigned`` names the field; then the event
    says so in ``sin_firmar``. Without any place left the id is a hash of the body.
    """

    origen: str
    """The last part of ``/api/webhooks/{origen}``, and the column."""
    secret_setting: str
    """Name of the setting that holds the secret, or several, as ``Secret.several`` reads them."""
    title: str = ""
    """The name people know the provider by (``Mercado Pago``); ``origen`` where it is empty."""
    id_from: tuple[str, ...] = ()
    type_from: tuple[str, ...] = ()
    accept_unsigned: frozenset[Unsigned] = frozenset()
    keep_headers: tuple[str, ...] = ()
    """Headers stored beside the event. An allow-list: providers have leaked secrets in headers (GitHub, 2025)."""
    volatile_fields: tuple[str, ...] = ()
    """Fields of the payload's top that may differ between deliveries of one event; any other difference is an alarm."""
    tolerance: float = DEFAULT_TOLERANCE
    """Seconds a signed timestamp may be away from now, to either side; not used by schemes without one."""
    retry_horizon: float = 3 * DAY
    """Seconds after which the provider no longer sends the same event by itself; duplicates come until then."""
    answer_within: float = 10.0
    """Seconds the provider waits for the answer."""
    documentation: ClassVar[str] = ""
    """The provider's own page about its signatures."""

    def __post_init__(self) -> None:
        """Refuse a configuration that would verify nothing.

        Raises:
            ValueError: the tolerance is not a positive number of seconds.
        """
        if not self.tolerance > 0:
            raise ValueError(f"tolerance of {self.origen} is {self.tolerance}; give a positive number of seconds")

    def __str__(self) -> str:
        """Name the provider for people, with its ``origen`` beside: ``Mercado Pago (mercadopago)``."""
        return f"{self.title} ({self.origen})" if self.title else self.origen

    @property
    @abstractmethod
    def signed(self) -> SignedScope:
        """What this provider's signature covers."""

    @property
    def evidence(self) -> tuple[str, ...]:
        """Headers, in lower case, without which a request could not be verified and described again; never a token."""
        names = ("content-type", *self.keep_headers, *self._places("header"))
        return tuple(dict.fromkeys(name.lower() for name in names))

    @property
    def reads_query(self) -> bool:
        """Whether anything in the URL's query counts."""
        return (
            self.signed.url
            or any(place.startswith("query:") for place in self.signed.fields)
            or bool(self._places("query"))
        )

    @abstractmethod
    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Verify with the secrets that count now, each beside its position; raise ``Refusal`` to reject."""

    @abstractmethod
    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Sign a draft; raise ``Refusal`` or ``ValueError`` if that cannot be."""

    def sign(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Make the delivery this provider would send at ``now`` (Unix seconds), for tests and simulators.

        Raises:
            ValueError: this scheme cannot sign with that secret, or that body.
        """
        if not secret.text.strip():
            raise ValueError(f"the secret to sign for {self.origen} is empty")
        try:
            return self.make(draft, secret, now)
        except Refusal as refusal:
            raise ValueError(str(refusal.rejected)) from refusal

    def verify(self, request: WebhookRequest, secrets: Sequence[Secret], now: float) -> Verdict:
        """Say whether one of the secrets signed this request. Never raises, whatever the request holds.

        An empty secret verifies nothing, and no secret verifies outside its window. ``now`` is in Unix seconds.
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
        """Say so if what was refused is signed with a secret that no longer counts, or not yet."""
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
        """Answer a request that is no delivery, before verification; None: there is nothing special about it.

        Some providers send HEAD when an endpoint is registered, or unsigned twins of what they also sign.
        """
        return None

    def handshake(self, request: WebhookRequest) -> Answer | None:  # noqa: ARG002 - for providers that have one
        """Answer a verified request that is a question and no event, and is not stored; None: it is an event."""
        return None

    def describe(self, request: WebhookRequest, verified: Verified) -> tuple[NuevoWebhook, ...]:  # noqa: ARG002 - for those that need it
        """Say what to store for a verified request: one event, or several if the provider sends batches."""
        return tuple(self.event(request, payload) for payload in self.payloads(request))

    def respond(self, outcome: Outcome) -> Answer | None:  # noqa: ARG002 - most providers take the default
        """Answer in the provider's manner; None: it accepts the HTTP layer's own 200, 400 and 503."""
        return None

    def payloads(self, request: WebhookRequest) -> Iterable[Payload]:
        """Read the body; providers that send batches or forms have their own."""
        return (read_json(request.body),)

    def event(self, request: WebhookRequest, payload: Payload) -> NuevoWebhook:
        """Describe one event of the request."""
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
        """Return the names of the places of a kind that ids and types are taken from."""
        places = (place.partition(":") for place in (*self.id_from, *self.type_from))
        return [name for found, _, name in places if found == kind]

    def tipo_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Find the event's type and the place it was taken from."""
        return self.find(self._trusted_tipo, request, value, MAX_TIPO)

    def id_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Find the provider's id of the event and the place it was taken from."""
        return self.find(self._trusted_id, request, value, MAX_ID)

    @cached_property
    def _trusted_tipo(self) -> list[str]:
        return self.trusted("tipo", self.type_from)

    @cached_property
    def _trusted_id(self) -> list[str]:
        return self.trusted("id_externo", self.id_from)

    def trusted(self, name: Unsigned, places: Iterable[str]) -> list[str]:
        """Return the places a field may be taken from: those that are signed, then the others if they are accepted."""
        signed = [place for place in places if self.signed.covers(place)]
        return signed + [place for place in places if name in self.accept_unsigned and place not in signed]

    @staticmethod
    def find(places: Iterable[str], request: WebhookRequest, value: JsonValue, longest: int) -> Found | None:
        """Return the first text that a column can hold, among the places given."""
        for place in places:
            text = text_at(place, request, value)
            if text is not None and is_storable(text, longest):
                return Found(text, place)
        return None

    def hash_of(self, request: WebhookRequest, payload: Payload) -> Found:  # noqa: ARG002 - some use more than the body
        """Identify an event without an id by its content, which is as trustworthy as the body is."""
        return Found(sha256_of(payload.raw), WHOLE_BODY)

    def kept(self, request: WebhookRequest) -> dict[str, str]:
        """Return the headers of the allow-list, cut to ``MAX_STORED_HEADER`` characters, several joined by commas."""
        kept: dict[str, str] = {}
        for name in ("content-type", *self.keep_headers):
            value = ", ".join(request.headers.all(name)).replace("\0", "")[:MAX_STORED_HEADER]
            if value:
                kept[name.lower()] = value
        return kept


def header_of(request: WebhookRequest, name: str) -> str:
    """Return the one value of a header that verification needs.

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
    """Return the text at a place; numbers are written out, anything else is no text."""
    kind, _, name = place.partition(":")
    if kind == "header":
        return request.headers.get(name)
    if kind == "query":
        return request.parameter(name)
    found = at(value, name)
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def is_storable(text: str, longest: int) -> bool:
    """Say whether a text column can hold it: not empty, not too long, no NUL, no half of a surrogate pair."""
    return 0 < len(text) <= longest and text.isprintable()
