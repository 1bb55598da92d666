"""The typed catalog: names once, payloads that are validated, and mistakes that do not wait for the first event."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11

from cauce import Catalog, EventHandlers, EventType, InvalidPayload, RetryPolicy
from cauce.payloads import BETWEEN, END, MARK


class Reserva(BaseModel):
    """A payload."""

    reserva_id: int
    nota: str = Field(default="", alias="note")


@dataclasses.dataclass
class Dato:
    """A payload."""

    n: int


class Tabla(TypedDict):
    """A payload."""

    n: int


class Medida(BaseModel):
    """A payload with numbers that JSON may not have."""

    valor: float = 0.0
    lista: list[dict[str, float]] = []
    cierto: float | None = None


class Texto(BaseModel):
    """A payload that writes them as text."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    valor: float
    nada: None = None


class ReservaEvents(Catalog, origen="reserva", prioridad=2):
    """A catalog."""

    creada = EventType("reserva.creada", Reserva, clave="reserva_id")
    cancelada = EventType("reserva.cancelada", Reserva, prioridad=7)


async def handler(evento: Any) -> None:
    """Do nothing."""


def test_a_catalog_gives_its_events_their_origin_in_order() -> None:
    """As they are declared."""
    assert ReservaEvents.types() == [ReservaEvents.creada, ReservaEvents.cancelada]
    assert {tipo.origen for tipo in ReservaEvents.types()} == {"reserva"}
    assert repr(ReservaEvents.creada) == "reserva/reserva.creada"
    assert repr(EventType("suelta", Reserva)) == "(no catalog)/suelta"


def test_types_are_equal_by_origin_and_name() -> None:
    """So that two processes mean the same."""
    twin = EventType("reserva.creada", Reserva)
    assert twin != ReservaEvents.creada
    twin.origen = "reserva"
    assert twin == ReservaEvents.creada
    assert len({twin, ReservaEvents.creada}) == 1
    assert twin != "reserva/reserva.creada"


@pytest.mark.parametrize("payload", [Reserva, Dato, Tabla])
def test_a_key_must_be_a_field(payload: type[Any]) -> None:
    """Of a model, a dataclass or a TypedDict."""
    with pytest.raises(TypeError, match="clave='nada' is not a field"):
        EventType("x", payload, clave="nada")
    EventType("x", payload, clave="reserva_id" if payload is Reserva else "n")


@pytest.mark.parametrize("prioridad", [-1, 10])
def test_a_priority_out_of_range_is_refused(prioridad: int) -> None:
    """In an event and in a catalog."""
    with pytest.raises(TypeError, match="not between 0"):
        EventType("x", Dato, prioridad=prioridad)
    with pytest.raises(TypeError, match="not between 0"):
        type("Malo", (Catalog,), {}, origen="malo", prioridad=prioridad)


def test_a_catalog_needs_an_origin_and_events_of_its_own() -> None:
    """An event belongs to one catalog."""
    with pytest.raises(TypeError, match="origen is empty"):
        type("Vacio", (Catalog,), {}, origen="")
    with pytest.raises(TypeError, match="belongs to another catalog"):
        type("Ladron", (Catalog,), {"robado": ReservaEvents.creada}, origen="ladron")


@pytest.mark.parametrize(
    ("payload", "value"), [(Reserva, Reserva(reserva_id=4, note="a")), (Dato, Dato(4)), (Tabla, {"n": 4})]
)
def test_a_payload_is_written_as_its_readers_read_it(payload: type[Any], value: Any) -> None:
    """By alias, as JSON that validates again."""
    tipo = EventType("x", payload)
    text = tipo.dump(value)
    assert tipo.adapter.validate_json(text) == value
    if payload is Reserva:
        assert json.loads(text) == {"reserva_id": 4, "note": "a"}


@pytest.mark.parametrize("wrong", [None, 4, {"n": "x"}, {}])
def test_a_payload_of_another_type_is_refused(wrong: Any) -> None:
    """With the event's name and the type's."""
    with pytest.raises(InvalidPayload, match="not a valid Dato"):
        EventType("x", Dato).dump(wrong)


