"""What a handler may say of an attempt, and what it is told of it.

Returning means done; raising means failed and due again by the policy. Two exceptions say more.
"""

from __future__ import annotations

from dataclasses import dataclass


class Discard(Exception):  # noqa: N818 - a verdict, raised
    """Raised by a handler: this delivery will never succeed; no more attempts, it ends in ``error`` with the reason."""


class RetryAfter(Exception):  # noqa: N818 - likewise
    """Raised by a handler: this attempt failed, and the next one makes sense only after so many seconds.

    The attempt counts: when the policy's attempts are spent, the delivery ends in ``error`` all the same.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        self.seconds = max(0.0, float(seconds))
        super().__init__(reason or f"asked to be tried again in {self.seconds:g} s")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt a handler is in; a handler that wants it asks for it as its second parameter."""

    number: int
    """1 the first time."""
    last: bool
    """No other attempt follows if this one fails."""
    subscriber: str
    group: str
    idempotency_key: str
    """The same at every attempt of this delivery, and at no other: hand it to systems that deduplicate by key."""
