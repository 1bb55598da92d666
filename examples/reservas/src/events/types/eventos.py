"""The catalog: every event's name once, with the type of its payload.

Each name is an ``EventType`` of its own payload.
"""

from pydantic import BaseModel, Field

from cauce import Catalog, EventType
from cauce.stripe import StripeEvent


class CheckoutSession(BaseModel):
    """The fields of Stripe's session that we use (https://docs.stripe.com/api/checkout/sessions/object)."""

    id: str
    payment_status: str
    client_reference_id: int | None = None
    """The reservation's id, which we give Stripe when the customer goes there to pay."""


class PaymentIntent(BaseModel):
    """The fields of Stripe's payment that we use (https://docs.stripe.com/api/payment_intents/object)."""

    id: str
    amount_received: int
    """Cents."""
    currency: str
    metadata: dict[str, str] = Field(default_factory=dict)
    """Has ``reserva_id`` if the payment is for a reservation."""


class ReservaCreada(BaseModel):
    """A reservation is confirmed: it is paid."""

    reserva_id: int
    cliente: str
    correo: str


class ReservaCancelada(BaseModel):
    """A reservation was cancelled."""

    reserva_id: int
    correo: str
    motivo: str


class StripeEvents(Catalog, origen="stripe", prioridad=0):
    """Stripe's events. They come before all others, because somebody has paid."""

    checkout_session_completed = EventType("checkout.session.completed", StripeEvent[CheckoutSession])
    payment_intent_succeeded = EventType("payment_intent.succeeded", StripeEvent[PaymentIntent])


class ReservaEvents(Catalog, origen="reserva"):
    """What happens to our reservations."""

    reserva_creada = EventType("reserva.creada", ReservaCreada, clave="reserva_id")
    reserva_cancelada = EventType("reserva.cancelada", ReservaCancelada, clave="reserva_id")
