"""The typed catalog: every event's name once, with its payload's type, and what listens to it.

``EventType`` is invariant in its payload on purpose: a covariant one would let a wrong payload through.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from secrets import token_hex
from types import GenericAlias, NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, TypeVar, cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from cauce.arguments import FIRST_STEPS, HANDLERS, PUBLISHING, expect, wrong
from cauce.errors import CatalogError, InvalidPayload
from cauce.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeAlias

    from psycopg import AsyncConnection, Connection
    from pydantic.plugin._schema_validator import PluggableSchemaValidator
    from pydantic_core import SchemaSerializer, SchemaValidator

    from cauce.evento import Evento
    from cauce.outcome import Attempt

PRINCIPAL = "principal"
"""The group of the dedicated handlers; the only one that writes an event's state."""
MANEJADOR = "manejador"
"""The name under which the dedicated handler's deliveries are stored."""
TODOS = "*"
"""Stands for every subscriber of a group in a stored delivery."""

MARK: Final = token_hex(16)
END: Final = f',"{MARK}"]]'
"""How the mark stands in JSON after the last of many payloads."""
BETWEEN: Final = f',"{MARK}"],['
"""How it stands between two of them."""

_FINITE: Final = json.JSONEncoder(allow_nan=False)

T = TypeVar("T")

if TYPE_CHECKING:
    # psycopg's connections are generic over the row type, which is the handler's own business: hence Any
    Handler: TypeAlias = (
        Callable[[Evento[T]], Awaitable[None]]
        | Callable[[Evento[T], AsyncConnection[Any]], Awaitable[None]]
        | Callable[[Evento[T], Attempt], Awaitable[None]]
        | Callable[[Evento[T]], None]
        | Callable[[Evento[T], Connection[Any]], None]
        | Callable[[Evento[T], Attempt], None]
    )
AnyHandler = Callable[..., Any]
"""A handler whose payload type has been checked and is no longer of interest."""


