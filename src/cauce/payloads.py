"""Payloads: values of an event's type as JSON text, and stored JSON text, of any version, as values.

The version of a stored payload is the header ``version``; without it the version is 1. So events of version 1 cost
nothing more than if there were no versions: see docs/adr/0019-versions.md.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from secrets import token_hex
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import pydantic_core
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from cauce.arguments import CHANGING, expect, wrong
from cauce.errors import CatalogError, InvalidPayload, NewerVersion, UpcastError

if TYPE_CHECKING:
    from pydantic.plugin._schema_validator import PluggableSchemaValidator
    from pydantic_core import SchemaSerializer, SchemaValidator

VERSION: Final = "version"
"""The header that holds a payload's version."""
MAX_VERSION: Final = 32_767
"""The highest version; the column ``version`` of ``catalogo`` has the same limit."""

MARK: Final = token_hex(16)
END: Final = f',"{MARK}"]]'
"""The JSON text after the last of many payloads."""
BETWEEN: Final = f',"{MARK}"],['
"""The JSON text between two payloads."""

_FINITE: Final = json.JSONEncoder(allow_nan=False)

T = TypeVar("T")
Upcaster = Callable[[Any], Any]
"""A function that returns a payload of one version as the next version has it: JSON values, as ``json`` reads them."""
U = TypeVar("U", bound=Upcaster)


def version_of(cabeceras: Mapping[str, Any]) -> int:
    """Return the version of an event's payload, as its headers name it; 1 if they do not.

    Raises:
        ValueError: the header is not a version.
    """
    version = cabeceras.get(VERSION, 1)
    if type(version) is not int or not 1 <= version <= MAX_VERSION:
        raise ValueError(f"the version of the payload is {version!r}, not a whole number from 1 to {MAX_VERSION}")
    return version


