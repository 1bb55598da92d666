"""The typed catalog: each event's name, the type of its payload, and the bindings of handlers to it.

``EventType`` is invariant in its payload on purpose: type checkers would accept a wrong payload if it were covariant.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from cauce.arguments import FIRST_STEPS, HANDLERS, PUBLISHING, expect, wrong
from cauce.payloads import PayloadType
from cauce.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeAlias

    from psycopg import AsyncConnection, Connection

    from cauce.evento import Evento
    from cauce.outcome import Attempt
    from cauce.transactions import AsyncOrm, SyncOrm

PRINCIPAL = "principal"
"""The consumer group of the catalog's handlers; the only group that updates an event's ``estado``."""
MANEJADOR = "manejador"
"""The subscriber name of an event's own handler in stored deliveries."""
TODOS = "*"
"""Stands for every subscriber of a group in a stored delivery."""

T = TypeVar("T")

if TYPE_CHECKING:
    # Any: psycopg's connections are generic over the row type, which each handler chooses. A session's class is a type
    # variable: a function that takes a Session would not take whatever fits a protocol.
    Handler: TypeAlias = (
        Callable[[Evento[T]], Awaitable[None]]
        | Callable[[Evento[T], AsyncConnection[Any]], Awaitable[None]]
        | Callable[[Evento[T], Attempt], Awaitable[None]]
        | Callable[[Evento[T]], None]
        | Callable[[Evento[T], Connection[Any]], None]
        | Callable[[Evento[T], Attempt], None]
        | Callable[[Evento[T], AsyncOrm], Awaitable[None]]
        | Callable[[Evento[T], SyncOrm], None]
    )
AnyHandler = Callable[..., Any]
"""A handler whose payload type has been checked already."""


