"""The description of a bus's events, and its comparison with an older one."""

from __future__ import annotations

import json
from enum import Enum
from types import GenericAlias
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from cauce import Bus, Catalog, CatalogError, EventHandlers, Evento, EventType
from cauce.contract.described import asyncapi, json_schema
from cauce.contract.differences import Veredicto, compare


def quiet(evento: Evento[Any]) -> None:
    """Do nothing."""


def bus(payload: Any, version: int = 1, tipo: str = "cosa") -> Bus:
    """Make a bus with one event."""
    event: EventType[Any] = EventType(tipo, payload, version=version)
    for old in range(1, version):
        event.upcast(old)(lambda value: value)
    catalog = type("Events", (Catalog,), {"cosa": event}, origen="prueba")
    return Bus(catalogs=[catalog], event_handlers=EventHandlers(event.handled_by(quiet)))


def model(**fields: Any) -> Any:
    """Make a payload's type."""
    return create_model("Cosa", **fields)


class Closed(BaseModel):
    """A payload that forbids other fields."""

    model_config = ConfigDict(extra="forbid")

    a: int


class Tree(BaseModel):
    """A payload that contains itself."""

    hijos: list[Tree] = []
    nombre: str


class WiderTree(BaseModel):
    """The same, with a field that became required."""

    hijos: list[WiderTree] = []
    nombre: str
    color: str


class Two(Enum):
    """Two values."""

    A = "a"
    B = "b"