class EventType(Generic[T]):
    """One event name of the catalog, with the type of its payload: anything pydantic validates.

    Args:
        tipo: the event's name, at most 255 characters.
        payload: the payload's type; of a Stripe event ``StripeEvent[...]``, the whole Stripe event.
        clave: the payload's field that is the event's key, stored in the column ``clave``.
        prioridad: 0 (first) to 9; by default that of the catalog that declares the event.

    Raises:
        WrongArgument: the name is no text.
        TypeError: ``clave`` is not a field of the payload, or the priority is out of range.
    """

    origen: str = ""
    """Set by the catalog that declares the event; empty in a type that no catalog declares."""

    def __init__(self, tipo: str, payload: type[T], *, clave: str | None = None, prioridad: int | None = None) -> None:
        expect(tipo, str, "the name of an EventType", "a str, as in EventType('reserva.creada', Reserva)", FIRST_STEPS)
        if clave is not None and clave not in _fields(payload):
            raise TypeError(f"{tipo}: clave={clave!r} is not a field of {getattr(payload, '__name__', payload)}")
        _check_priority(tipo, prioridad)
        self.tipo, self.payload, self.clave, self.prioridad = tipo, payload, clave, prioridad

    def handled_by(
        self, handler: Handler[T], /, *, retry: RetryPolicy | None = None, timeout: float | None = None
    ) -> Binding:
        """Bind a handler; the payload types must agree, for the type checker and at start-up.

        Args:
            handler: ``(evento)``, ``(evento, tx)`` or ``(evento, attempt)``, async or sync.
            retry: when a failure is tried again; None: the handler's own attribute ``retry``, or else the settings say.
            timeout: seconds an attempt may take; None: the settings say.

        Raises:
            WrongArgument: ``handler`` cannot be called, ``retry`` is no policy, or ``timeout`` no number.
            TypeError: ``timeout`` is not more than 0.
        """
        given: object = handler
        if not callable(given) or inspect.isclass(given):
            hint = "give the function itself, not what it returns" if inspect.isawaitable(given) else ""
            raise wrong(f"the handler of {self}", given, "a function or an object with __call__", HANDLERS, hint)
        expect(retry, (RetryPolicy, NoneType), f"retry of {self}", "a RetryPolicy", HANDLERS)
        expect(timeout, (int, float, NoneType), f"timeout of {self}", "a number of seconds", HANDLERS)
        if timeout is not None and not timeout > 0:
            raise TypeError(f"{self}: timeout={timeout} is not more than 0 seconds")
        own = getattr(handler, "retry", None)
        # an attribute of that name may be anything: decorators of other libraries leave theirs
        policy = own if retry is None and isinstance(own, RetryPolicy) else retry
        return Binding(self, cast("AnyHandler", handler), policy, timeout)

    def dump(self, payload: T) -> str:
        """Return the payload as JSON text.

        Raises:
            InvalidPayload: it is not of this event's type.
        """
        try:
            valid = self._validator.validate_python(payload)
            return self._checked(self._serializer, valid)
        except (ValidationError, ValueError) as error:
            raise InvalidPayload(f"the payload of {self} is not a valid {self.payload_name}: {error}") from error

    def dump_all(self, payloads: Sequence[T]) -> list[str]:
        """Return each payload as JSON text; many at a third of what they cost one by one.

        Pydantic takes longer to read ``warnings="error"`` than to write a small payload. So all of them are written in
        one call, with a mark between them that nobody can guess, and cut apart there.

        Raises:
            InvalidPayload: one of them is not of this event's type.
        """
        if not payloads:
            return []
        try:
            valid = self._marked.validator.validate_python([(payload, MARK) for payload in payloads])
            text = self._checked(self._marked.serializer, valid)
        except (ValidationError, ValueError):
            return [*map(self.dump, payloads)]  # one by one, so that the error is the guilty one's
        return text[2 : -len(END)].split(BETWEEN)

    def _checked(self, serializer: SchemaSerializer, valid: object) -> str:
        """Write what was validated, and refuse what its readers would find to be something else.

        Pydantic writes NaN and the infinities of a float field as null, so only a text with a null in it is looked at.
        In a field of type Any, which takes anything, the null stays.

        Raises:
            ValueError: the value holds such a number, or a field that is not of its type.
        """
        # a model's instance counts as valid whatever became of its fields; the serializer looks at those
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
        """Whether the payload has a float somewhere, and none of its types says how NaN is to be written."""
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
            CatalogError: pydantic has none for that type.
        """
        try:
            return TypeAdapter(self.payload)
        except PydanticUserError as error:
            reason = str(error).partition("\n")[0]
            fault = f"the payload of {self}, {self.payload_name}, is no type that pydantic can validate: {reason}"
            raise CatalogError([fault]) from error

    # Without the adapter's own methods around them, which take a quarter of the time of a publish's Python.
    @cached_property
    def _validator(self) -> SchemaValidator | PluggableSchemaValidator:
        return self.adapter.validator

    @cached_property
    def _serializer(self) -> SchemaSerializer:
        return self.adapter.serializer

    @property
    def payload_name(self) -> str:
        """What errors call the payload's type."""
        return getattr(self.payload, "__name__", str(self.payload))

    def __eq__(self, other: object) -> bool:
        """Equal by (origen, tipo)."""
        return isinstance(other, EventType) and (self.origen, self.tipo) == (other.origen, other.tipo)

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash((self.origen, self.tipo))

    def __repr__(self) -> str:
        """Say origin and name: ``reserva/reserva.creada``."""
        return f"{self.origen or '(no catalog)'}/{self.tipo}"


class NuevoEvento(NamedTuple, Generic[T]):
    """One event to be published with others by ``publicar_eventos``; a tuple, since there may be a million."""

    tipo: EventType[T]
    payload: T
    clave: str | None = None
    prioridad: int | None = None
    id_externo: str | None = None
    cabeceras: Mapping[str, Any] | None = None


def expect_event(given: object, function: str) -> None:
    """Make sure that what a function was given is an event of a catalog.

    Raises:
        WrongArgument: it is something else.
    """
    if not isinstance(given, EventType):
        wanted = "an EventType of a catalog, as in ReservaEvents.reserva_creada"
        raise wrong(f"the event of {function}", given, wanted, PUBLISHING)


