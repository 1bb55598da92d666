r"""A verified body as JSON that PostgreSQL can hold, or the reason why it cannot.

Nothing here raises: a signed body that cannot be stored as ``jsonb`` is stored raw. PostgreSQL refuses four things that
Python's ``json`` accepts: ``\u0000``, lone surrogates, ``NaN`` and ``Infinity``, numbers beyond ``numeric``
(https://www.postgresql.org/docs/current/datatype-json.html).
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, TypeAlias
from urllib.parse import parse_qsl

from pydantic_core import from_json

from cauce.webhooks.limits import MAX_FORM_FIELDS, MAX_JSON_DEPTH, MAX_NUMBER_DIGITS

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


class Problem(StrEnum):
    """Why a body cannot be stored as ``jsonb``."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_A_FORM = "not_a_form"
    TOO_DEEP = "too_deep"
    NUL = "nul"
    LONE_SURROGATE = "lone_surrogate"
    NUMBER_TOO_LARGE = "number_too_large"
    BATCH_TOO_LARGE = "batch_too_large"


@dataclass(frozen=True, slots=True)
class Payload:
    """A body, read as far as possible.

    ``text`` is JSON for PostgreSQL, None if there is a ``problem``. ``value`` is the parsed text, also if it is JSON
    that cannot be stored. ``raw`` is the whole body, or one item of a batch.
    """

    value: JsonValue = None
    text: str | None = None
    raw: bytes = b""
    problem: Problem | None = None
    detail: str = ""


class _TooLarge(ValueError):  # noqa: N818 - leaves this module only as a Problem
    """A number with more than ``MAX_NUMBER_DIGITS`` digits."""


# Strings are matched first, so that brackets inside them are not counted. A string left open is not JSON, so what
# follows it does not matter.
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
# Every digit becomes 0, so that a plain search finds long numbers: a regular expression takes twice as long.
_SHAPE = bytes.maketrans(b"123456789E", b"000000000e")
_LONG_NUMBERS = (b"0e000", b"0e+000", b"0e-000", b"0" * 300)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_NUL = re.compile("\0")
_SURROGATE = re.compile("[\ud800-\udfff]")


def without_bom(body: bytes) -> bytes:
    """Return a text without its byte order mark, as RFC 8259, section 8.1, allows."""
    return body.removeprefix(BOM_UTF8)


def read_json(body: bytes) -> Payload:
    """Parse a JSON body within the limits of ``limits.py`` and of ``jsonb``; skip a byte order mark."""
    bare = without_bom(body)
    try:
        text = bare.decode("utf-8")
        if depth_exceeds(bare, MAX_JSON_DEPTH):
            return Payload(raw=body, problem=Problem.TOO_DEEP, detail=f"nested deeper than {MAX_JSON_DEPTH}")
        value = _parse_bounded(text) if _may_hold_long_numbers(bare) else _parse(bare, text)
    except UnicodeDecodeError as error:
        return Payload(raw=body, problem=Problem.NOT_UTF8, detail=f"byte {error.start} is not UTF-8")
    except _TooLarge as error:
        return Payload(raw=body, problem=Problem.NUMBER_TOO_LARGE, detail=str(error))
    except ValueError as error:
        return Payload(raw=body, problem=Problem.NOT_JSON, detail=str(error))
    problem, detail = _unstorable(body, value)
    return Payload(value, None if problem else text, body, problem, detail)


