"""The bus: an application that does not fit together does not start, and hears of every fault at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from psycopg import AsyncConnection

from cauce import (
    Bus,
    Catalog,
    CatalogError,
    ConfigError,
    EventHandlers,
    Evento,
    EventType,
    Settings,
    Subscriber,
)
from cauce.engine.worker import Worker
from cauce.errors import WrongArgument
from cauce.webhooks import PROVIDERS


class UnoEvents(Catalog, origen="uno", prioridad=1):
    """A catalog."""

    a = EventType("a", dict[str, int])
    b = EventType("b", str, prioridad=4)


class OtroEvents(Catalog, origen="otro"):
    """Another."""

    c = EventType("c", str)


async def numbers(evento: Evento[dict[str, int]]) -> None:
    """Take numbers."""


async def text(evento: Evento[str]) -> None:
    """Take text."""


async def inside(evento: Evento[str], tx: AsyncConnection[Any]) -> None:
    """Take text, in the transaction."""


async def shapeless(evento: Evento[str], what: int, else_: int) -> None:
    """Take too much."""


HANDLERS = (UnoEvents.a.handled_by(numbers), UnoEvents.b.handled_by(inside))


def faults(**wrong: Any) -> tuple[str, ...]:
    """Return what the bus says of an application that is wrong in something."""
    parts: dict[str, Any] = {"catalogs": [UnoEvents], "event_handlers": EventHandlers(*HANDLERS)}
    with pytest.raises(CatalogError) as error:
        Bus(**parts | wrong)
    return error.value.faults


def test_a_bus_that_fits_together_lays_its_routes_out() -> None:
    """Handlers in `principal`, subscribers there or in groups of their own; plain ones apart from those with `tx`."""
    bus = Bus(
        catalogs=[UnoEvents, OtroEvents],
        event_handlers=EventHandlers(*HANDLERS, OtroEvents.c.handled_by(text)),
        subscribers=[
            Subscriber("s", UnoEvents.b.handled_by(text), OtroEvents.c.handled_by(inside)),
            Subscriber("t", UnoEvents.b.handled_by(text), grupo="aparte"),
        ],
    )
    assert bus.groups == ("principal", "aparte")
    route = bus.routes("principal")["uno", "b"]
    assert [c.nombre for c in route.plain] == ["s"]
    assert [c.nombre for c in route.transactional] == ["manejador"]
    assert route.named("manejador") is route.transactional[0]
    assert route.named("nadie") is None
    assert list(bus.routes("aparte")) == [("uno", "b")]
    assert bus.routes("nada") == {}
    assert [(r["tipo"], r["prioridad"], r["clave"]) for r in bus.rows()] == [
        ("a", 1, None),
        ("b", 4, None),
        ("c", 5, None),
    ]
    assert {(s["grupo"], s["suscriptor"], s["tipo"]) for s in bus.subscriptions()} == {
        ("principal", "manejador", "a"),
        ("principal", "manejador", "b"),
        ("principal", "manejador", "c"),
        ("principal", "s", "b"),
        ("principal", "s", "c"),
        ("aparte", "t", "b"),
    }


def test_a_bus_that_only_listens_has_no_handlers_and_only_its_own_groups() -> None:
    """It imports another application's catalog: it needs no handler, and neither writes that catalog nor joins in."""
    bus = Bus(
        imports=[UnoEvents],
        subscribers=[Subscriber("t", UnoEvents.b.handled_by(text), grupo="aparte")],
        application="t",
    )
    assert bus.groups == ("aparte",)
    assert bus.rows() == []
    assert [(s["grupo"], s["suscriptor"]) for s in bus.subscriptions()] == [("aparte", "t")]
    assert list(bus.types) == [("uno", "a"), ("uno", "b")]
    assert bus.application == "t"


def test_a_subscriber_of_an_imported_event_may_be_in_principal() -> None:
    """Beside the handler that the other application has; `principal` comes first all the same."""
    bus = Bus(
        catalogs=[OtroEvents],
        imports=[UnoEvents],
        event_handlers=EventHandlers(OtroEvents.c.handled_by(text)),
        subscribers=[
            Subscriber("t", UnoEvents.b.handled_by(text), grupo="aparte"),
            Subscriber("s", UnoEvents.b.handled_by(text)),
        ],
    )
    assert bus.groups == ("principal", "aparte")
    assert [(row["origen"], row["tipo"]) for row in bus.rows()] == [("otro", "c")]
    only = Bus(
        imports=[UnoEvents],
        subscribers=[
            Subscriber("t", UnoEvents.b.handled_by(text), grupo="aparte"),
            Subscriber("s", UnoEvents.b.handled_by(text)),
        ],
    )
    assert only.groups == ("principal", "aparte")


