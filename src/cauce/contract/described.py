"""A bus's events as one JSON Schema (draft 2020-12), or as AsyncAPI 3.0; the same bus gives the same document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from pydantic import PydanticUserError, TypeAdapter

from cauce.errors import CatalogError
from cauce.payloads import VERSION

if TYPE_CHECKING:
    from cauce.bus import Bus
    from cauce.catalog import EventType

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
ASYNCAPI: Final = "3.0.0"


def json_schema(bus: Bus) -> dict[str, Any]:
    """Describe the events of a bus, imported ones included, as the SQL function ``publicar_eventos`` takes them.

    Each has the annotations ``x-version``, ``x-clave`` and ``x-prioridad``.

    Raises:
        CatalogError: a payload's type has no JSON Schema.
    """
    types, payloads, shared = _payloads(bus, "#/$defs/{model}")
    events = [
        {
            "title": str(tipo),
            **_annotations(tipo),
            "type": "object",
            "properties": {
                "origen": {"const": tipo.origen},
                "tipo": {"const": tipo.tipo},
                "payload": payload,
                "clave": {"type": ["string", "null"]},
                "cabeceras": _headers_of(tipo),
            },
            "required": ["origen", "tipo", "payload", *(["cabeceras"] if tipo.version > 1 else [])],
        }
        for tipo, payload in zip(types, payloads, strict=True)
    ]
    return {"$schema": DRAFT, "title": _title(bus), "oneOf": events, "$defs": shared}


def asyncapi(bus: Bus) -> dict[str, Any]:
    """Describe the events that the handlers and subscribers of a bus receive: a channel for each origin.

    Raises:
        CatalogError: a payload's type has no JSON Schema.
    """
    types, payloads, shared = _payloads(bus, "#/components/schemas/{model}")
    channels: dict[str, Any] = {}
    for tipo, payload in zip(types, payloads, strict=True):
        channel = channels.setdefault(tipo.origen, {"address": tipo.origen, "messages": {}})
        channel["messages"][tipo.tipo] = {
            "name": tipo.tipo,
            **_annotations(tipo),
            "contentType": "application/json",
            "headers": _headers_of(tipo),
            "payload": _draft_7(payload),
        }
    operations = {
        f"{grupo}.{origen}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{_pointer(origen)}"},
            "messages": [
                {"$ref": f"#/channels/{_pointer(origen)}/messages/{_pointer(tipo)}"}
                for its_origen, tipo in sorted(bus.routes(grupo))
                if its_origen == origen
            ],
        }
        for grupo in bus.groups
        for origen in sorted({origen for origen, _ in bus.routes(grupo)})
    }
    schemas = {name: _draft_7(schema) for name, schema in shared.items()}
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": _title(bus), "version": str(max((tipo.version for tipo in types), default=1))},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas},
    }


def _payloads(bus: Bus, template: str) -> tuple[list[EventType[Any]], list[dict[str, Any]], dict[str, Any]]:
    """Return the events in order, the schemas of their payloads, and those that these share."""
    types = sorted(bus.types.values(), key=lambda tipo: (tipo.origen, tipo.tipo))
    try:
        schemas, shared = TypeAdapter.json_schemas(
            [(number, "validation", tipo.adapter) for number, tipo in enumerate(types)], ref_template=template
        )
    except PydanticUserError as error:
        fault = f"a payload cannot be described in JSON Schema: {str(error).partition(chr(10))[0]}"
        raise CatalogError([fault]) from error
    return types, [schemas[number, "validation"] for number in range(len(types))], shared.get("$defs", {})


def _annotations(tipo: EventType[Any]) -> dict[str, object]:
    return {
        "x-version": tipo.version,
        "x-prioridad": tipo.prioridad,
        **({} if tipo.clave is None else {"x-clave": tipo.clave}),
    }


def _headers_of(tipo: EventType[Any]) -> dict[str, Any]:
    required = {"required": [VERSION]} if tipo.version > 1 else {}
    return {"type": "object", "properties": {VERSION: {"const": tipo.version}}, **required}


def _title(bus: Bus) -> str:
    return f"Events of {bus.application}" if bus.application else "Events"


def _pointer(name: str) -> str:
    """Write a name as a part of a JSON pointer in a URI (RFC 6901, section 6)."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~")


def _draft_7(schema: object) -> Any:  # noqa: ANN401 - whatever JSON it was given
    """Write a schema as AsyncAPI takes it: draft 7, without discriminators, whose form there is another."""
    if isinstance(schema, list):
        return [_draft_7(each) for each in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    fields = cast("dict[str, object]", schema)
    written = {name: _draft_7(value) for name, value in fields.items() if name != "discriminator"}
    if "prefixItems" in written:
        rest = written.pop("items", True)
        written |= {"items": written.pop("prefixItems"), "additionalItems": rest}
    return written
