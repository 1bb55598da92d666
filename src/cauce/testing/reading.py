"""Reading what became of events."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cauce import sql
from cauce.database.refusals import explaining
from cauce.evento import Estado

if TYPE_CHECKING:
    from psycopg import Connection


class StoredEvent(NamedTuple):
    """A row of ``eventos``: the columns that tests need most."""

    id: int
    """The event's number."""
    origen: str
    """The event's origin."""
    tipo: str
    """The event's name."""
    estado: Estado
    """The event's state in the group ``principal``."""
    intentos: int
    """Attempts of the event's own handler."""
    prioridad: int
    """From 0 (first) to 9 (last)."""
    payload: Any
    """The payload's JSON, as Python reads it."""
    clave: str | None
    """The event's key."""
    id_externo: str | None
    """The event's id at its origin."""
    procesado_en: datetime | None
    """When the event was processed."""
    ignorado: bool
    """Whether no handler and no subscriber existed for the event."""
    ultimo_error: str | None
    """The last failure of the event's own handler."""


def eventos(conn: Connection[Any]) -> list[StoredEvent]:
    """Return all events that the connection can see, in the order of their ids.

    Args:
        conn: a connection to the database of the test.

    Raises:
        SchemaError: the tables are missing.
    """
    with conn.cursor() as cursor, explaining():
        cursor.execute(sql.query("testing/events"))
        stored = [StoredEvent._make(row) for row in cursor]
    return [evento._replace(estado=Estado(evento.estado)) for evento in stored]
