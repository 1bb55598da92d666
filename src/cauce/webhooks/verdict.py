"""A verifier's verdict: data to log, count and store.

A stored request cannot be verified again later, because its timestamp gets stale. So the verdict is stored with the
event. It gives the position of the secret, never its text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from cauce.webhooks.payload import JsonValue


class Reason(StrEnum):
    """Why a request was refused. The value is a label for logs and metrics."""

    MISSING_HEADER = "missing_header"
    REPEATED_HEADER = "repeated_header"
    MALFORMED_HEADER = "malformed_header"
    HEADER_TOO_LONG = "header_too_long"
    MALFORMED_BODY = "malformed_body"
    WRONG_SCHEME = "wrong_scheme"
    BAD_SIGNATURE = "bad_signature"
    URL_MISMATCH = "url_mismatch"
    CONTRADICTION = "contradiction"
    STALE = "stale"
    FUTURE = "future"
    EMPTY_SECRET = "empty_secret"  # noqa: S105 - the name of a reason
    MALFORMED_SECRET = "malformed_secret"  # noqa: S105 - the name of a reason
    EXPIRED_SECRET = "expired_secret"  # noqa: S105 - the name of a reason
    EARLY_SECRET = "early_secret"  # noqa: S105 - the name of a reason
    UNAVAILABLE = "unavailable"

    @property
    def advice(self) -> str:
        """What an operator should do."""
        return _ADVICE[self]

    @property
    def is_ours(self) -> bool:
        """Whether the fault is here and not at the sender: the answer is 503, so that the provider tries again."""
        return self in (Reason.EMPTY_SECRET, Reason.MALFORMED_SECRET, Reason.UNAVAILABLE)


_ADVICE = {
    Reason.MISSING_HEADER: "If the provider sent this, check that signing is switched on there and that no proxy"
    " drops the header.",
    Reason.REPEATED_HEADER: "Providers send it once; correct the proxy that adds a copy.",
    Reason.MALFORMED_HEADER: "If the provider sent this, compare the header with the provider's page.",
    Reason.HEADER_TOO_LONG: "No provider sends one that long; nothing to do.",
    Reason.MALFORMED_BODY: "The signature is expected in the body, but the body could not be parsed.",
    Reason.WRONG_SCHEME: "The scheme of the signature is not accepted here; set the provider to the one named above.",
    Reason.BAD_SIGNATURE: "Check that the configured secret belongs to this endpoint, and that no proxy or middleware"
    " rewrites the body.",
    Reason.URL_MISMATCH: "Set CAUCE_PUBLIC_URL to the part before /api/webhooks/ of the address registered with the"
    " provider.",
    Reason.CONTRADICTION: "The signature is good, but an unsigned part of the request contradicts the signed part.",
    Reason.STALE: "Check the clock of this host. If the request waited in a queue on its way, raise the tolerance. "
    "Otherwise it is a replay.",
    Reason.FUTURE: "Check the clock of this host.",
    Reason.EMPTY_SECRET: "Set the secret, or correct its since= and until=; until then everything is refused.",
    Reason.MALFORMED_SECRET: "Copy the secret again from the provider's page.",
    Reason.EXPIRED_SECRET: "The provider still signs with it: end the rotation there, or set a later until=."
    " If the secret was leaked, somebody else used it.",
    Reason.EARLY_SECRET: "The provider signs with it already: set an earlier since=, or omit it.",
    Reason.UNAVAILABLE: "Something needed for verification is not available; see above.",
}


@dataclass(frozen=True, slots=True)
class SignedScope:
    """What a signature covers. Whoever has one valid delivery can change the rest."""

    raw_body: bool = False
    """The whole body."""
    timestamp: bool = False
    """The time of signing."""
    url: bool = False
    """The URL, with its query."""
    fields: tuple[str, ...] = ()
    """Single parts: ``header:webhook-id``, ``query:data.id``, ``body:pspReference``."""

    def covers(self, place: str) -> bool:
        """Return whether a place is covered.

        Args:
            place: ``body:type``, ``header:x-github-event``, ``query:id``.
        """
        kind = place.partition(":")[0]
        return place in self.fields or (kind == "body" and self.raw_body) or (kind == "query" and self.url)

    def names(self) -> list[str]:
        """List what is covered, for logs and storage."""
        whole = [name for name in ("raw_body", "timestamp", "url") if getattr(self, name)]
        return [*whole, *self.fields]


@dataclass(frozen=True, slots=True)
class Verified:
    """The signature is good for one of the secrets, and its timestamp within the tolerance."""

    scheme: str
    """The signature scheme."""
    covered: SignedScope
    """What the signature covers."""
    secret: int | None = None
    """The secret's position in the configured list."""
    timestamp: float | None = None
    """The signed time in Unix seconds, if the scheme has one."""
    skew: float | None = None
    """The age of the signed time in seconds; negative: it is in the future."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the verdict to store with the event; its keys are Spanish, as all JSON keys are."""
        return {
            "esquema": self.scheme,
            "cubre": list(self.covered.names()),
            "secreto": self.secret,
            "firmado_en": self.timestamp,
            "desfase": self.skew,
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request is refused."""

    reason: Reason
    """Why."""
    detail: str
    """What is wrong and where; never quotes a secret or a signature."""

    def __str__(self) -> str:
        """Return what happened and what to do, in one line."""
        return f"{self.reason}: {self.detail}. {self.reason.advice}"


Verdict: TypeAlias = Verified | Rejected


class Refusal(Exception):  # noqa: N818 - control flow inside a verifier, never seen outside
    """Carries a ``Rejected`` to ``Provider.verify``, which returns it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        """Refuse for ``reason``."""
        super().__init__(detail)
        self.rejected = Rejected(reason, detail)
