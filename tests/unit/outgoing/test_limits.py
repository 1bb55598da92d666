"""The guide says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from cauce.outgoing import DISABLE_AFTER, MAX_RESPONSE, MAX_RETRY_AFTER, WEBHOOK_RETRY, Rules, Timeouts
from cauce.outgoing.ssrf import forbidden
from cauce.outgoing.webhook import MAX_EXCERPT, THROTTLED

GUIDE = (Path(__file__).parents[3] / "docs" / "outgoing.md").read_text()
TIMES = Timeouts()


@pytest.mark.parametrize(
    "line",
    [
        f"| {TIMES.connect:g} s | `Timeouts(connect=)` |",
        f"| {TIMES.read:g} s | `Timeouts(read=)` |",
        f"| {TIMES.total:g} s | `Timeouts(total=)` |",
        f"| {MAX_RESPONSE:,} | `MAX_RESPONSE` |",
        f"| {MAX_RETRY_AFTER:,.0f} s | `MAX_RETRY_AFTER` |",
        f"{WEBHOOK_RETRY.max_attempts} attempts",
        f"from {WEBHOOK_RETRY.base:g} s to {WEBHOOK_RETRY.cap / 3600:g} h",
        f"first {MAX_EXCERPT} characters",
        ", ".join(str(code) for code in sorted(THROTTLED)) + " with `Retry-After`",
    ],
)
def test_the_guide_states_every_limit_as_it_is(line: str) -> None:
    """A limit that changes in the code changes in the guide."""
    assert line in GUIDE


def test_the_defaults_are_the_strict_ones() -> None:
    """Five days, https, no private address, any port."""
    assert DISABLE_AFTER == 5 * 86_400
    assert Rules() == Rules(allow_http=False, allow_private=False, ports=None)
    assert forbidden.__kwdefaults__ == {"allow_private": False}
