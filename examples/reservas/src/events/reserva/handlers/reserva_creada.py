"""A reservation is confirmed: give the guest a code."""

import secrets
from typing import Any

from psycopg import AsyncConnection

from cauce import Evento
from events.types.eventos import ReservaCreada


async def reserva_creada(evento: Evento[ReservaCreada], tx: AsyncConnection[Any]) -> None:
    """Give the reservation its code. A duplicate code is an error, and the next attempt draws another."""
    await tx.execute(
        "update reservas set localizador = %s where id = %s and localizador is null",
        [secrets.token_hex(4).upper(), evento.payload.reserva_id],
    )
