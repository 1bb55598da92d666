"""Reading what became of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cauce.database.refusals import explaining
from cauce.evento import Estado

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

EVENTOS: Final = """
    select id, origen, tipo, estado, intentos, prioridad, payload, clave, id_externo, procesado_en, ignorado,
           ultimo_error
      from cauce.eventos order by id
"""


class StoredEvent(NamedTuple):
    """A row of ``eventos``: those of its columns that say what it is and how far it has come."""

    id: int
    origen: str
    tipo: str
    estado: Estado
    intentos: int
    prioridad: int
    payload: Any
    """The JSON as Python's own types; whatever the publisher put there, hence Any."""
    clave: str | None
    id_externo: str | None
    procesado_en: datetime | None
    ignorado: bool
    ultimo_error: str | None


def eventos(conn: Connection[Any]) -> list[StoredEvent]:
    """Return all events that the connection can see, in the order of their ids.

    Raises:
        SchemaError: the tables are missing.
    """
    with conn.cursor() as cursor, explaining():
        cursor.execute(EVENTOS)
        stored = [StoredEvent._make(row) for row in cursor]
    return [evento._replace(estado=Estado(evento.estado)) for evento in stored]
