"""A payment has succeeded: record it."""

from typing import Any

from psycopg import Connection

from cauce import Evento
from cauce.stripe import StripeEvent
from events.types.eventos import PaymentIntent


def payment_intent_succeeded(evento: Evento[StripeEvent[PaymentIntent]], tx: Connection[Any]) -> None:
    """Record the payment. This handler is sync, so it runs in a thread, inside the settling transaction."""
    payment = evento.payload.data.object
    tx.execute(
        "insert into pagos (payment_intent, reserva_id, importe, moneda) values (%s, %s, %s, %s)"
        " on conflict do nothing",
        [payment.id, payment.metadata.get("reserva_id"), payment.amount_received, payment.currency],
    )
