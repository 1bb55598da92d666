"""Each parser, with the loop that goes with it."""

from __future__ import annotations

import pytest

from tests.integration.http.kit import PARSERS, without


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve with httptools on uvloop, or with h11 on asyncio's own loop."""
    if request.param == "h11":
        without(monkeypatch, "httptools", "uvloop")
    return str(request.param)
