"""A reservation was cancelled: refund what was paid for it."""

from typing import Any

from psycopg import AsyncConnection

from cauce import Evento
from events.types.eventos import ReservaCancelada


async def reserva_cancelada(evento: Evento[ReservaCancelada], tx: AsyncConnection[Any]) -> None:
    """Mark the reservation's payments for refund."""
    await tx.execute("update pagos set devolver = true where reserva_id = %s", [evento.payload.reserva_id])
