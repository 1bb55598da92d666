"""Which event is being handled: what publishing in Python knows of the cause of a new event.

A worker says so before it calls a handler. It is a context variable, so it holds for the handler, for what it awaits,
for the tasks it creates and for ``asyncio.to_thread``. A thread that a handler starts by other means has an empty
context: what it publishes has no cause, unless ``contextvars.copy_context().run`` runs it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from cauce.evento import Evento

_HANDLED: Final[ContextVar[Evento[Any] | None]] = ContextVar("cauce_evento", default=None)


class Lineage(NamedTuple):
    """What a new event stores of its cause; both are None outside handlers."""

    causa: int | None
    """The event whose handler publishes it."""
    correlacion: int | None
    """The root of their family."""


NOTHING: Final = Lineage(None, None)


def current() -> Lineage:
    """Return the cause of what is published here and now."""
    evento = _HANDLED.get()
    return NOTHING if evento is None else lineage_of(evento)


def lineage_of(evento: Evento[Any]) -> Lineage:
    """Return the cause of what the handler of an event publishes."""
    return Lineage(evento.id, evento.id if evento.correlacion is None else evento.correlacion)


handling: Final = _HANDLED.set
"""Say which event the code that follows in this context handles."""
