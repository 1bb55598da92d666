"""A reservation is no more: what was paid for it goes back."""

from typing import Any

from psycopg import AsyncConnection

from cauce import Evento
from events.types.eventos import ReservaCancelada


async def reserva_cancelada(evento: Evento[ReservaCancelada], tx: AsyncConnection[Any]) -> None:
    """Mark the reservation's payments to be given back."""
    await tx.execute("update pagos set devolver = true where reserva_id = %s", [evento.payload.reserva_id])
