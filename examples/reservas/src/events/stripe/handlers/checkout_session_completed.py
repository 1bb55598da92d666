"""A customer has paid with Stripe: confirm the reservation."""

from typing import Any

from psycopg import AsyncConnection

from cauce import Discard, Evento, publicar_evento
from cauce.stripe import StripeEvent
from events.types.eventos import CheckoutSession, ReservaCreada, ReservaEvents


async def checkout_session_completed(evento: Evento[StripeEvent[CheckoutSession]], tx: AsyncConnection[Any]) -> None:
    """Mark the reservation as paid and publish that it is confirmed, in one transaction."""
    session = evento.payload.data.object
    if session.payment_status == "unpaid":
        return  # a bank transfer on its way
    cursor = await tx.execute(
        "update reservas set estado = 'pagada' where id = %s and estado = 'pendiente' returning id, cliente, correo",
        [session.client_reference_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise Discard(f"session {session.id} pays {session.client_reference_id}, which waits for no payment")
    reserva_id, cliente, correo = row
    await publicar_evento(
        tx, ReservaEvents.reserva_creada, ReservaCreada(reserva_id=reserva_id, cliente=cliente, correo=correo)
    )
