"""Receivers of webhooks on loopback, well behaved and otherwise, and a certificate authority of the run's own."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.outgoing.kit import Answer, Authority, Receiver


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A certificate authority that nobody else trusts."""
    return Authority()


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """Start receivers that answer by the given script and repeat its last line; they stop after the test."""
    with ExitStack() as stack:

        def start(*script: Answer, tls: ssl.SSLContext | None = None) -> Receiver:
            return stack.enter_context(Receiver(script, tls))

        yield start