def test_a_bus_without_anything_has_no_group() -> None:
    """It takes webhooks in or publishes; there is nothing to work on."""
    assert Bus(imports=[UnoEvents]).groups == ()
    with pytest.raises(ConfigError, match="so a worker has nothing to do"):
        Worker(Bus(imports=[UnoEvents]), Settings())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"event_handlers": EventHandlers(HANDLERS[0])}, "the event uno/b has no handler"),
        ({"event_handlers": EventHandlers(*HANDLERS, HANDLERS[0])}, "the event uno/a has two handlers"),
        (
            {"event_handlers": EventHandlers(*HANDLERS, OtroEvents.c.handled_by(text))},
            "event_handlers: otro/c is in none of the catalogs",
        ),
        ({"catalogs": [UnoEvents, UnoEvents]}, "the event uno/a is declared 2 times"),
        ({"imports": [UnoEvents]}, "the event uno/a is declared 2 times"),
        (
            {"imports": [OtroEvents], "event_handlers": EventHandlers(*HANDLERS, OtroEvents.c.handled_by(text))},
            "otro/c is imported, so its handler is in another application",
        ),
        ({"application": "a" * 256}, "is longer than 255 characters"),
        ({"subscribers": [Subscriber("s", OtroEvents.c.handled_by(text))]}, "which is in none of the catalogs"),
        ({"subscribers": [Subscriber("s")]}, "subscriber 's' listens to nothing"),
        ({"subscribers": [Subscriber("s", HANDLERS[0], HANDLERS[0])]}, "listens to uno/a 2 times"),
        ({"subscribers": [Subscriber("s", HANDLERS[0]), Subscriber("s", HANDLERS[1])]}, "2 subscribers are called 's'"),
        ({"subscribers": [Subscriber("manejador", HANDLERS[0])]}, "that name is reserved"),
        ({"subscribers": [Subscriber("*", HANDLERS[0])]}, "that name is reserved"),
        ({"subscribers": [Subscriber("", HANDLERS[0])]}, "that name is reserved"),
        ({"subscribers": [Subscriber("s", HANDLERS[0], grupo="")]}, "grupo is empty"),
        (
            {"subscribers": [Subscriber("s", UnoEvents.a.handled_by(text))]},  # type: ignore[arg-type]  # wrong on purpose
            "handler text is annotated for another payload: its first parameter must be an Evento[dict]",
        ),
        (
            {"subscribers": [Subscriber("s", UnoEvents.b.handled_by(shapeless))]},  # type: ignore[arg-type]  # wrong on purpose
            "handler shapeless takes 3 parameters",
        ),
    ],
)
def test_a_fault_keeps_the_bus_from_starting(wrong: dict[str, Any], said: str) -> None:
    """Each, with the names of what does not fit."""
    assert any(said in fault for fault in faults(**wrong)), faults(**wrong)


def test_every_fault_is_listed_at_once() -> None:
    """One start, one list, not one fault after another."""
    found = faults(
        event_handlers=EventHandlers(HANDLERS[0], HANDLERS[0]),
        subscribers=[Subscriber("*", OtroEvents.c.handled_by(text)), Subscriber("t")],
    )
    assert len(found) == 5


def test_providers_of_webhooks_are_checked() -> None:
    """Two of one origen are a fault, and what is no provider is named."""
    one = replace(PROVIDERS["stripe"], origen="mine")
    assert Bus(catalogs=[], event_handlers=EventHandlers(), providers=[one]).providers == (one,)
    with pytest.raises(CatalogError, match="2 providers have the origen 'mine'"):
        Bus(catalogs=[], event_handlers=EventHandlers(), providers=[one, one])
    with pytest.raises(WrongArgument, match="one of the providers of a Bus is"):
        Bus(catalogs=[], event_handlers=EventHandlers(), providers=[type(one)])  # type: ignore[list-item]  # wrong on purpose
