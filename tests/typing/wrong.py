"""What type checkers must refuse: a marked line must be an error for mypy --strict and for pyright."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any

from psycopg import AsyncConnection, Connection

from cauce import Attempt, Catalog, Evento, EventType, NuevoEvento, Subscriber, publicar_evento, publicar_eventos
from cauce.testing import call, call_async
from tests.typing.right import (
    CheckoutSession,
    ReservaCreada,
    ReservaEvents,
    StripeEvents,
    checkout_session_completed,
    reserva_creada,
    sync_tx,
)


class Untyped(Catalog, origen="untyped"):
    """An event without a type."""

    sin_tipo = EventType("untyped.sin_tipo")  # type: ignore[call-arg, var-annotated]


class SinOrigen(Catalog):  # type: ignore[call-arg]
    """A catalog without an origin."""


async def the_object_alone(evento: Evento[CheckoutSession]) -> None:
    """The payload is the whole Stripe event, not the object inside."""


def sync_with_async_tx(evento: Evento[ReservaCreada], tx: AsyncConnection[Any]) -> None:
    """A sync handler cannot await its tx."""


async def extra(evento: Evento[ReservaCreada], tx: AsyncConnection[Any], attempt: Attempt) -> None:
    """Takes more than there is."""


async def no_event() -> None:
    """Takes nothing."""


StripeEvents.checkout_session_completed.handled_by(reserva_creada)  # type: ignore[arg-type]
StripeEvents.checkout_session_completed.handled_by(sync_tx)  # type: ignore[arg-type]
StripeEvents.checkout_session_completed.handled_by(the_object_alone)  # type: ignore[arg-type]
ReservaEvents.reserva_creada.handled_by(sync_with_async_tx)  # type: ignore[arg-type]
ReservaEvents.reserva_creada.handled_by(extra)  # type: ignore[arg-type]
ReservaEvents.reserva_creada.handled_by(no_event)  # type: ignore[arg-type]
Subscriber("x", ReservaEvents.reserva_creada.handled_by(checkout_session_completed))  # type: ignore[arg-type]


async def publish(conn: Connection[Any], aconn: AsyncConnection[Any]) -> None:
    """Payloads of other events, forgotten awaits, misplaced ones."""
    session, creada = CheckoutSession(id="x"), ReservaCreada(reserva_id=1)
    publicar_evento(conn, ReservaEvents.reserva_creada, session)  # type: ignore[misc]
    publicar_evento(conn, ReservaEvents.reserva_creada, {"reserva_id": 1})  # type: ignore[misc]
    publicar_evento(aconn, ReservaEvents.reserva_creada, creada)  # type: ignore[unused-coroutine]
    await publicar_evento(conn, ReservaEvents.reserva_creada, creada)  # type: ignore[misc]
    publicar_eventos(aconn, [NuevoEvento(ReservaEvents.reserva_creada, creada)])  # type: ignore[unused-coroutine]
    NuevoEvento(ReservaEvents.reserva_creada, session)  # type: ignore[misc]


async def test(conn: Connection[Any], aconn: AsyncConnection[Any]) -> None:
    """A handler called alone gets its own payload, on the kind of connection that the function takes."""
    session, creada = CheckoutSession(id="x"), ReservaCreada(reserva_id=1)
    call(reserva_creada, session)  # type: ignore[arg-type]
    call(sync_tx, creada, tx=aconn)  # type: ignore[arg-type]
    await call_async(sync_tx, creada, tx=conn)  # type: ignore[arg-type]
    call_async(reserva_creada, creada)  # type: ignore[unused-coroutine]
