"""The sizes of all phases: the full ones, and tiny ones that only show that the benchmarks work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RETRY_SHARE: Final = 0.2
"""H: claims with retries for each claim of new events: they settle failures, which takes several times as long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the phases."""

    repetitions: int = 3
    """Pairs (ours, floor) of a phase; the phases that take minutes run once, in slices or with many samples."""
    publishes: int = 3_000
    """A: events, one a transaction."""
    business: int = 2_000
    """B: transactions with a business INSERT and an event."""
    events: int = 50_000
    """C, D1, D2, and the drains of the million: events published, then drained."""
    fan: int = 10_000
    """E: events with three recipients."""
    bells: int = 200
    """F: events, one every 50 ms."""
    idle_seconds: float = 2.0
    """F: seconds the worker has to fall asleep before the first."""
    waiting_seconds: float = 1.5
    """handlers: seconds that a drain would take if nothing but the handlers took time."""
    come_to_rest_seconds: float = 25.0
    """idle: seconds after the last event; connections that nobody uses are closed after 10 to 20."""
    rest_seconds: float = 60.0
    """idle: seconds that the worker is watched: every chore is done in them."""
    wal_events: int = 20_000
    """G: events drained for each payload size."""
    crowd_seconds: int = 5
    """P16: seconds that the concurrent publishers run."""
    claims: int = 100_000
    """H: claims under each holder; where retries are measured, ``RETRY_SHARE`` of them."""
    rows: int = 1_000_000
    """The open publisher's uncommitted rows; the events kept; the events waiting."""
    samples: int = 300
    """Claims timed one by one, before and while the publisher is open."""
    failures: int = 40_000
    """Events whose every delivery fails; measured for as many deliveries, retries among them."""
    lost: int = 10_000
    """Events that are given up after their second attempt: how many rows a failed retry leaves dead."""
    deliveries: int = 10_000
    """Inbox: webhooks sent to each side."""
    floods: int = 10_000
    """Inbox: bodies past the cap."""

    @property
    def retry_claims(self) -> int:
        """H: claims of retries under each holder, which also settle failures."""
        return round(self.claims * RETRY_SHARE)


QUICK: Final = Plan(
    repetitions=1,
    publishes=50,
    business=50,
    events=1_000,
    fan=300,
    bells=5,
    idle_seconds=0.3,
    waiting_seconds=0.1,
    come_to_rest_seconds=0.5,
    rest_seconds=2.0,
    wal_events=500,
    crowd_seconds=1,
    claims=100,
    rows=2_000,
    samples=20,
    failures=500,
    lost=200,
    deliveries=300,
    floods=100,
)
"""Sizes that show that every phase works, too small to measure."""