class PayloadType(Generic[T]):
    """A type of payloads, and its versions.

    Args:
        payload: any type that pydantic validates.
        version: the type's version, from 1.

    Raises:
        WrongArgument: the version is not a whole number from 1 to ``MAX_VERSION``.
    """

    def __init__(self, payload: type[T], version: int) -> None:
        if type(cast("object", version)) is not int or not 1 <= version <= MAX_VERSION:
            hint = f"it is {version}" if isinstance(cast("object", version), int) else ""
            raise wrong("version of an EventType", version, f"a whole number from 1 to {MAX_VERSION}", CHANGING, hint)
        self.payload, self.version = payload, version
        self.upcasters: dict[int, Upcaster] = {}
        """By the version that each takes."""

    def upcast(self, version: int) -> Callable[[U], U]:
        """Declare the function that brings a payload from a version to the next one: a decorator.

        The function takes and returns the payload as ``json`` reads it, such as a dict, which it may change in place.
        Before a handler gets an old event, the functions of the event's version and all later ones are called, and the
        result is validated.

        Args:
            version: the version that the function takes, from 1 to the one before the type's.

        Raises:
            WrongArgument: what is decorated is not a sync function.
            TypeError: the type has no such old version, or an upcaster from it already.

        Examples:
            >>> @ReservaEvents.reserva_creada.upcast(1)
            ... def add_currency(payload: dict[str, Any]) -> dict[str, Any]:
            ...     return payload | {"moneda": "EUR"}
        """
        expect(version, int, f"the version of an upcaster of {self}", "a whole number", CHANGING)
        if not 1 <= version < self.version:
            raise TypeError(f"{self} has version {self.version}, so no upcaster can take version {version}")
        if version in self.upcasters:
            raise TypeError(f"{self} has two upcasters from version {version}")

        def add(function: U) -> U:
            if not callable(cast("object", function)) or inspect.iscoroutinefunction(function):
                wanted = "a function that is not async: it runs while a batch is read"
                raise wrong(f"the upcaster of {self} from version {version}", function, wanted, CHANGING)
            self.upcasters[version] = function
            return function

        return add

    def load(self, text: str, version: int) -> T:
        """Return a stored payload as a value of this type.

        Args:
            text: JSON.
            version: its version.

        Raises:
            NewerVersion: the version is higher than this type's.
            UpcastError: an upcaster failed, or is missing.
            ValidationError: pydantic's; the payload, brought to this version, does not fit the type. A validator of the
                application may raise anything else.
        """
        if version > self.version:
            raise NewerVersion(f"the payload has version {version}, and {self} here has version {self.version}")
        current = text if version == self.version else self._upcast(text, version)
        value: T = self._validator.validate_json(current)
        return value

    def why_not(self, error: BaseException, said: str, version: int) -> str:
        """Describe why a stored payload of a version could not be loaded.

        Args:
            error: what ``load`` raised.
            said: its message.
            version: the payload's version.
        """
        if isinstance(error, (NewerVersion, UpcastError)):
            return said
        which = f", after its upcasters from version {version}," if version < self.version else ""
        return f"the payload{which} is not a valid {self.payload_name}: {said}"

    def _upcast(self, text: str, version: int) -> bytes:
        """Bring JSON text from an older version to this type's."""
        value = pydantic_core.from_json(text)
        for old in range(version, self.version):
            function = self.upcasters.get(old)
            if function is None:
                raise UpcastError(f"{self} has no upcaster from version {old}")
            try:
                value = function(value)
            except Exception as error:
                raise UpcastError(f"{_described(function, old)} raised {type(error).__name__}: {error}") from error
            if value is None:
                raise UpcastError(f"{_described(function, old)} returned None; it returns the payload")
        try:
            return pydantic_core.to_json(value)
        except (pydantic_core.PydanticSerializationError, ValueError) as error:
            last = self.version - 1
            said = f"{_described(self.upcasters[last], last)} returned what JSON cannot hold: {error}"
            raise UpcastError(said) from error

    def dump(self, payload: T) -> str:
        """Return the payload as JSON text.

        Args:
            payload: a value of the payload's type.

        Raises:
            InvalidPayload: the payload is not of this event's type.
        """
        try:
            valid = self._validator.validate_python(payload)
            return self._checked(self._serializer, valid)
        except (ValidationError, ValueError) as error:
            raise InvalidPayload(f"the payload of {self} is not a valid {self.payload_name}: {error}") from error

    def dump_all(self, payloads: Sequence[T]) -> list[str]:
        """Return each payload as JSON text, in a third of the time that single calls of ``dump`` would take.

        Pydantic takes longer to read ``warnings="error"`` than to write a small payload. So one call writes all of
        them with a random mark in between, and the text is split at the marks.

        Args:
            payloads: values of the payload's type.

        Raises:
            InvalidPayload: one of them is not of this event's type.
        """
        if not payloads:
            return []
        try:
            valid = self._marked.validator.validate_python([(payload, MARK) for payload in payloads])
            text = self._checked(self._marked.serializer, valid)
        except (ValidationError, ValueError):
            return [*map(self.dump, payloads)]  # one by one, so that the error names the wrong payload
        return text[2 : -len(END)].split(BETWEEN)

    def _checked(self, serializer: SchemaSerializer, valid: object) -> str:
        """Write a validated value as JSON, and refuse a value that would be read back as another one.

        Pydantic writes NaN and infinity in a float field as null, so only text that contains null is checked. In a
        field of type Any the null stays.

        Raises:
            ValueError: the value contains NaN or infinity, or a field that is not of its declared type.
        """
        # pydantic does not validate an instance of a model again after its fields changed; the serializer does
        text = serializer.to_json(valid, by_alias=True, warnings="error").decode()
        if "null" in text and self._loses_nan:
            try:
                _FINITE.encode(serializer.to_python(valid, mode="json", by_alias=True, warnings=False))
            except ValueError:
                raise ValueError(
                    "it holds NaN or an infinity, which JSON does not have; a model with ser_json_inf_nan='strings'"
                    " writes them as text"
                ) from None
        return text

    @cached_property
    def _loses_nan(self) -> bool:
        """Whether the payload's type contains a float and no setting of how to write NaN."""
        found, nodes = False, [cast("object", self.adapter.core_schema)]
        while nodes:
            node = nodes.pop()
            if isinstance(node, dict):
                fields = cast("dict[str, object]", node)
                if fields.get("ser_json_inf_nan", "null") != "null":
                    return False
                found = found or fields.get("type") == "float"
                nodes += [value for name, value in fields.items() if name != "metadata"]
            elif isinstance(node, (list, tuple)):
                nodes += cast("list[object]", node)
        return found

    @cached_property
    def _marked(self) -> TypeAdapter[Any]:
        pair = GenericAlias(tuple, (self.payload, str))
        return TypeAdapter(cast("Any", GenericAlias(list, (pair,))))

    @cached_property
    def adapter(self) -> TypeAdapter[T]:
        """Pydantic's validator and serializer of the payload.

        Raises:
            CatalogError: pydantic cannot validate the payload's type.
        """
        try:
            return TypeAdapter(self.payload)
        except PydanticUserError as error:
            reason = str(error).partition("\n")[0]
            fault = f"the payload of {self}, {self.payload_name}, is not a type that pydantic can validate: {reason}"
            raise CatalogError([fault]) from error

    # Used directly: the adapter's methods around them take a quarter of the Python time of a publish.
    @cached_property
    def _validator(self) -> SchemaValidator | PluggableSchemaValidator:
        return self.adapter.validator

    @cached_property
    def _serializer(self) -> SchemaSerializer:
        return self.adapter.serializer

    @property
    def payload_name(self) -> str:
        """The name of the payload's type in errors."""
        return getattr(self.payload, "__name__", str(self.payload))


def _described(function: Upcaster, version: int) -> str:
    """Describe an upcaster by its version, its name and its line."""
    name = getattr(function, "__qualname__", repr(function))
    code = getattr(inspect.unwrap(function), "__code__", None)
    where = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
    return f"the upcaster from version {version}, {name}{where},"