class EventType(PayloadType[T]):
    """An event of a catalog: its name and the type of its payload, which may be any type that pydantic validates.

    Args:
        tipo: the event's name, at most 255 characters.
        payload: the payload's type. For Stripe it is ``StripeEvent[...]``: the payload is the whole Stripe event.
        clave: the name of the payload's field that holds the event's key, which is stored in the column ``clave``.
        prioridad: from 0 (first) to 9 (last); by default that of the catalog that declares the event.
        version: the version of the payload's type. It grows with each change that stored events do not fit, and has an
            ``upcast`` function from each earlier version.

    Raises:
        WrongArgument: the name is not a str, or the version is not a whole number from 1 to 32767.
        TypeError: ``clave`` is not a field of the payload, or the priority is out of range.
    """

    origen: str = ""
    """Set by the catalog that declares the event; empty in a type that no catalog declares."""

    def __init__(
        self, tipo: str, payload: type[T], *, clave: str | None = None, prioridad: int | None = None, version: int = 1
    ) -> None:
        expect(tipo, str, "the name of an EventType", "a str, as in EventType('reserva.creada', Reserva)", FIRST_STEPS)
        if clave is not None and clave not in _fields(payload):
            raise TypeError(f"{tipo}: clave={clave!r} is not a field of {getattr(payload, '__name__', payload)}")
        _check_priority(tipo, prioridad)
        self.tipo, self.clave, self.prioridad = tipo, clave, prioridad
        super().__init__(payload, version)

    def handled_by(
        self,
        handler: Handler[T, AsyncOrm, SyncOrm],
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Binding:
        """Bind a handler to this event. Type checkers and the bus check that the handler takes this event's payload.

        Args:
            handler: ``(evento)``, ``(evento, tx)`` or ``(evento, attempt)``, async or sync.
            retry: how often and after what delays a failed delivery is retried. By default the handler's attribute
                ``retry``, or else the settings.
            timeout: seconds that an attempt may take; by default the setting ``handler_timeout_seconds``.

        Raises:
            WrongArgument: ``handler`` is not callable, ``retry`` is not a ``RetryPolicy``, or ``timeout`` is not a
                number.
            TypeError: ``timeout`` is 0 or negative.
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
        # decorators of other libraries may set an attribute of the same name
        policy = own if retry is None and isinstance(own, RetryPolicy) else retry
        return Binding(self, cast("AnyHandler", handler), policy, timeout)

    def __eq__(self, other: object) -> bool:
        """Equal by (origen, tipo)."""
        return isinstance(other, EventType) and (self.origen, self.tipo) == (other.origen, other.tipo)

    def __hash__(self) -> int:
        """Hash (origen, tipo), as equality compares."""
        return hash((self.origen, self.tipo))

    def __repr__(self) -> str:
        """Return origin and name: ``reserva/reserva.creada``."""
        return f"{self.origen or '(no catalog)'}/{self.tipo}"


class NuevoEvento(NamedTuple, Generic[T]):
    """One event to publish with ``publicar_eventos``. It is a tuple because there may be a million."""

    tipo: EventType[T]
    """The event, from a catalog."""
    payload: T
    """A value of the event's payload type."""
    clave: str | None = None
    """The event's key, at most 500 characters; by default the payload's field that the catalog names."""
    prioridad: int | None = None
    """From 0 (first) to 9 (last); by default the catalog's."""
    id_externo: str | None = None
    """An id that is unique in the event's origin, at most 500 characters. A known id is not stored again."""
    cabeceras: Mapping[str, Any] | None = None
    """Headers: any JSON object."""


def expect_event(given: object, function: str) -> None:
    """Check that an argument is an ``EventType``.

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
    """The events of one origin; subclass it and declare each event once.

    Args:
        origen: the name of the origin, such as ``stripe`` or a part of the application.
        prioridad: from 0 (first) to 9 (last), for the events that declare none.

    Examples:
        >>> class ReservaEvents(Catalog, origen="reserva"):
        ...     reserva_creada = EventType("reserva.creada", ReservaCreada, clave="reserva_id")
    """

    origen: ClassVar[str]
    prioridad: ClassVar[int]

    def __init_subclass__(cls, *, origen: str, prioridad: int = 5) -> None:
        """Set the origin, and the default priority, of the declared events.

        Args:
            origen: the origin of all events of the catalog.
            prioridad: from 0 (first) to 9 (last), of events that declare none.

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
        """Return the declared events, in order."""
        return [value for value in vars(cls).values() if isinstance(value, EventType)]


class Binding:
    """An event and one of its handlers, with the handler's retry policy and timeout."""

    __slots__ = ("handler", "retry", "timeout", "tipo")

    def __init__(
        self, tipo: EventType[Any], handler: AnyHandler, retry: RetryPolicy | None, timeout: float | None
    ) -> None:
        self.tipo, self.handler, self.retry, self.timeout = tipo, handler, retry, timeout


def _expect_bindings(where: str, bindings: Sequence[object]) -> None:
    wanted = "a binding: SomeEvents.some_event.handled_by(function)"
    for given in bindings:
        expect(given, Binding, f"an argument of {where}", wanted, HANDLERS)


class EventHandlers(Mapping[EventType[Any], AnyHandler]):
    """The mapping from each event to its handler.

    It is made of bindings because a dict literal would silently keep the last of two handlers of one event. Here
    ``twice`` lists such events, and the bus refuses to start.

    Args:
        bindings: one for each event, made by ``handled_by``.

    Raises:
        WrongArgument: an argument is not a binding.
    """

    def __init__(self, *bindings: Binding) -> None:
        _expect_bindings("EventHandlers", bindings)
        self.bindings = {binding.tipo: binding for binding in reversed(bindings)}
        self.twice = [b.tipo for i, b in enumerate(bindings) if any(b.tipo == c.tipo for c in bindings[:i])]

    def __getitem__(self, tipo: EventType[Any]) -> AnyHandler:
        """Return an event's handler."""
        return self.bindings[tipo].handler

    def __iter__(self) -> Iterator[EventType[Any]]:
        """Iterate over the events in order."""
        return reversed(self.bindings)

    def __len__(self) -> int:
        """Count the events."""
        return len(self.bindings)


class Subscriber:
    """A named consumer of one or more events, in addition to their handlers.

    Args:
        nombre: the subscriber's name, unique in the bus. Deliveries are stored under it, so it stays the same when the
            function is renamed.
        bindings: one for each event, made by ``handled_by``.
        grupo: its consumer group. Subscribers of another group than ``principal`` read the log at their own pace,
            and a successful delivery writes no row.

    Raises:
        WrongArgument: its name or group is not a str, or an argument is not a binding.
    """

    def __init__(self, nombre: str, *bindings: Binding, grupo: str = PRINCIPAL) -> None:
        expect(nombre, str, "the name of a Subscriber", "a str", HANDLERS)
        expect(grupo, str, f"grupo of Subscriber {nombre!r}", "a str", HANDLERS)
        _expect_bindings(f"Subscriber {nombre!r}", bindings)
        self.nombre, self.bindings, self.grupo = nombre, bindings, grupo