CASES: list[tuple[Any, Any, list[tuple[str, str, bool]]]] = [
    (model(a=(int, ...)), model(a=(int, ...), b=(str, ...)), [("payload.b", "is added, and required", True)]),
    (model(a=(int, ...)), model(a=(int, ...), b=(str, "")), [("payload.b", "is added, and optional", False)]),
    (model(a=(int, ...), b=(int, ...)), model(a=(int, ...)), [("payload.b", "is removed: readers ignore it", False)]),
    (model(a=(int, ...), b=(int, ...)), Closed, [
        ("payload.b", "is removed, and other fields are forbidden", True), ("payload", "forbids other fields", True)]),
    (model(a=(int, 1)), model(a=(int, ...)), [("payload.a", "becomes required", True)]),
    (model(a=(int, ...)), model(a=(int, 1)), [("payload.a", "is no longer required", False)]),
    (model(a=(int, 1)), model(a=(int, 2)), [("payload.a", "its default was 1, and is 2", False)]),
    (model(a=(int, ...)), model(a=(float, ...)), [("payload.a", "takes every number, not only integers", False)]),
    (model(a=(float, ...)), model(a=(int, ...)), [("payload.a", "was number, and is integer", True)]),
    (model(a=(int | None, ...)), model(a=(int, ...)), [("payload.a", "no longer takes null", True)]),
    (model(a=(int, ...)), model(a=(int | str, ...)), [("payload.a", "takes string too", False)]),
    (model(a=(str, ...)), model(a=(Any, ...)), [("payload.a", "takes anything", False)]),
    (model(a=(Any, ...)), model(a=(str, ...)), [("payload.a", "was anything, and is string", True)]),
    (model(a=(Literal["a", "b"], ...)), model(a=(Literal["a"], ...)), [("payload.a", "no longer takes 'b'", True)]),
    (model(a=(Literal["a"], ...)), model(a=(Two, ...)), [("payload.a", "takes 'b' too", False)]),
    (model(a=(str, ...)), model(a=(Two, ...)), [("payload.a", "takes only 'a', 'b'", True)]),
    (model(a=(Two, ...)), model(a=(str, ...)), [("payload.a", "takes every string", False)]),
    (model(a=(str, Field(max_length=9))), model(a=(str, Field(max_length=5))), [
        ("payload.a", "maxLength was 9, and is 5", True)]),
    (model(a=(int, Field(ge=5))), model(a=(int, Field(ge=1))), [("payload.a", "minimum was 5, and is 1", False)]),
    (model(a=(int, ...)), model(a=(int, Field(gt=1))), [
        ("payload.a", "exclusiveMinimum was not there, and is 1", True)]),
    (model(a=(str, Field(pattern="^a"))), model(a=(str, ...)), [
        ("payload.a", "pattern was ^a, and is not there", False)]),
    (model(a=(list[int], ...)), model(a=(list[str], ...)), [("payload.a[]", "was integer, and is string", True)]),
    (model(a=(dict[str, int], ...)), model(a=(dict[str, str], ...)), [
        ("payload.a.*", "was integer, and is string", True)]),
    (model(a=(tuple[int, str], ...)), model(a=(tuple[int, int], ...)), [
        ("payload.a[1]", "was string, and is integer", True)]),
    (Tree, WiderTree, [("payload.color", "is added, and required", True)]),
    (list[int], dict[str, int], [("payload", "was array, and is object", True)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "changes"), CASES, ids=lambda value: value[0][1] if isinstance(value, list) else ""
)
def test_each_change_is_named_with_its_verdict(old: Any, new: Any, changes: list[tuple[str, str, bool]]) -> None:
    """And a new version with upcasters makes an incompatible one acceptable."""
    before = json_schema(bus(old))
    found = compare(before, json_schema(bus(new)))
    assert [(one.donde, one.cambio, one.veredicto is Veredicto.INCOMPATIBLE) for one in found] == changes
    later = compare(before, json_schema(bus(new, version=2)))[1:]
    assert [one.veredicto for one in later] == [
        Veredicto.UPCASTER if breaks else Veredicto.COMPATIBLE for _, _, breaks in changes
    ]


def test_events_come_and_go_and_versions_only_rise() -> None:
    """An event that is removed leaves stored ones without a handler."""
    one, other, higher = (json_schema(each) for each in (bus(Tree), bus(Tree, tipo="otra"), bus(Tree, version=2)))
    assert [(d.tipo, d.cambio, d.veredicto) for d in compare(one, other)] == [
        ("cosa", "is removed: what is stored of it has no handler", Veredicto.INCOMPATIBLE),
        ("otra", "is added", Veredicto.COMPATIBLE),
    ]
    assert [d.cambio for d in compare(one, higher)] == ["version 1 becomes 2"]
    (back,) = compare(higher, one)
    assert (back.veredicto, back.cambio[:34]) == (Veredicto.INCOMPATIBLE, "its version goes back from 2 to 1:")


@pytest.mark.parametrize("old", [{}, [], {"oneOf": [{}]}, {"oneOf": 1}, asyncapi(bus(Tree))])
def test_what_is_no_description_is_refused(old: Any) -> None:
    """Before anything is compared."""
    with pytest.raises(ValueError, match="no description that cauce catalog export made"):
        compare(old, json_schema(bus(Tree)))


def test_a_type_without_a_schema_is_named() -> None:
    """As a fault of the bus."""
    with pytest.raises(CatalogError, match="cannot be described in JSON Schema"):
        json_schema(bus(model(a=(type("Own", (), {"__get_pydantic_core_schema__": classmethod(_plain)}), ...))))


def _plain(*_: object) -> Any:
    from pydantic_core import core_schema  # noqa: PLC0415 - what only this test needs

    return core_schema.no_info_plain_validator_function(lambda value: value)


LEAVES: st.SearchStrategy[Any] = st.sampled_from([int, str, float, bool, Two, Any, Literal["a", 1], type(None)])
TYPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda kind: GenericAlias(list, (kind,))),
        inner.map(lambda kind: GenericAlias(dict, (str, kind))),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1] if Any not in pair else pair[0]),
        st.dictionaries(st.sampled_from("abc"), st.tuples(inner, st.booleans()), min_size=1).map(
            lambda fields: model(**{name: (kind, ... if must else None) for name, (kind, must) in fields.items()})
        ),
    ),
    max_leaves=6,
)
Kind: TypeAlias = Any
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(0, 1) | st.sampled_from(["a", "b", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(TYPES)
def test_a_description_compared_with_itself_has_no_differences(kind: Kind) -> None:
    """Whatever the type; and it is the same text every time."""
    first, second = json_schema(bus(kind)), json_schema(bus(kind))
    assert json.dumps(first) == json.dumps(second)
    assert compare(first, second) == []
    assert asyncapi(bus(kind)) == asyncapi(bus(kind))


@given(TYPES, TYPES, VALUES)
def test_what_fits_the_old_type_fits_a_compatible_new_one(old: Kind, new: Kind, value: Any) -> None:
    """Validated strictly, as JSON says: the lax mode takes more than the schema."""
    if any(one.veredicto is Veredicto.INCOMPATIBLE for one in compare(json_schema(bus(old)), json_schema(bus(new)))):
        return
    text = json.dumps(value)
    try:
        TypeAdapter(old).validate_json(text, strict=True)
    except ValidationError:
        return
    TypeAdapter(new).validate_json(text)


def test_asyncapi_names_every_event_and_who_receives_it() -> None:
    """A channel for each origin, an operation for each group; schemas are of draft 7."""
    document = asyncapi(bus(model(a=(tuple[int, str], ...)), tipo="una/cosa", version=2))
    message = document["channels"]["prueba"]["messages"]["una/cosa"]
    assert message["headers"]["required"] == ["version"]
    assert message["payload"] == {"$ref": "#/components/schemas/Cosa"}
    field = document["components"]["schemas"]["Cosa"]["properties"]["a"]
    assert [item["type"] for item in field["items"]] == ["integer", "string"]
    assert document["operations"]["principal.prueba"] == {
        "action": "receive",
        "channel": {"$ref": "#/channels/prueba"},
        "messages": [{"$ref": "#/channels/prueba/messages/una~1cosa"}],
    }
