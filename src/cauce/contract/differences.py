"""Whether a program can read what was stored under an earlier description of its events.

The rule: every payload that fits the old schema must fit the new one. What cannot be compared counts as incompatible.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Schema = dict[str, Any]


class Veredicto(StrEnum):
    """What a change means for stored events."""

    COMPATIBLE = "compatible"
    UPCASTER = "upcaster"
    """Stored payloads do not fit by themselves, and go through the upcasters of a new version."""
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True, slots=True)
class Difference:
    """One change of an event."""

    origen: str
    tipo: str
    donde: str
    """Where: ``payload.linea[].precio``; empty for the event itself."""
    cambio: str
    """What changed, in words."""
    veredicto: Veredicto


class _Change(NamedTuple):
    where: str
    text: str
    breaks: bool


ANNOTATIONS: Final = {
    "title",
    "description",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "discriminator",
}
"""Keywords that decide nothing."""
AT_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
AT_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
EXACT: Final = ("pattern", "format", "multipleOf", "uniqueItems")
COMPARED: Final = {
    *ANNOTATIONS, *AT_LEAST, *AT_MOST, *EXACT, "type", "enum", "const", "properties", "required",
    "additionalProperties", "items", "prefixItems", "default", "anyOf", "oneOf", "$ref",
}  # fmt: skip


def compare(old: Schema, new: Schema) -> list[Difference]:
    """Compare two descriptions that ``json_schema`` made, in the order of their events.

    Raises:
        ValueError: the old one is no such description.
    """
    before, after = _events(old), _events(new)
    found: list[Difference] = []
    for key in sorted({*before, *after}):
        if key not in after:
            found.append(
                Difference(*key, "", "is removed: what is stored of it has no handler", Veredicto.INCOMPATIBLE)
            )
        elif key not in before:
            found.append(Difference(*key, "", "is added", Veredicto.COMPATIBLE))
        else:
            found += _compare_event(key, (old, before[key]), (new, after[key]))
    return found


def _events(document: Schema) -> dict[tuple[str, str], Schema]:
    try:
        return {
            (event["properties"]["origen"]["const"], event["properties"]["tipo"]["const"]): event
            for event in document["oneOf"]
            if event["x-version"] and isinstance(event["properties"]["payload"], dict)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no description that cauce catalog export made: {error!r}") from error


def _compare_event(
    key: tuple[str, str], old: tuple[Schema, Schema], new: tuple[Schema, Schema]
) -> Iterator[Difference]:
    (old_document, before), (new_document, after) = old, new
    was, now = before["x-version"], after["x-version"]
    if now < was:
        said = f"its version goes back from {was} to {now}: stored events of version {was} cannot be read"
        yield Difference(*key, "", said, Veredicto.INCOMPATIBLE)
    elif now > was:
        yield Difference(*key, "", f"version {was} becomes {now}", Veredicto.COMPATIBLE)
    for name in ("x-clave", "x-prioridad"):
        if before.get(name) != after.get(name):
            said = f"its {name[2:]} was {before.get(name)}, and is {after.get(name)}"
            yield Difference(*key, "", said, Veredicto.COMPATIBLE)
    broken = Veredicto.UPCASTER if now > was else Veredicto.INCOMPATIBLE
    comparison = _Comparison(old_document.get("$defs", {}), new_document.get("$defs", {}))
    for change in comparison.of(before["properties"]["payload"], after["properties"]["payload"], "payload"):
        yield Difference(*key, change.where, change.text, broken if change.breaks else Veredicto.COMPATIBLE)


class _Comparison:
    """Compares schemas that refer to definitions of their documents."""

    def __init__(self, old: Mapping[str, Schema], new: Mapping[str, Schema]) -> None:
        self._old, self._new = old, new
        self._open: set[tuple[str, str]] = set()
        """Pairs that are being compared, for types that contain themselves."""

    def of(self, old: Schema, new: Schema, where: str) -> list[_Change]:
        """Compare two schemas."""
        pair = old.get("$ref", ""), new.get("$ref", "")
        if pair in self._open:
            return []
        if all(pair):
            self._open.add(pair)
        try:
            return self._unions(_resolved(old, self._old), _resolved(new, self._new), where)
        finally:
            self._open.discard(pair)

    def _unions(self, old: Schema, new: Schema, where: str) -> list[_Change]:
        changes: list[_Change] = []
        if old.get("default") != new.get("default") and "default" in old and "default" in new:
            changes.append(
                _Change(where, f"its default was {old['default']!r}, and is {new['default']!r}", breaks=False)
            )
        before = [branch for part in _branches(old) for branch in _branches(_resolved(part, self._old))]
        after = [branch for part in _branches(new) for branch in _branches(_resolved(part, self._new))]
        if len(before) == len(after) == 1:
            return [*changes, *self._single(before[0], after[0], where)]
        for branch in before:
            tries: list[list[_Change]] = [self._single(branch, other, where) for other in after]
            if not any(_kind(branch) == _kind(other) for other in after) and all(map(_breaks, tries)):
                changes.append(_Change(where, f"no longer takes {_kind(branch)}", breaks=True))
            else:
                best = min(tries, key=lambda tried: (sum(change.breaks for change in tried), len(tried)))
                changes += best
        kinds = {_kind(branch) for branch in before}
        changes += [
            _Change(where, f"takes {kind} too", breaks=False)
            for kind in dict.fromkeys(map(_kind, after))
            if kind not in kinds
        ]
        return list(dict.fromkeys(changes))

    def _single(self, old: Schema, new: Schema, where: str) -> list[_Change]:
        """Compare two schemas that are no unions."""
        was, now = _kind(old), _kind(new)
        if now == "anything":
            return [] if was == now else [_Change(where, "takes anything", breaks=False)]
        if was != now and (was, now) != ("integer", "number"):
            return [_Change(where, f"was {was}, and is {now}", breaks=True)]
        changes = [] if was == now else [_Change(where, "takes every number, not only integers", breaks=False)]
        changes += _values(old, new, where)
        changes += _limits(old, new, where)
        changes += self._fields(old, new, where)
        changes += self._items(old, new, where)
        changes += [
            _Change(where, f"{name} changed, which cannot be compared", breaks=True)
            for name in sorted({*old, *new} - COMPARED)
            if not name.startswith("x-") and old.get(name) != new.get(name)
        ]
        return changes

    def _fields(self, old: Schema, new: Schema, where: str) -> list[_Change]:
        before: Schema = old.get("properties", {})
        after: Schema = new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        changes: list[_Change] = []
        others_before: bool | Schema = old.get("additionalProperties", True)
        others: bool | Schema = new.get("additionalProperties", True)
        for name in before:
            path = f"{where}.{name}"
            if name in after:
                changes += self.of(before[name], after[name], path)
                if name in needs - needed:
                    changes.append(_Change(path, "becomes required", breaks=True))
                elif name in needed - needs:
                    changes.append(_Change(path, "is no longer required", breaks=False))
            elif others is False:
                changes.append(_Change(path, "is removed, and other fields are forbidden", breaks=True))
            elif isinstance(others, dict):
                changes += self.of(before[name], others, path)
            else:
                changes.append(_Change(path, "is removed: readers ignore it", breaks=False))
        for name in after:
            if name not in before:
                said = "is added, and required" if name in needs else "is added, and optional"
                changes.append(_Change(f"{where}.{name}", said, breaks=name in needs))
        changes += self._others(others_before, others, where)
        return changes

    def _others(self, old: bool | Schema, new: bool | Schema, where: str) -> list[_Change]:  # noqa: FBT001 - a schema may be one
        if old == new or old is False:
            return [] if old == new else [_Change(where, "takes other fields", breaks=False)]
        if new is False:
            return [_Change(where, "forbids other fields", breaks=True)]
        return self.of(_as_schema(old), _as_schema(new), f"{where}.*")

    def _items(self, old: Schema, new: Schema, where: str) -> list[_Change]:
        changes: list[_Change] = []
        before, after = old.get("prefixItems", []), new.get("prefixItems", [])
        for number in range(max(len(before), len(after))):
            was = before[number] if number < len(before) else old.get("items", True)
            now = after[number] if number < len(after) else new.get("items", True)
            changes += self.of(_as_schema(was), _as_schema(now), f"{where}[{number}]")
        if "items" in old or "items" in new:
            changes += self.of(_as_schema(old.get("items", True)), _as_schema(new.get("items", True)), f"{where}[]")
        return changes


def _values(old: Schema, new: Schema, where: str) -> list[_Change]:
    """Compare enums and constants."""
    before, after = _listed(old), _listed(new)
    if after is None:
        return [] if before is None else [_Change(where, f"takes every {_kind(new)}", breaks=False)]
    if before is None:
        return [_Change(where, f"takes only {', '.join(map(repr, after))}", breaks=True)]
    return [
        *(_Change(where, f"no longer takes {value!r}", breaks=True) for value in before if value not in after),
        *(_Change(where, f"takes {value!r} too", breaks=False) for value in after if value not in before),
    ]


def _limits(old: Schema, new: Schema, where: str) -> Iterator[_Change]:
    """Compare the keywords that take one value."""
    for name in (*AT_LEAST, *AT_MOST, *EXACT):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        if now is None or was is None or name in EXACT:
            narrower = now is not None and now is not False
        else:
            narrower = now > was if name in AT_LEAST else now < was
        yield _Change(where, f"{name} was {_or_none(was)}, and is {_or_none(now)}", breaks=narrower)


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return a schema in place of a reference to it, with what stands beside the reference."""
    while isinstance(ref := schema.get("$ref"), str):
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        schema = {**definitions.get(ref.rpartition("/")[2], {"$missing": ref}), **beside}
    return schema


def _branches(schema: Schema) -> list[Schema]:
    """Return the parts of a union; a schema that is none by itself."""
    union = schema.get("anyOf") or schema.get("oneOf")
    if union:
        return list(union)
    kinds: str | list[str] | None = schema.get("type")
    return [{**schema, "type": kind} for kind in kinds] if isinstance(kinds, list) else [schema]


def _kind(schema: Schema) -> str:
    if "type" in schema:
        return str(schema["type"])
    if _listed(schema) is not None:
        return "a value of a list"
    return "anything" if not schema.keys() - ANNOTATIONS - {"default"} else "a schema without a type"


def _listed(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _breaks(changes: list[_Change]) -> bool:
    return any(change.breaks for change in changes)


def _as_schema(schema: bool | Schema) -> Schema:  # noqa: FBT001 - a schema may be one
    return schema if isinstance(schema, dict) else {} if schema else {"enum": []}


def _or_none(value: object) -> str:
    return "not there" if value is None else str(value)
