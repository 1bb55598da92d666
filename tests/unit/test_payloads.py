"""Versions of a payload: old ones are upcast step by step, then validated; mistakes are told early."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from cauce import (
    Bus,
    Catalog,
    CatalogError,
    EventHandlers,
    Evento,
    EventType,
    NewerVersion,
    NuevoEvento,
    Subscriber,
    UpcastError,
    WrongArgument,
)
from cauce.payloads import MAX_VERSION, version_of
from cauce.publishing.statements import _document, _headers, _line


class Precio(BaseModel, strict=True):
    """A payload, whose third version this is."""

    importe: int
    moneda: str


def versioned() -> EventType[Precio]:
    """Make an event of version 3 with both upcasters."""
    tipo = EventType("precio.fijado", Precio, version=3)

    @tipo.upcast(1)
    def rename(payload: dict[str, Any]) -> dict[str, Any]:
        payload["importe"] = payload.pop("precio")
        return payload

    @tipo.upcast(2)
    def add_currency(payload: dict[str, Any]) -> dict[str, Any]:
        return payload | {"moneda": "EUR"}

    assert (rename.__name__, add_currency.__name__) == ("rename", "add_currency")
    return tipo


@pytest.mark.parametrize(
    ("version", "stored", "importe"),
    [(1, '{"precio": 4}', 4), (2, '{"importe": 5}', 5), (3, '{"importe": 6, "moneda": "EUR"}', 6)],
)
def test_a_payload_of_any_version_is_read_as_the_newest(version: int, stored: str, importe: int) -> None:
    """Only the upcasters from its own version on are called."""
    assert versioned().load(stored, version) == Precio(importe=importe, moneda="EUR")


def test_a_payload_that_was_upcast_is_validated_as_json() -> None:
    """A strict model takes a date from JSON text, also after an upcaster."""
    tipo: EventType[Any] = EventType("x", Precio, version=2)
    tipo.upcast(1)(lambda _: {"importe": "no number", "moneda": "EUR"})
    with pytest.raises(ValidationError, match="importe") as caught:
        tipo.load("{}", 1)
    said = tipo.why_not(caught.value, "reasons", 1)
    assert said == "the payload, after its upcasters from version 1, is not a valid Precio: reasons"
    assert tipo.why_not(caught.value, "reasons", 2) == "the payload is not a valid Precio: reasons"


def fails(payload: dict[str, Any]) -> dict[str, Any]:
    """Look for what is not there."""
    return {"importe": payload["missing"]}


def forgets(payload: dict[str, Any]) -> None:
    """Change it in place, and return nothing."""
    payload["importe"] = 1


def strange(_: object) -> object:
    """Return what JSON cannot hold."""
    return {"importe": object()}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (fails, "raised KeyError: 'missing'"),
        (forgets, "returned None; it returns the payload"),
        (strange, "returned what JSON cannot hold"),
    ],
)
def test_an_upcaster_that_fails_is_named_with_its_line(function: Any, reason: str) -> None:
    """And the message says what it did."""
    tipo = EventType("x", Precio, version=2)
    tipo.upcast(1)(function)
    with pytest.raises(UpcastError) as caught:
        tipo.load("{}", 1)
    line = function.__code__.co_firstlineno
    start = f"the upcaster from version 1, {function.__name__} ({__file__}, line {line}), {reason}"
    assert str(caught.value).startswith(start)
    assert tipo.why_not(caught.value, str(caught.value), 1) == str(caught.value)


def test_a_newer_version_and_a_missing_upcaster_are_told() -> None:
    """The first is another program's matter, the second this one's."""
    with pytest.raises(NewerVersion, match=r"has version 4, and \(no catalog\)/precio.fijado here has version 3"):
        versioned().load("{}", 4)
    with pytest.raises(UpcastError, match="has no upcaster from version 1"):
        EventType("x", Precio, version=2).load("{}", 1)


@pytest.mark.parametrize("version", [0, -1, MAX_VERSION + 1, True, "2", 2.0, None])
def test_only_a_whole_number_is_a_version(version: Any) -> None:
    """In a type and in a header."""
    with pytest.raises(WrongArgument, match=f"should be a whole number from 1 to {MAX_VERSION}"):
        EventType("x", Precio, version=version)
    with pytest.raises(ValueError, match=f"not a whole number from 1 to {MAX_VERSION}"):
        version_of({"version": version})


def test_headers_without_a_version_mean_the_first() -> None:
    """Those of webhooks, of publishers in SQL and of a bare INSERT."""
    assert version_of({}) == version_of({"webhook": {}}) == 1
    assert version_of({"version": MAX_VERSION}) == MAX_VERSION


def test_a_wrong_upcaster_is_refused_where_it_is_declared() -> None:
    """For a version that it cannot take, twice, or async."""
    tipo = versioned()
    for version in (0, 3):
        with pytest.raises(TypeError, match=f"has version 3, so no upcaster can take version {version}"):
            tipo.upcast(version)
    with pytest.raises(TypeError, match="has two upcasters from version 1"):
        tipo.upcast(1)
    with pytest.raises(WrongArgument, match="cauce docs changing"):
        tipo.upcast("1")  # type: ignore[arg-type]  # wrong on purpose

    async def slow(payload: Any) -> Any:
        return payload

    for wrong in (slow, {"a": 1}):
        with pytest.raises(WrongArgument, match="a function that is not async"):
            EventType("x", Precio, version=2).upcast(1)(wrong)  # type: ignore[type-var]  # wrong on purpose


def test_a_bus_refuses_a_version_that_old_events_cannot_reach() -> None:
    """Of its own events and of imported ones."""

    class Own(Catalog, origen="propio"):
        cosa = EventType("cosa", Precio, version=3)

    class Foreign(Catalog, origen="ajeno"):
        cosa = EventType("cosa", Precio, version=2)

    def quiet(evento: Evento[Precio]) -> None: ...

    Own.cosa.upcast(2)(lambda payload: payload)
    with pytest.raises(CatalogError) as caught:
        Bus(
            catalogs=[Own],
            imports=[Foreign],
            event_handlers=EventHandlers(Own.cosa.handled_by(quiet)),
            subscribers=[Subscriber("otro", Foreign.cosa.handled_by(quiet))],
        )
    assert caught.value.faults == (
        "the event propio/cosa has version 3 and no upcaster from version 1",
        "the event ajeno/cosa has version 2 and no upcaster from version 1",
    )


def test_publishing_writes_the_version_of_the_type() -> None:
    """In each form; an event of version 1 has no such header."""
    tipo, first = versioned(), EventType("x", Precio)
    assert json.loads(_headers(tipo, None) or "") == {"version": 3}
    assert json.loads(_headers(tipo, {"a": 1, "version": 3}) or "") == {"a": 1, "version": 3}
    assert _headers(first, None) is None
    assert json.loads(_headers(first, {"a": 1}) or "") == {"a": 1}
    tipo.prioridad = first.prioridad = 5
    payload = Precio(importe=1, moneda="EUR")
    assert json.loads(_document(NuevoEvento(tipo, payload), "{}"))["cabeceras"] == {"version": 3}
    assert "cabeceras" not in json.loads(_document(NuevoEvento(first, payload), "{}"))
    assert _line(NuevoEvento(tipo, payload), "{}").endswith('\t{"version": 3}')
    assert _line(NuevoEvento(first, payload), "{}").endswith("\t\\N")


@pytest.mark.parametrize("version", [1, 2, "3"])
def test_headers_that_name_another_version_are_refused(version: Any) -> None:
    """As those of a forwarded event would, whose payload is another."""
    with pytest.raises(WrongArgument, match=r"should be left out: the payload of .* has version 3"):
        _headers(versioned(), {"version": version})
    with pytest.raises(WrongArgument, match="has version 1"):
        _headers(EventType("x", Precio), {"version": 3})
