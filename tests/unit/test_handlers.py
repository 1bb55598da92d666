"""Shapes of handlers: read from the signature, with and without annotations that can be resolved."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import AsyncConnection, Connection

from cauce import Attempt, Catalog, Evento, EventType
from cauce.handlers import Shape, Takes, shape_of, takes_payload

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal


class Events(Catalog, origen="forma"):
    """A catalog."""

    uno = EventType("uno", int)


async def alone(evento: Evento[int]) -> None:
    """Take the event."""


async def with_tx(evento: Evento[int], conn: AsyncConnection[Any]) -> None:
    """Take a connection, by whatever name."""


async def with_attempt(evento: Evento[int], intento: Attempt) -> None:
    """Take the attempt, by whatever name."""


def sync_alone(evento: Evento[int]) -> None:
    """Take the event."""


def sync_tx(evento: Evento[int], conn: Connection[Any]) -> None:
    """Take a connection."""


def unresolved_tx(evento: Evento[int], tx: Decimal) -> None:
    """Annotated by a name that exists for type checkers only: known by its own name."""


async def unresolved_attempt(evento: Evento[int], attempt: Decimal) -> None:
    """Likewise."""


async def with_default(evento: Evento[int], extra: int = 3) -> None:
    """A parameter with a default is the application's own."""


async def with_keyword(evento: Evento[int], *, extra: int = 3) -> None:
    """So is one by keyword."""


class Callable_:  # noqa: N801 - a class whose instances are handlers
    """An object that can be called."""

    async def __call__(self, evento: Evento[int], tx: AsyncConnection[Any]) -> None:
        """Take a connection."""

    async def method(self, evento: Evento[int]) -> None:
        """Take the event."""


async def with_three(evento: Evento[int], tx: AsyncConnection[Any], more: int) -> None:
    """Take too much."""


async def sync_connection(evento: Evento[int], tx: Connection[Any]) -> None:
    """Async, and asks for a sync connection."""


def async_connection(evento: Evento[int], tx: AsyncConnection[Any]) -> None:
    """Sync, and asks for an async connection."""


async def something_else(evento: Evento[int], other: int) -> None:
    """Ask for what nobody has."""


async def only_by_name(evento: Evento[int], *, tx: AsyncConnection[Any]) -> None:
    """Ask for what a call by position cannot give."""


@pytest.mark.parametrize(
    ("handler", "is_async", "takes"),
    [
        (alone, True, Takes.NOTHING),
        (with_tx, True, Takes.TX),
        (with_attempt, True, Takes.ATTEMPT),
        (sync_alone, False, Takes.NOTHING),
        (sync_tx, False, Takes.TX),
        (unresolved_tx, False, Takes.TX),
        (unresolved_attempt, True, Takes.ATTEMPT),
        (with_default, True, Takes.NOTHING),
        (with_keyword, True, Takes.NOTHING),
        (Callable_(), True, Takes.TX),
        (Callable_().method, True, Takes.NOTHING),
        (functools.partial(with_three, more=1), True, Takes.TX),
        (lambda _: None, False, Takes.NOTHING),
    ],
)
def test_a_handler_of_any_shape_is_understood(handler: Callable[..., Any], is_async: bool, takes: Takes) -> None:  # noqa: FBT001 - a table
    """Functions, methods, objects, partials; async and sync; by annotation, or by name."""
    assert shape_of(handler) == Shape(is_async, takes)


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (with_three, "takes 3 parameters"),
        (lambda: None, "takes 0 parameters"),
        (sync_connection, "is async"),
        (async_connection, "is sync"),
        (only_by_name, "takes tx by name only"),
        (something_else, "annotated int, which no handler can take; it can be psycopg's AsyncConnection"),
    ],
)
def test_a_handler_of_no_known_shape_is_refused(handler: Callable[..., Any], said: str) -> None:
    """With what is wrong about it."""
    with pytest.raises(TypeError, match=said):
        shape_of(handler)


async def any_event(evento: Evento[Any]) -> None:
    """Take any payload."""


async def bare_event(evento: Evento) -> None:  # type: ignore[type-arg]  # wrong on purpose
    """Take any payload."""


async def either(evento: Evento[int] | Evento[str]) -> None:
    """Take one of two."""


async def text(evento: Evento[str]) -> None:
    """Take another payload."""


async def not_an_event(evento: int) -> None:
    """Take the payload itself."""


@pytest.mark.parametrize(
    ("handler", "takes"),
    [(alone, True), (any_event, True), (bare_event, True), (either, True), (lambda _: None, True), (text, False),
     (not_an_event, False)],
)  # fmt: skip
def test_a_payload_annotation_admits_the_event_or_not(handler: Callable[..., Any], takes: bool) -> None:  # noqa: FBT001 - a table
    """What cannot be known is admitted: the type checker has seen it."""
    assert takes_payload(handler, Events.uno) is takes


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_no_attempt_could_meet_is_refused(timeout: float) -> None:
    """It would make every delivery a dead letter."""
    with pytest.raises(TypeError, match="is not more than 0 seconds"):
        EventType("cosa.una", dict[str, int]).handled_by(bare_event, timeout=timeout)
