"""When a failed delivery is tried again, and when no more: pure arithmetic."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts, and the delay between them: exponential backoff with full jitter.

    Full jitter (a uniform draw from 0 to the backoff) spreads the retries of many deliveries that failed together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    max_attempts: int = 12
    base: float = 1.0
    """Seconds: the longest delay after the first attempt; doubled after each."""
    cap: float = 3600.0
    """Seconds: no delay is longer."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: less than one attempt, or a negative delay.
        """
        if self.max_attempts < 1 or self.base < 0 or self.cap < 0:
            raise ValueError(f"{self}: at least one attempt, delays of zero or more seconds")

    def delay(self, attempt: int) -> float:
        """Draw the seconds to wait after attempt number ``attempt`` failed."""
        return random.uniform(0.0, self.longest(attempt))  # noqa: S311 - jitter, not a secret

    def longest(self, attempt: int) -> float:
        """Return the longest delay that ``delay`` can draw, in seconds."""
        # 2 ** 62 is beyond every cap that makes sense, and floats overflow later
        return min(self.cap, self.base * 2.0 ** min(attempt - 1, 62))
