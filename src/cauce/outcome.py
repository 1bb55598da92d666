"""How a handler ends an attempt, and what it can know about the attempt.

A handler that returns is done. One that raises has failed, and is retried according to its policy. Two exceptions say
more.
"""

from __future__ import annotations

from dataclasses import dataclass


class Discard(Exception):  # noqa: N818 - a verdict, raised
    """Raised by a handler whose delivery can never succeed: it ends in ``error`` with its message."""


class RetryAfter(Exception):  # noqa: N818 - a verdict, raised
    """Raised by a handler to choose the delay before the next attempt.

    The attempt counts: after the policy's last attempt the delivery ends in ``error``.

    Args:
        seconds: the delay before the next attempt, in seconds; a negative number means 0.
        reason: the error's message.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        self.seconds = max(0.0, float(seconds))
        super().__init__(reason or f"asked to be tried again in {self.seconds:g} s")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The current attempt; a handler receives it if it has a second parameter of this type."""

    number: int
    """1 the first time."""
    last: bool
    """No attempt follows if this one fails."""
    subscriber: str
    """The name of the subscriber; ``manejador`` is the event's own handler."""
    group: str
    """The consumer group."""
    idempotency_key: str
    """The same for every attempt of this delivery, and for no other: pass it to systems that deduplicate by key."""
