"""Signing secrets, the period in which each is accepted, and how a setting contains several.

During a rotation a provider signs with two secrets. A leaked secret must expire at a set time, not at the next
deployment. Errors give the position of a secret and never quote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

# Supabase shows its secrets as v1,whsec_... Split at the comma, "v1" would be a secret too: base64 of one byte, which
# anybody can guess.
_SHOWN_SCHEME: Final = re.compile(r"(^|,)\s*v1a?\s*,\s*(?=whsec_|whpk_)")
_UNIX_SECONDS: Final = re.compile(r"[0-9]{1,11}")
_EXAMPLE: Final = "2026-12-01T00:00:00Z"


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A signing secret, as the provider's page shows it. Its ``repr`` hides the text.

    The period is checked against the clock of the host that verifies.

    Raises:
        ValueError: a time has no offset from UTC, or ``since`` is not before ``until``.
    """

    text: str
    """The secret."""
    since: datetime | None = None
    """When the secret begins to be accepted; None: it always was."""
    until: datetime | None = None
    """When the secret expires; None: never."""

    def __post_init__(self) -> None:
        """Check the period."""
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None and moment.tzinfo is None:
                raise ValueError(f"{name} has no offset from UTC; for example {_EXAMPLE}")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("since is not before until, so the secret would never be accepted")

    @classmethod
    def several(cls, setting: str | None) -> tuple[Secret, ...]:
        """Read a setting: one secret, or several separated by commas, each with or without a period.

        ``whsec_new;since=2026-12-01T00:00:00Z, whsec_old;until=2026-12-02T00:00:00Z``. A time is ISO 8601 with an
        offset from UTC, or Unix seconds. No provider's secrets contain a comma or a semicolon; pass a self-made one
        that does as ``Secret(text)``.

        Args:
            setting: the text of the setting; None or "" gives no secret.

        Raises:
            ValueError: the text after a semicolon is not ``since=`` or ``until=`` with a time.
        """
        if not setting:
            return ()
        texts = [part.strip() for part in _SHOWN_SCHEME.sub(r"\1", setting).split(",")]
        parts = [part for part in texts if part]
        if ";" not in setting:
            return tuple(cls(part) for part in parts)
        return tuple(cls._read(part, f"secret {number} of {len(parts)}") for number, part in enumerate(parts, 1))

    @classmethod
    def _read(cls, part: str, which: str) -> Secret:
        """Read one secret with its period."""
        text, *bounds = (piece.strip() for piece in part.split(";"))
        window: dict[str, datetime] = {}
        for bound in bounds:
            name, _, moment = bound.partition("=")
            name = name.rstrip()
            if name not in ("since", "until") or name in window:
                raise ValueError(
                    f"after a ; in {which} there may be one since= and one until=, for example ;until={_EXAMPLE}"
                    " (pass a secret that contains a ; in code, as Secret)"
                )
            window[name] = _moment(moment.strip(), f"{name} of {which}")
        if not text:
            raise ValueError(f"{which} has since= or until=, but no text")
        try:
            return cls(text, **window)
        except ValueError as error:
            raise ValueError(f"{which}: {error}") from None

    def accepted_at(self, now: float) -> bool:
        """Whether the secret is accepted at a time: from ``since`` on, and before ``until``.

        Args:
            now: the time, in Unix seconds.
        """
        return (self.since is None or self.since.timestamp() <= now) and not self.expired_at(now)

    def expired_at(self, now: float) -> bool:
        """Whether the secret has expired at a time.

        Args:
            now: the time, in Unix seconds.
        """
        return self.until is not None and now >= self.until.timestamp()

    def __repr__(self) -> str:
        """Hide the text."""
        return "Secret(...)"


def written(moment: datetime) -> str:
    """Format a time in UTC, as ISO 8601."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _moment(text: str, where: str) -> datetime:
    """Parse a time.

    Raises:
        ValueError: it is not a time, or has no offset from UTC.
    """
    try:
        moment = datetime.fromtimestamp(int(text), UTC) if _UNIX_SECONDS.fullmatch(text) else _iso(text)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise ValueError(f"{where} is not a time: write ISO 8601 with its offset from UTC ({_EXAMPLE}) or Unix seconds")
    return moment


def _iso(text: str) -> datetime | None:
    moment = datetime.fromisoformat(text)
    return None if moment.tzinfo is None else moment.astimezone(UTC)
