"""Realistic bodies that we wrote: what each provider usually sends.

One file a provider, named after its ``origen``: an object from ``tipo`` to ``body`` (JSON) or ``form`` (fields). Beside
them may stand ``header``, the unsigned name that providers send outside the body, and ``id``, the path of an id that is
made of several fields. In every text ``{id}``, ``{uuid}``, ``{code}``, ``{hex}``, ``{sha}`` and ``{digits}`` are new in
every delivery, ``{iso}``, ``{unix}`` and ``{ms}`` are its moment; alone, ``{number}``, ``{unix}`` and ``{ms}`` become
numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import TypeAlias
from urllib.parse import urlencode
from uuid import UUID

from cauce.webhooks.payload import JsonValue
from cauce.webhooks.provider import Draft, Provider

Changes: TypeAlias = "Iterable[tuple[str, JsonValue]]"
"""Paths (``data.object.id``, ``items.0.id``) and their new values."""

PRETTY = frozenset({"stripe"})
"""Providers that indent their JSON by two; all others are written without spaces."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One body; ``id_path`` is where its id can be set, ``header`` the type's name outside the body."""

    tipo: str
    value: JsonValue
    is_form: bool = False
    header: str = ""
    id_path: str = ""

    def draft(self, provider: Provider, url: str, unique: str, moment: float, changes: Changes = ()) -> Draft:
        """Return the body as the provider would write it, ready to be signed.

        ``unique`` is 32 hexadecimal digits, and every id is made of it; ``moment`` is in Unix seconds.

        Raises:
            ValueError: a path of ``changes`` does not exist.
        """
        value = _filled(self.value, _values(unique, moment))
        for path, new in changes:
            value = changed(value, path, new)
        if self.is_form and isinstance(value, dict):
            fields = {name: text if isinstance(text, str) else _compact(text) for name, text in value.items()}
            body, content_type = urlencode(fields).encode(), "application/x-www-form-urlencoded"
        else:
            text = json.dumps(value, indent=2) if provider.origen in PRETTY else _compact(value)
            body, content_type = text.encode(), "application/json"
        return Draft(body, url, str(UUID(unique)), self.header, content_type)


@cache
def samples_of(origen: str) -> dict[str, Sample]:
    """Return a provider's samples by ``tipo``; empty if there are none."""
    file = resources.files(__name__) / f"{origen}.json"
    if not file.is_file():
        return {}
    found = json.loads(file.read_text("utf-8"))
    return {
        tipo: Sample(
            tipo, entry.get("body", entry.get("form")), "form" in entry, entry.get("header", ""), entry.get("id", "")
        )
        for tipo, entry in found.items()
    }


def changed(value: JsonValue, path: str, new: JsonValue) -> JsonValue:
    """Return a copy with ``new`` at a dotted path; the last step may be new to its object.

    Raises:
        ValueError: a step is missing, or is no object or list.
    """
    key, dot, rest = path.partition(".")
    if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
        inner = changed(value[int(key)], rest, new) if dot else new
        return [inner if index == int(key) else item for index, item in enumerate(value)]
    if isinstance(value, dict) and (key in value or (key and not dot)):
        return {**value, key: changed(value[key], rest, new) if dot else new}
    there = ", ".join(value) if isinstance(value, dict) else f"a {type(value).__name__}"
    raise ValueError(f"there is no {key!r} where it is looked for; there is {there}")


def _values(unique: str, moment: float) -> dict[str, str | int]:
    """Return the values of the names in braces."""
    number = 10**11 + int(unique[:9], 16)  # always twelve digits
    return {
        "id": unique[:24],
        "uuid": str(UUID(unique)),
        "code": unique[:16].upper(),
        "hex": unique,
        "sha": unique + unique[:8],
        "digits": str(number),
        "number": number,
        "unix": int(moment),
        "ms": int(moment) * 1000,
        "iso": datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _filled(value: JsonValue, values: dict[str, str | int]) -> JsonValue:
    """Return a copy with the names in braces replaced."""
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if not isinstance(value, str) or "{" not in value:
        return value
    if value[1:-1] in values:
        return values[value[1:-1]]
    for name, new in values.items():
        value = value.replace(f"{{{name}}}", str(new))
    return value


def _compact(value: JsonValue) -> str:
    return json.dumps(value, separators=(",", ":"))