def write_json(value: JsonValue) -> Payload:
    """Serialize a part of a body (an item of a batch, a form), under the same rules."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    # dumps writes a float beyond the range of a double as Infinity, which read_json then refuses.
    return read_json(text.encode("ascii"))


def read_form(body: bytes) -> Payload:
    """Read an ``application/x-www-form-urlencoded`` body as an object; a repeated field is a list."""
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict")
    except UnicodeDecodeError as error:
        return Payload(raw=body, problem=Problem.NOT_UTF8, detail=str(error))
    except ValueError:
        return Payload(raw=body, problem=Problem.NOT_A_FORM, detail=f"more than {MAX_FORM_FIELDS} fields")
    fields: dict[str, list[JsonValue]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return write_json({name: values[0] if len(values) == 1 else values for name, values in fields.items()})


def read_embedded(body: bytes, field: str) -> Payload:
    """Read the JSON that a form holds in one of its fields."""
    form = read_form(body)
    text = at(form.value, field)
    if form.problem or not isinstance(text, str):
        return form
    return read_json(text.encode("utf-8", "surrogatepass"))


def split_batch(body: bytes, most: int) -> tuple[Payload, ...]:
    """Read a JSON body that may be a list of events; anything but a list is one event."""
    whole = read_json(body)
    if not isinstance(whole.value, list):
        return (whole,)
    if not 0 < len(whole.value) <= most:
        detail = f"{len(whole.value)} events in one body; 1 to {most} are read"
        return (Payload(raw=body, problem=Problem.BATCH_TOO_LARGE, detail=detail),)
    return tuple(write_json(item) for item in whole.value)


def at(value: JsonValue, path: str) -> JsonValue:
    """Return what stands at a dotted path of object keys (``data.object.id``); None if any step is missing."""
    for key in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def depth_exceeds(body: bytes, limit: int) -> bool:
    """Return whether arrays and objects are nested deeper than ``limit``, without recursion."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for token in _STRUCTURE.finditer(body):
        mark = body[token.start()]
        if mark in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif mark in b"]}":
            depth -= 1
    return False


def _unstorable(body: bytes, value: JsonValue) -> tuple[Problem | None, str]:
    """Return what ``jsonb`` refuses in valid JSON; look for the escapes first, since they are rare."""
    if b"\\u0000" in body and _any_text(value, _NUL):
        return Problem.NUL, "a string holds \\u0000, which jsonb refuses"
    if _SURROGATE_ESCAPE.search(body) and _any_text(value, _SURROGATE):
        return Problem.LONE_SURROGATE, "a string holds half of a surrogate pair"
    return None, ""


def _may_hold_long_numbers(body: bytes) -> bool:
    """Return whether anything, even inside a string, looks like a number with many digits or a large exponent."""
    shape = body.translate(_SHAPE)
    return any(number in shape for number in _LONG_NUMBERS)


def _parse(body: bytes, text: str) -> JsonValue:
    """Parse JSON with pydantic's parser, which is twice as fast; if that fails, with Python's.

    Pydantic's refuses lone surrogates, which ``_unstorable`` explains, and nests less deeply.
    """
    try:
        return from_json(body, allow_inf_nan=False)  # type: ignore[no-any-return]  # JSON by definition
    except ValueError:
        return _DECODER.decode(text)  # type: ignore[no-any-return]  # JSON by definition


def _parse_bounded(text: str) -> JsonValue:
    """Parse JSON and measure every number first, at the cost of a call per number."""
    return json.loads(  # type: ignore[no-any-return]  # JSON by definition
        text,
        parse_constant=_no_constant,
        parse_int=lambda digits: int(_bounded_number(digits)),
        parse_float=lambda digits: float(_bounded_number(digits)),
    )


def _bounded_number(digits: str) -> str:
    """Return the literal unless, written out in full, it has too many digits."""
    mantissa, _, exponent = digits.lower().partition("e")
    # An exponent of more than five digits exceeds every limit, and int() of a long one is slow.
    power = MAX_NUMBER_DIGITS if len(exponent) > len("-12345") else abs(int(exponent or "0"))
    if len(mantissa.lstrip("-")) + power > MAX_NUMBER_DIGITS:
        message = f"a number has more than {MAX_NUMBER_DIGITS} digits"
        raise _TooLarge(message)
    return digits


def _no_constant(name: str) -> NoReturn:
    """Refuse ``NaN`` and ``Infinity``, which Python reads and JSON does not have."""
    message = f"{name} is not JSON"
    raise ValueError(message)


_DECODER = json.JSONDecoder(parse_constant=_no_constant)  # ``loads`` would make one for every body


def _any_text(value: JsonValue, wanted: re.Pattern[str]) -> bool:
    """Return whether any string or key of the value holds ``wanted``; the depth is already bounded."""
    if isinstance(value, str):
        return wanted.search(value) is not None
    if isinstance(value, dict):
        return any(_any_text(key, wanted) or _any_text(item, wanted) for key, item in value.items())
    return isinstance(value, list) and any(_any_text(item, wanted) for item in value)
