"""All events that are still stored, one page after another; each page is a look with a snapshot of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.rows import tuple_row

from cauce import sql
from cauce.database.look import look

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime

    from psycopg import Connection

PAGE: Final = 500
"""Events of one statement; they are read one by one, so that only one payload is in memory."""


class Retained(NamedTuple):
    """A stored event."""

    id: int
    origen: str
    tipo: str
    pedido: bool
    """It is one of those asked for; the contents of others are not read."""
    payload: str | None
    cabeceras: str | None


def ends(conn: Connection[Any]) -> tuple[int, int]:
    """Return the lowest and the highest id; 0 and 0 if no event is stored.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    with look(conn):
        first, last = conn.cursor(row_factory=tuple_row).execute(sql.query("retained_ids")).fetchall()[0]
    return first or 0, last or 0


def retained(
    conn: Connection[Any], *, origen: str | None = None, tipo: str | None = None, since: datetime | None = None
) -> Generator[Retained]:
    """Read the stored events in the order of their ids; writes nothing.

    Args:
        conn: a connection in autocommit.
        origen: read the contents of those of this origin only.
        tipo: of those of this name only.
        since: of those published at this time or later only.

    Raises:
        SchemaError: the tables are missing, older or newer.
        CauceError: a page took longer than ``look.LOOK_SECONDS``.
    """
    wanted: dict[str, object] = {"origen": origen, "tipo": tipo, "desde": since, "limite": PAGE}
    last, count = 0, PAGE
    while count == PAGE:
        count = 0
        with look(conn):
            for row in conn.cursor(row_factory=tuple_row).stream(sql.query("retained"), wanted | {"despues": last}):
                event = Retained._make(row)
                count, last = count + 1, event.id
                yield event
