"""A verifier's verdict: data that can be logged, counted and stored.

A stored request cannot be verified again later (its timestamp will be stale), so the verdict is stored with the event.
It names the secret by position, never by text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from cauce.webhooks.payload import JsonValue


class Reason(StrEnum):
    """Why a request was refused. The value is the label for logs and metrics."""

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
        """What the operator should do."""
        return _ADVICE[self]

    @property
    def is_ours(self) -> bool:
        """Whether this installation is at fault, so the answer is 503 and the provider should try again."""
        return self in (Reason.EMPTY_SECRET, Reason.MALFORMED_SECRET, Reason.UNAVAILABLE)


_ADVICE = {
    Reason.MISSING_HEADER: "If the provider sent this, check that signing is switched on there and that no proxy"
    " drops the header.",
    Reason.REPEATED_HEADER: "Providers send it once; a proxy that adds its own copy must be mended.",
    Reason.MALFORMED_HEADER: "If the provider sent this, compare the header with the provider's page.",
    Reason.HEADER_TOO_LONG: "No provider sends one that long; nothing to do.",
    Reason.MALFORMED_BODY: "The signature is expected inside the body, and the body could not be read.",
    Reason.WRONG_SCHEME: "The request is signed by a scheme that is not accepted here; switch the provider to the one"
    " named above.",
    Reason.BAD_SIGNATURE: "Check that the configured secret is the one of this very endpoint, and that nothing on the"
    " way parses and rewrites the body.",
    Reason.URL_MISMATCH: "Set CAUCE_PUBLIC_URL to what the address registered with the provider has before"
    " /api/webhooks/.",
    Reason.CONTRADICTION: "The signature is good, but an unsigned part of the request does not fit what was signed.",
    Reason.STALE: "Check the clock of this host; if the request was held in a queue on its way, raise the tolerance. "
    "Otherwise it is a replay.",
    Reason.FUTURE: "Check the clock of this host.",
    Reason.EMPTY_SECRET: "Set the secret, or mend its window; until then everything is refused.",
    Reason.MALFORMED_SECRET: "Copy the secret again from the provider's page.",
    Reason.EXPIRED_SECRET: "End its rotation at the provider, which still signs with it, or set a later until;"
    " if it was leaked, somebody else used it.",
    Reason.EARLY_SECRET: "The provider signs with it already: set an earlier since, or leave it out.",
    Reason.UNAVAILABLE: "Something needed for verification is not here; see above.",
}


@dataclass(frozen=True, slots=True)
class SignedScope:
    """What a signature covers. Anyone who has one valid delivery can change the rest."""

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
    """One of the secrets signed the request, within the tolerance."""

    scheme: str
    """The signature scheme."""
    covered: SignedScope
    """What the signature covers."""
    secret: int | None = None
    """The secret's position in the configured list."""
    timestamp: float | None = None
    """The signed time in Unix seconds, if the scheme has one."""
    skew: float | None = None
    """How many seconds ago the signed time was; negative: in the future."""

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
    """What was found and where; it never quotes a secret or a signature."""

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
