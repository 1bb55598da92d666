"""When a failed delivery is tried again: exponential, capped, with full jitter, and never in the past."""

from __future__ import annotations

from math import inf, isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce import RetryPolicy


def test_the_longest_delay_doubles_up_to_the_cap() -> None:
    """1 s, 2 s, 4 s, ... one hour."""
    policy = RetryPolicy()
    assert [policy.longest(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert policy.longest(12) == 2048
    assert policy.longest(13) == policy.longest(10**9) == 3600


@given(st.integers(1, 10**6), st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_delay_lies_between_zero_and_the_longest(attempt: int, base: float, cap: float) -> None:
    """Full jitter, whatever the policy; also at attempts that no one will see."""
    policy = RetryPolicy(base=base, cap=cap)
    assert 0 <= policy.delay(attempt) <= policy.longest(attempt) <= cap
    assert isfinite(policy.delay(attempt))


def test_delays_are_spread() -> None:
    """Deliveries that failed together do not come back together."""
    policy = RetryPolicy(base=1000.0)
    delays = [policy.delay(1) for _ in range(200)]
    assert min(delays) < 250
    assert max(delays) > 750


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"base": -1.0}, {"cap": -0.1}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    """At least one attempt, no delay into the past."""
    with pytest.raises(ValueError, match="at least one attempt"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_a_policy_without_delay_tries_at_once() -> None:
    """Zero is zero."""
    assert RetryPolicy(base=0).delay(5) == 0
    assert RetryPolicy(cap=0).delay(5) == 0
    assert RetryPolicy(cap=inf, base=1).longest(10**6) == 2.0**62
