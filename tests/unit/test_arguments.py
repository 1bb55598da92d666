"""Whatever is no connection, no event, no handler: one error, which names what it is, what is wanted, what to read."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from types import MappingProxyType, ModuleType
from typing import Any, Final, cast

import psycopg
import pytest
from psycopg import sql

from cauce import (
    Bus,
    Catalog,
    CatalogError,
    CauceError,
    EventHandlers,
    Evento,
    EventType,
    Settings,
    Subscriber,
    WrongArgument,
    publicar_evento,
    publicar_eventos,
)
from cauce.arguments import describe
from cauce.engine.cron import procesar_lote
from cauce.engine.threads import run_sync
from cauce.engine.worker import Worker
from cauce.testing import drain
from cauce.web import create_app


class Cosas(Catalog, origen="prueba"):
    """A catalog."""

    una = EventType("cosa.una", dict[str, int])


def handler(evento: Evento[dict[str, int]]) -> None:
    """Do nothing."""


async def awaited(evento: Evento[dict[str, int]]) -> None:
    """Do nothing, async."""


def generator(evento: Evento[dict[str, int]]) -> Iterator[int]:
    """Do nothing: a call runs none of this."""
    yield evento.id


async def async_generator(evento: Evento[dict[str, int]]) -> AsyncIterator[int]:
    """Likewise."""
    yield evento.id


class Foreign:
    """What a library that we do not know calls a connection."""


BINDING = Cosas.una.handled_by(handler)
HANDLERS = EventHandlers(BINDING)
CONN: Any = object.__new__(psycopg.Connection)
"""A connection, as far as its type goes; nothing here comes so far as to use it."""

BUS: Final = Bus(catalogs=[Cosas], event_handlers=HANDLERS)

MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "an address": (
        lambda: publicar_evento(cast("Any", "postgresql://u:hush@h/d"), Cosas.una, {}),
        "the connection of publicar_evento is a text, and should be the connection or session that your transaction",
    ),
    "a connection that is not entered": (
        lambda: publicar_evento(cast("Any", contextlib.nullcontext(CONN)), Cosas.una, {}),
        r"enter it first, .* with pool\.connection\(\) as conn",
    ),
    "nothing": (lambda: publicar_evento(cast("Any", None), Cosas.una, {}), "the connection of publicar_evento is None"),
    "a connection of nobody we know": (
        lambda: publicar_eventos(cast("Any", Foreign()), []),
        "the connection of publicar_eventos is a .*Foreign",
    ),
    "an event's name": (
        lambda: publicar_evento(CONN, cast("Any", "cosa.una"), {}),
        "the event of publicar_evento is the text 'cosa.una', and should be an EventType of a catalog",
    ),
    "a catalog": (lambda: publicar_evento(CONN, cast("Any", Cosas), {}), "is the class Cosas"),
    "connection and event swapped": (
        lambda: publicar_evento(cast("Any", Cosas.una), cast("Any", CONN), {}),
        "is a cauce.catalog.EventType",
    ),
    "a handler's result": (lambda: Cosas.una.handled_by(cast("Any", handler(cast("Any", None)))), "una is None"),
    "a handler's name": (lambda: Cosas.una.handled_by(cast("Any", "shop.f")), "is the text 'shop.f', .* a function"),
    "a handler's class": (lambda: Cosas.una.handled_by(cast("Any", Foreign)), "is the class Foreign"),
    "a number of retries": (lambda: Cosas.una.handled_by(handler, retry=cast("Any", 3)), "retry of .* is an int"),
    "a text of seconds": (lambda: Cosas.una.handled_by(handler, timeout=cast("Any", "5")), "timeout of .* '5'"),
    "handlers in a dict": (
        lambda: EventHandlers(cast("Any", {Cosas.una: handler})),
        "an argument of EventHandlers is a dict, and should be a binding: SomeEvents",
    ),
    "a bare handler": (lambda: EventHandlers(cast("Any", handler)), "is the function handler"),
    "bindings in a list": (lambda: Subscriber("a", cast("Any", [BINDING])), "an argument of Subscriber 'a' is a list"),
    "a subscriber without a name": (lambda: Subscriber(cast("Any", BINDING)), "the name of a Subscriber is a cauce"),
    "a group that is no text": (
        lambda: Subscriber("a", BINDING, grupo=cast("Any", 1)),
        "grupo of Subscriber .* an int",
    ),
    "an event without a name": (
        lambda: EventType(cast("Any", dict), dict),
        "name of an EventType is the class",
    ),
    "a bus of a dict": (
        lambda: Bus(catalogs=[Cosas], event_handlers=cast("Any", {Cosas.una: handler})),
        "event_handlers of a Bus is a dict, and should be EventHandlers",
    ),
    "a bus of a catalog": (
        lambda: Bus(catalogs=cast("Any", Cosas), event_handlers=HANDLERS),
        "catalogs of a Bus is the class Cosas, and should be a list",
    ),
    "a bus of events": (
        lambda: Bus(catalogs=cast("Any", [Cosas.una]), event_handlers=HANDLERS),
        "one of the catalogs of a Bus is a cauce.catalog.EventType",
    ),
    "a bus of a subscriber": (
        lambda: Bus(catalogs=[Cosas], event_handlers=HANDLERS, subscribers=cast("Any", Subscriber("a", BINDING))),
        "subscribers of a Bus is a cauce.catalog.Subscriber, and should be a list",
    ),
    "a bus of bindings": (
        lambda: Bus(catalogs=[Cosas], event_handlers=HANDLERS, subscribers=cast("Any", [BINDING])),
        "one of the subscribers of a Bus is a cauce.catalog.Binding",
    ),
    "a bus that tells a text": (
        lambda: Bus(catalogs=[Cosas], event_handlers=HANDLERS, on_error=cast("Any", "sentry")),
        "on_error of a Bus is the text 'sentry'",
    ),
    "a worker of a name": (
        lambda: Worker(cast("Any", "shop:bus"), Settings()),
        "the bus of Worker is a text, and should be a cauce.Bus",
    ),
    "a worker of an address": (
        lambda: Worker(BUS, cast("Any", "postgresql://u:hush@h/d")),
        "the settings of Worker is a text, and should be a cauce.Settings",
    ),
    "a cron of a catalog": (
        lambda: asyncio.run(procesar_lote(cast("Any", Cosas), Settings())),
        "the bus of procesar_lote is the class Cosas",
    ),
    "a cron of a dict": (
        lambda: asyncio.run(procesar_lote(BUS, cast("Any", {}))),
        "the settings of procesar_lote is a dict",
    ),
    "a draining of a name": (lambda: drain(cast("Any", "x"), Settings()), "the bus of drain is the text 'x'"),
    "a draining of nothing": (lambda: drain(BUS, cast("Any", None)), "the settings of drain is None"),
    "an inbox of a name": (lambda: create_app(cast("Any", "x"), Settings()), "the bus of the inbox is the text 'x'"),
    "an inbox of a class": (
        lambda: create_app(BUS, cast("Any", Settings)),
        "the settings of the inbox is the class Settings",
    ),
}


@pytest.mark.parametrize(("mistake", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_argument_is_named_with_what_is_wanted(mistake: Callable[[], object], said: str) -> None:
    """One error of one shape, which is a TypeError as well; it shows no address of a database."""
    with pytest.raises(WrongArgument, match=said) as caught:
        mistake()
    assert re.fullmatch(r"[^\n]+ is [^\n]+, and should be [^\n]+\. See: cauce docs [a-z-]+", str(caught.value))
    assert "hush" not in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, CauceError)


def test_a_connection_that_was_not_awaited_is_told_so() -> None:
    """It is a coroutine then."""
    made = psycopg.AsyncConnection.connect("")
    with contextlib.closing(made), pytest.raises(WrongArgument, match=r"is a coroutine, .* await it first"):
        publicar_evento(cast("Any", made), Cosas.una, {})


def test_a_coroutine_is_told_from_its_function() -> None:
    """Who calls the handler where it is to be bound is told so."""
    made = awaited(cast("Any", None))
    with pytest.raises(WrongArgument, match=r"is a coroutine, .* not what it returns"):
        Cosas.una.handled_by(cast("Any", made))
    made.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (functools.partial(generator), r"handler generator is a generator, .* \(.*test_arguments.py, line \d+\)$"),
        (async_generator, r"handler async_generator is a generator"),
        (dict.pop, r"handler dict.pop has no signature that Python can read; wrap it in a function of your own$"),
    ],
)
def test_a_handler_that_cannot_run_is_refused_with_its_line(wrong: Callable[..., None], said: str) -> None:
    """At start-up, for a call would run nothing of it; the fault says where the handler is written."""
    with pytest.raises(CatalogError, match=said):
        Bus(catalogs=[Cosas], event_handlers=EventHandlers(Cosas.una.handled_by(wrong)))


def test_a_sync_handler_that_returns_a_coroutine_has_failed() -> None:
    """What hides an async function behind a sync one would settle the event and run nothing."""
    with pytest.raises(TypeError, match="the handler returned a coroutine, which nobody awaits"):
        run_sync(copy_context(), functools.partial(awaited), cast("Any", None))


def test_a_payload_that_pydantic_has_no_schema_for_is_named() -> None:
    """Not in pydantic's words alone, which know nothing of the event."""
    odd = EventType("rara", Foreign)
    with pytest.raises(CatalogError, match=r"the payload of \(no catalog\)/rara, Foreign, is not a type that pydantic"):
        _ = odd.adapter


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (psycopg, "a module"),
        (ModuleType("x"), "a module"),
        (sql.SQL("select 1"), "a psycopg.sql.SQL"),
        (sys.path, "a list"),
        (asyncio.run, "the function run"),
        ("una cosa con espacios", "a text"),
        (b"", "a bytes"),
        (1, "an int"),
        (MappingProxyType({}), "a mappingproxy"),
    ],
)
def test_anything_can_be_described(given: object, said: str) -> None:
    """In a few words, without its contents."""
    assert describe(given) == said
