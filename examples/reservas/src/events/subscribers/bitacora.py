"""The log book: one line for each event of any type."""

from typing import Any

from psycopg import AsyncConnection

from cauce import Evento


async def bitacora(evento: Evento[Any], tx: AsyncConnection[Any]) -> None:
    """Write the line in the settling transaction: exactly once, even if the event is delivered again."""
    nota = f"{evento.origen}: {evento.tipo}"
    if evento.clave is not None:
        nota += f" ({evento.clave})"
    await tx.execute("insert into bitacora (evento, nota) values (%s, %s)", [evento.id, nota])
