"""The retry policy: how many attempts a delivery has, and the delays between them."""

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
    """Attempts before a delivery is dead, the first included."""
    base: float = 1.0
    """The longest delay after the first attempt, in seconds; it doubles with each attempt."""
    cap: float = 3600.0
    """The longest delay between two attempts, in seconds."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: ``max_attempts`` is less than 1, or a delay is negative.
        """
        if self.max_attempts < 1 or self.base < 0 or self.cap < 0:
            raise ValueError(f"{self}: at least one attempt, delays of zero or more seconds")

    def delay(self, attempt: int) -> float:
        """Return a random delay after a failed attempt, in seconds.

        Args:
            attempt: the number of the failed attempt, 1 the first time.
        """
        return random.uniform(0.0, self.longest(attempt))  # noqa: S311 - jitter, not a secret

    def longest(self, attempt: int) -> float:
        """Return the longest delay that ``delay`` can return, in seconds.

        Args:
            attempt: the number of the failed attempt, 1 the first time.
        """
        # 2 ** 62 seconds are more than any sensible cap, and a float can still hold them
        return min(self.cap, self.base * 2.0 ** min(attempt - 1, 62))
