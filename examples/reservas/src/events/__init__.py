"""The map: the handler and the subscribers of each event."""

from cauce import Bus, EventHandlers, Subscriber
from events.reserva.handlers.reserva_cancelada import reserva_cancelada
from events.reserva.handlers.reserva_creada import reserva_creada
from events.stripe.handlers.checkout_session_completed import checkout_session_completed
from events.stripe.handlers.payment_intent_succeeded import payment_intent_succeeded
from events.subscribers.bitacora import bitacora
from events.subscribers.correo import correo
from events.types.eventos import ReservaEvents, StripeEvents

event_handlers = EventHandlers(
    StripeEvents.checkout_session_completed.handled_by(checkout_session_completed),
    StripeEvents.payment_intent_succeeded.handled_by(payment_intent_succeeded),
    ReservaEvents.reserva_creada.handled_by(reserva_creada),
    ReservaEvents.reserva_cancelada.handled_by(reserva_cancelada),
)

subscribers = [
    Subscriber(
        "bitacora",
        StripeEvents.checkout_session_completed.handled_by(bitacora),
        StripeEvents.payment_intent_succeeded.handled_by(bitacora),
        ReservaEvents.reserva_creada.handled_by(bitacora),
        ReservaEvents.reserva_cancelada.handled_by(bitacora),
    ),
    Subscriber(
        "correo",
        ReservaEvents.reserva_creada.handled_by(correo),
        ReservaEvents.reserva_cancelada.handled_by(correo),
    ),
]

bus = Bus(catalogs=[StripeEvents, ReservaEvents], event_handlers=event_handlers, subscribers=subscribers)