def _fields(payload: object) -> Mapping[str, object]:
    """Return the declared fields of a pydantic model, a dataclass or a TypedDict."""
    for name in ("model_fields", "__dataclass_fields__", "__annotations__"):
        fields = getattr(payload, name, None)
        if fields:
            return cast("Mapping[str, object]", fields)
    return {}


def _check_priority(where: str, prioridad: int | None) -> None:
    if prioridad is not None and not 0 <= prioridad <= 9:  # noqa: PLR2004 - the domain cauce.nivel says the same
        raise TypeError(f"{where}: prioridad={prioridad} is not between 0 (first) and 9 (last)")


class Catalog:
    """The events of one origin; subclass it and declare each once.

    Examples:
        >>> class ReservaEvents(Catalog, origen="reserva"):
        ...     reserva_creada = EventType("reserva.creada", ReservaCreada, clave="reserva_id")
    """

    origen: ClassVar[str]
    prioridad: ClassVar[int]

    def __init_subclass__(cls, *, origen: str, prioridad: int = 5) -> None:
        """Give the events their origin.

        Raises:
            TypeError: the origin is empty, the priority out of range, or an event belongs to another catalog already.
        """
        super().__init_subclass__()
        if not origen:
            raise TypeError(f"{cls.__name__}: origen is empty")
        _check_priority(cls.__name__, prioridad)
        cls.origen, cls.prioridad = origen, prioridad
        for tipo in cls.types():
            if tipo.origen:
                raise TypeError(f"{cls.__name__}: {tipo} belongs to another catalog already")
            tipo.origen = origen
            tipo.prioridad = prioridad if tipo.prioridad is None else tipo.prioridad

    @classmethod
    def types(cls) -> list[EventType[Any]]:
        """Return the events declared here, in order; their payloads differ, hence Any."""
        return [value for value in vars(cls).values() if isinstance(value, EventType)]


class Binding:
    """An event and one handler of it, with the attempts and the time it may have."""

    __slots__ = ("handler", "retry", "timeout", "tipo")

    def __init__(
        self, tipo: EventType[Any], handler: AnyHandler, retry: RetryPolicy | None, timeout: float | None
    ) -> None:
        self.tipo, self.handler, self.retry, self.timeout = tipo, handler, retry, timeout


def _expect_bindings(where: str, bindings: Sequence[object]) -> None:
    wanted = "bindings, one after another: SomeEvents.some_event.handled_by(function), ..."
    for given in bindings:
        expect(given, Binding, f"what {where} holds", wanted, HANDLERS)


class EventHandlers(Mapping[EventType[Any], AnyHandler]):
    """The map ``event_handlers``: each event's dedicated handler.

    Made of bindings, not a dict literal: a literal would silently keep the last of two handlers of one event; here
    ``twice`` names it, and the bus refuses to start.

    Raises:
        WrongArgument: something is no binding.
    """

    def __init__(self, *bindings: Binding) -> None:
        _expect_bindings("EventHandlers", bindings)
        self.bindings = {binding.tipo: binding for binding in reversed(bindings)}
        self.twice = [b.tipo for i, b in enumerate(bindings) if any(b.tipo == c.tipo for c in bindings[:i])]

    def __getitem__(self, tipo: EventType[Any]) -> AnyHandler:
        """Return an event's handler."""
        return self.bindings[tipo].handler

    def __iter__(self) -> Iterator[EventType[Any]]:
        """Go through the events in order."""
        return reversed(self.bindings)

    def __len__(self) -> int:
        """Count the events."""
        return len(self.bindings)


class Subscriber:
    """A named consumer of one or more events, beside their dedicated handlers.

    The name is stored in ``entregas``, so it is given and survives a rename of the function. A subscriber with a group
    of its own (``grupo``) reads the log at its own pace and writes nothing per event.

    Raises:
        WrongArgument: its name or group is no text, or something is no binding.
    """

    def __init__(self, nombre: str, *bindings: Binding, grupo: str = PRINCIPAL) -> None:
        expect(nombre, str, "the name of a Subscriber", "a str", HANDLERS)
        expect(grupo, str, f"grupo of Subscriber {nombre!r}", "a str", HANDLERS)
        _expect_bindings(f"Subscriber {nombre!r}", bindings)
        self.nombre, self.bindings, self.grupo = nombre, bindings, grupo
