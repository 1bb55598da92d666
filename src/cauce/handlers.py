"""The shape of a handler: async or sync, and its second parameter."""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
from dataclasses import dataclass
from enum import StrEnum
from types import SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, Connection

from cauce.evento import Evento
from cauce.outcome import Attempt
from cauce.transactions import ONLY_TYPED, Orm, orm_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cauce.catalog import AnyHandler, EventType


class Takes(StrEnum):
    """The second parameter of a handler."""

    NOTHING = "nothing"
    TX = "tx"
    ATTEMPT = "attempt"


@dataclass(frozen=True, slots=True)
class Shape:
    """How to call a handler."""

    is_async: bool
    takes: Takes
    orm: Orm | None = None
    """What ``tx`` is, unless it is psycopg's connection."""


def shape_of(handler: AnyHandler) -> Shape:
    """Read a handler's shape from its signature.

    The second parameter is recognized by its annotation, or by its name (``tx``, ``attempt``) if annotations cannot be
    resolved at run time.

    Raises:
        TypeError: its parameters are not (evento), (evento, tx) or (evento, attempt), a sync handler asks for an async
            connection or session or an async handler for a sync one, ``tx`` is annotated with a class that cannot be
            in the bus's transaction, or it is a generator, which a call would not run.
    """
    if any(asks(_body(handler)) for asks in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)):
        raise TypeError("is a generator, so calling it would not run its body; remove the yield")
    is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004 - asked for the method, not whether it is callable
    parameters = _parameters(handler)
    if named := _only_named(handler):
        raise TypeError(f"takes {', '.join(named)} by name only; handlers are called with positional arguments")
    if len(parameters) == 1:
        return Shape(is_async, Takes.NOTHING)
    if len(parameters) != 2:  # noqa: PLR2004 - the event and one more
        raise TypeError(f"takes {len(parameters)} parameters; give it (evento), (evento, tx) or (evento, attempt)")
    second = parameters[1]
    hint, extras = _without_extras(_hints(handler).get(second.name))
    kind = typing.get_origin(hint) or hint
    if kind is None:
        _refuse_only_typed(second)
    if kind is Attempt or (kind is None and second.name == "attempt"):
        return Shape(is_async, Takes.ATTEMPT)
    if kind in (AsyncConnection, Connection) or (kind is None and second.name == "tx"):
        if kind is (Connection if is_async else AsyncConnection):
            wanted = "AsyncConnection" if is_async else "Connection"
            raise TypeError(f"is {'async' if is_async else 'sync'}: its {second.name} must be a psycopg.{wanted}")
        return Shape(is_async, Takes.TX)
    return Shape(is_async, Takes.TX, orm_of(kind, extras, is_async=is_async, parameter=second.name))


def shape_for(handler: AnyHandler, tipo: EventType[Any]) -> Shape:
    """Read the shape of a handler that an event is bound to.

    Raises:
        TypeError: as for ``shape_of``, or the handler is annotated with another payload type.
    """
    shape = shape_of(handler)
    if not takes_payload(handler, tipo):
        wanted = getattr(tipo.payload, "__name__", repr(tipo.payload))
        raise TypeError(f"is annotated for another payload: its first parameter must be an Evento[{wanted}]")
    return shape


def takes_payload(handler: AnyHandler, tipo: EventType[Any]) -> bool:
    """Whether the handler's annotation accepts the event's payload; True if the annotation cannot be read."""
    parameters = _parameters(handler)
    hint, _ = _without_extras(_hints(handler).get(parameters[0].name) if parameters else None)
    if hint is None:
        return True
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    return any(_admits(option, tipo.payload) for option in options)


def place_of(handler: AnyHandler) -> tuple[str, str]:
    """Return a handler's name, and its file and line in parentheses, or "" if they are not known."""
    body = inspect.unwrap(_body(handler))
    name = getattr(handler, "__qualname__", "") or getattr(body, "__qualname__", repr(handler))
    code = getattr(body, "__code__", None)
    return name, f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""


def _admits(option: object, payload: object) -> bool:
    if option is Any or option is Evento:
        return True
    if typing.get_origin(option) is not Evento:
        return False
    (argument,) = typing.get_args(option)
    return argument in (Any, payload) or isinstance(argument, typing.TypeVar)


def _body(handler: AnyHandler) -> AnyHandler:
    """Return the function that a call of the handler runs."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004 - asked for the method, not whether it is callable


def _parameters(handler: AnyHandler) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(handler)
    except ValueError:
        raise TypeError("has no signature that Python can read; wrap it in a function of your own") from None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in signature.parameters.values() if p.kind in kinds and p.default is inspect.Parameter.empty]


def _only_named(handler: AnyHandler) -> list[str]:
    """Return the required keyword-only parameters."""
    required = (p for p in inspect.signature(handler).parameters.values() if p.default is inspect.Parameter.empty)
    return [p.name for p in required if p.kind is inspect.Parameter.KEYWORD_ONLY]


def _hints(handler: AnyHandler) -> Mapping[str, Any]:
    """Resolve annotations; leave out those with a name that exists only for type checkers."""
    body = _body(handler)
    try:
        return typing.get_type_hints(body, include_extras=True)
    except (NameError, TypeError):
        pass
    hints: dict[str, Any] = {}
    names = getattr(inspect.unwrap(body), "__globals__", {})
    for name, annotation in getattr(body, "__annotations__", {}).items():
        alone = SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(NameError, TypeError):
            hints |= typing.get_type_hints(alone, names, include_extras=True)
    return hints


def _without_extras(hint: object) -> tuple[Any, tuple[object, ...]]:
    """Take ``Annotated`` apart."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, ()
    annotated, *extras = typing.get_args(hint)
    return annotated, tuple(extras)


def _refuse_only_typed(parameter: inspect.Parameter) -> None:
    """Refuse an ORM's session whose class is imported for type checkers alone.

    Raises:
        TypeError: the bus could not make one.
    """
    annotation = parameter.annotation
    if isinstance(annotation, str) and annotation.rpartition(".")[2] in ONLY_TYPED:
        raise TypeError(
            f"has a parameter {parameter.name!r}, annotated {annotation}, and that name does not exist at run time:"
            " import it outside `if TYPE_CHECKING:`, so that the bus can make one"
        )