def test_a_model_whose_fields_were_spoilt_is_refused() -> None:
    """An instance counts as valid whatever became of it; what is written is looked at again."""
    spoilt = Reserva(reserva_id=1)
    spoilt.reserva_id = "one"  # type: ignore[assignment]  # wrong on purpose
    with pytest.raises(InvalidPayload):
        ReservaEvents.creada.dump(spoilt)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["valor", "lista", "cierto"])
def test_a_number_that_json_does_not_have_is_refused(field: str, number: float) -> None:
    """Alone and among others; it would be written as null, and not fit its type when it is read, or fit as none."""
    tipo = EventType("x", Medida)
    wrong = Medida.model_validate({field: [{"a": number}] if field == "lista" else number})
    with pytest.raises(InvalidPayload, match="NaN or an infinity"):
        tipo.dump(wrong)
    with pytest.raises(InvalidPayload, match="NaN or an infinity"):
        tipo.dump_all([Medida(), wrong])
    assert json.loads(tipo.dump(Medida(valor=1.5))) == {"valor": 1.5, "lista": [], "cierto": None}


def test_a_model_may_write_such_numbers_as_text() -> None:
    """As pydantic lets it, and reads it again."""
    tipo = EventType("x", Texto)
    assert tipo.adapter.validate_json(tipo.dump(Texto(valor=math.inf))).valor == math.inf


def test_the_map_of_handlers_is_a_map_in_order_that_remembers_repetitions() -> None:
    """The first of two handlers stays, and the bus will hear of the second."""

    async def other(evento: Any) -> None:
        """Do nothing."""

    handlers = EventHandlers(
        ReservaEvents.creada.handled_by(handler),
        ReservaEvents.cancelada.handled_by(handler),
        ReservaEvents.creada.handled_by(other),
    )
    in_order = [ReservaEvents.creada, ReservaEvents.cancelada]
    assert list(EventHandlers(*(tipo.handled_by(handler) for tipo in in_order))) == in_order
    assert set(handlers) == {ReservaEvents.creada, ReservaEvents.cancelada}
    assert len(handlers) == 2
    assert handlers[ReservaEvents.creada] is handler
    assert handlers.twice == [ReservaEvents.creada]


def test_a_handler_may_bring_its_own_retry_policy() -> None:
    """The binding's goes before it; an attribute that is something else is no policy."""

    async def own(evento: Any) -> None:
        """Do nothing."""

    own.retry = RetryPolicy(2)  # type: ignore[attr-defined]  # wrong on purpose
    assert ReservaEvents.creada.handled_by(own).retry == RetryPolicy(2)
    assert ReservaEvents.creada.handled_by(own, retry=RetryPolicy(5)).retry == RetryPolicy(5)
    own.retry = "often"  # type: ignore[attr-defined]  # wrong on purpose
    assert ReservaEvents.creada.handled_by(own).retry is None


MANY: list[tuple[Any, list[Any]]] = [
    (Reserva, []),
    (Reserva, [Reserva(reserva_id=1)]),
    (Reserva, [Reserva(reserva_id=n) for n in range(100)]),
    (Dato, [Dato(1), Dato(2)]),
    (Tabla, [{"n": 1}, {"n": 2}]),
    (str, ["", '"],["', "\\", "a\nb\tc", "\u00f1 \U0001f600", MARK, END, BETWEEN]),
    (int | None, [1, None, 2]),
    (list[list[int]], [[], [[1], [2]]]),
]


@pytest.mark.parametrize(("payload", "payloads"), MANY)
def test_many_payloads_are_written_as_each_alone(payload: Any, payloads: list[Any]) -> None:
    """Whatever they hold, and however many there are."""
    tipo: EventType[Any] = EventType("x", payload)
    assert tipo.dump_all(payloads) == [tipo.dump(each) for each in payloads]


def test_one_of_many_payloads_that_is_wrong_is_refused() -> None:
    """In the words that it has alone: one of another type, and a model whose field was changed into nonsense."""
    tipo: EventType[Any] = EventType("x", Reserva)
    changed = Reserva(reserva_id=1)
    changed.reserva_id = "x"  # type: ignore[assignment] # wrong on purpose
    for wrong in (changed, {"reserva_id": "y"}, None):
        with pytest.raises(InvalidPayload) as alone:
            tipo.dump(wrong)
        with pytest.raises(InvalidPayload) as among:
            tipo.dump_all([Reserva(reserva_id=1), wrong, Reserva(reserva_id=2)])
        assert str(among.value) == str(alone.value)
