"""What type checkers must refuse: a marked line must be an error for mypy --strict and for pyright."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

import sqlite3
from typing import Any

import sqlalchemy as sa
import sqlalchemy.ext.asyncio as sa_async
from psycopg import AsyncConnection, Connection, Cursor
from psycopg_pool import ConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from cauce import Attempt, Catalog, Evento, EventType, NuevoEvento, Subscriber, publicar_evento, publicar_eventos
from cauce.testing import call, call_async
from tests.typing.right import (
    CheckoutSession,
    OfAsyncpg,
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
ReservaEvents.reserva_creada.handled_by(sync_with_async_tx)  # type: ignore[type-var]
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


async def publish_with_libraries(session: Session, asession: AsyncSession, other: OfAsyncpg) -> None:
    """The same mistakes on sessions; and what no transaction runs on."""
    checkout, creada = CheckoutSession(id="x"), ReservaCreada(reserva_id=1)
    publicar_evento(session, ReservaEvents.reserva_creada, checkout)  # type: ignore[misc]
    await publicar_evento(session, ReservaEvents.reserva_creada, creada)  # type: ignore[misc]
    publicar_evento(asession, ReservaEvents.reserva_creada, creada)  # type: ignore[unused-coroutine]
    publicar_eventos(asession, [NuevoEvento(ReservaEvents.reserva_creada, creada)])  # type: ignore[unused-coroutine]
    await publicar_evento(asession, ReservaEvents.reserva_creada, checkout)  # type: ignore[misc]
    publicar_evento(other, ReservaEvents.reserva_creada, creada)  # type: ignore[unused-coroutine]
    await publicar_evento(other, ReservaEvents.reserva_creada, checkout)  # type: ignore[misc]


def publish_on_what_is_no_connection(
    engine: sa.Engine,
    async_engine: sa_async.AsyncEngine,
    maker: sessionmaker[Session],
    pool: ConnectionPool,
    cursor: Cursor[Any],
    lite: sqlite3.Connection,
) -> None:
    """Engines, factories, pools, cursors, other databases."""
    creada = ReservaCreada(reserva_id=1)
    publicar_evento(engine, ReservaEvents.reserva_creada, creada)  # type: ignore[call-overload]
    publicar_evento(async_engine, ReservaEvents.reserva_creada, creada)  # type: ignore[call-overload]
    publicar_evento(maker, ReservaEvents.reserva_creada, creada)  # type: ignore[call-overload]
    publicar_evento(pool, ReservaEvents.reserva_creada, creada)  # type: ignore[call-overload]
    publicar_evento(cursor, ReservaEvents.reserva_creada, creada)  # type: ignore[call-overload]
    publicar_evento(lite, ReservaEvents.reserva_creada, creada)  # type: ignore[call-overload]
    publicar_evento("postgresql://", ReservaEvents.reserva_creada, creada)  # type: ignore[call-overload]
    publicar_eventos(engine, [NuevoEvento(ReservaEvents.reserva_creada, creada)])  # type: ignore[call-overload]


async def test(conn: Connection[Any], aconn: AsyncConnection[Any]) -> None:
    """A handler called alone gets its own payload, on the kind of connection that the function takes."""
    session, creada = CheckoutSession(id="x"), ReservaCreada(reserva_id=1)
    call(reserva_creada, session)  # type: ignore[arg-type]
    call(sync_tx, creada, tx=aconn)  # type: ignore[arg-type]
    await call_async(sync_tx, creada, tx=conn)  # type: ignore[arg-type]
    call_async(reserva_creada, creada)  # type: ignore[unused-coroutine]


@ReservaEvents.reserva_creada.upcast("1")  # type: ignore[arg-type]
def by_name(payload: dict[str, Any]) -> dict[str, Any]:
    """Take a version that is no number."""
    return payload


@ReservaEvents.reserva_creada.upcast(1)  # type: ignore[type-var]
def of_nothing() -> dict[str, Any]:
    """Take no payload."""
    return {}


EventType("reserva.fechada", ReservaCreada, version="2")  # type: ignore[arg-type]
