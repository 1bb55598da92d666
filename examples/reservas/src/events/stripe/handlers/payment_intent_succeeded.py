"""Money has come in: keep a record of it."""

from typing import Any

from psycopg import Connection

from cauce import Evento
from cauce.stripe import StripeEvent
from events.types.eventos import PaymentIntent


def payment_intent_succeeded(evento: Evento[StripeEvent[PaymentIntent]], tx: Connection[Any]) -> None:
    """Record the payment; a handler may be sync, and runs in a thread then, inside the same transaction."""
    payment = evento.payload.data.object
    tx.execute(
        "insert into pagos (payment_intent, reserva_id, importe, moneda) values (%s, %s, %s, %s)"
        " on conflict do nothing",
        [payment.id, payment.metadata.get("reserva_id"), payment.amount_received, payment.currency],
    )
