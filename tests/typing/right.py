"""What type checkers infer of the public face: every payload's type, through catalog, handlers and publishing."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any, Protocol, assert_type

import sqlalchemy as sa
import sqlalchemy.ext.asyncio as sa_async
import sqlmodel
import sqlmodel.ext.asyncio.session as sqlmodel_async
from psycopg import AsyncConnection, Connection
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from cauce import (
    Attempt,
    Bus,
    Catalog,
    EventHandlers,
    Evento,
    EventType,
    NuevoEvento,
    RetryPolicy,
    Settings,
    Subscriber,
    publicar_evento,
    publicar_eventos,
)
from cauce.stripe import StripeEvent
from cauce.testing import call, call_async, drain, drain_async, eventos, wait_for, wait_for_async


class CheckoutSession(BaseModel):
    """The object inside a Stripe event."""

    id: str


class ReservaCreada(BaseModel):
    """A payload of our own."""

    reserva_id: int


class StripeEvents(Catalog, origen="stripe", prioridad=0):
    """Stripe's."""

    checkout_session_completed = EventType("checkout.session.completed", StripeEvent[CheckoutSession])


class ReservaEvents(Catalog, origen="reserva"):
    """Ours."""

    reserva_creada = EventType("reserva.creada", ReservaCreada, clave="reserva_id")
    notas = EventType("reserva.notas", dict[str, int])


async def checkout_session_completed(
    evento: Evento[StripeEvent[CheckoutSession]], tx: AsyncConnection[tuple[Any, ...]]
) -> None:
    """Async, with tx."""
    assert_type(evento.payload.data.object, CheckoutSession)
    assert_type(await publicar_evento(tx, ReservaEvents.reserva_creada, ReservaCreada(reserva_id=1)), int)


async def reserva_creada(evento: Evento[ReservaCreada], attempt: Attempt) -> None:
    """Async, with attempt."""
    assert_type(evento.payload.reserva_id, int)
    assert_type(attempt.idempotency_key, str)


def sync_tx(evento: Evento[ReservaCreada], tx: Connection[Any]) -> None:
    """Sync, with tx."""


def sync_attempt(evento: Evento[ReservaCreada], attempt: Attempt) -> None:
    """Sync, with attempt."""


def sync_plain(evento: Evento[ReservaCreada]) -> None:
    """Sync, alone."""


async def bitacora(evento: Evento[ReservaCreada] | Evento[StripeEvent[CheckoutSession]]) -> None:
    """Two payloads."""


async def whatever(evento: Evento[Any], tx: AsyncConnection[Any]) -> None:
    """Every payload."""


async def notas(evento: Evento[dict[str, int]]) -> None:
    """A payload that is no model."""


assert_type(StripeEvents.checkout_session_completed, EventType[StripeEvent[CheckoutSession]])
assert_type(ReservaEvents.reserva_creada, EventType[ReservaCreada])
assert_type(ReservaEvents.notas, EventType[dict[str, int]])

event_handlers = EventHandlers(
    StripeEvents.checkout_session_completed.handled_by(checkout_session_completed),
    ReservaEvents.reserva_creada.handled_by(reserva_creada, retry=RetryPolicy(max_attempts=3), timeout=5),
    ReservaEvents.notas.handled_by(notas),
)
subscribers = [
    Subscriber(
        "bitacora",
        ReservaEvents.reserva_creada.handled_by(bitacora),
        StripeEvents.checkout_session_completed.handled_by(bitacora),
    ),
    Subscriber("todo", ReservaEvents.notas.handled_by(whatever), ReservaEvents.reserva_creada.handled_by(whatever)),
    Subscriber("analytics", ReservaEvents.reserva_creada.handled_by(sync_tx), grupo="analytics"),
    Subscriber("otra", ReservaEvents.reserva_creada.handled_by(sync_attempt), grupo="otro"),
    Subscriber("plana", ReservaEvents.reserva_creada.handled_by(sync_plain), grupo="otro"),
]
bus = Bus(catalogs=[StripeEvents, ReservaEvents], event_handlers=event_handlers, subscribers=subscribers)


async def publish(conn: Connection[Any], aconn: AsyncConnection[Any]) -> None:
    """A sync connection returns, an async one is awaited."""
    creada = ReservaCreada(reserva_id=1)
    nuevos: list[NuevoEvento[Any]] = [
        NuevoEvento(ReservaEvents.reserva_creada, creada),
        NuevoEvento(ReservaEvents.notas, {"a": 1}),
    ]
    assert_type(publicar_evento(conn, ReservaEvents.reserva_creada, creada), int)
    assert_type(await publicar_evento(aconn, ReservaEvents.notas, {"a": 1}), int)
    assert_type(publicar_eventos(conn, nuevos), list[int])
    assert_type(await publicar_eventos(aconn, nuevos), list[int])


class OfPsycopg2(Protocol):
    """What the stubs of psycopg2 say of a connection; it has no types of its own."""

    autocommit: bool

    def commit(self) -> None: ...  # noqa: D102 - the stubs'
    def rollback(self) -> None: ...  # noqa: D102 - the stubs'
    def cursor(self, name: str | None = None) -> Any: ...  # noqa: D102 - the stubs'
    def get_transaction_status(self) -> int: ...  # noqa: D102 - the stubs'


class OfDjango(Protocol):
    """What the stubs of Django say of a connection."""

    in_atomic_block: bool
    autocommit: bool

    def commit(self) -> None: ...  # noqa: D102 - the stubs'
    def get_autocommit(self) -> bool: ...  # noqa: D102 - the stubs'


class OfAsyncpg(Protocol):
    """What the stubs of asyncpg say of a connection, and of a pool's proxy."""

    async def fetchval(self, query: str, *args: object) -> Any: ...  # noqa: D102 - the stubs'
    def is_in_transaction(self) -> bool: ...  # noqa: D102 - the stubs'
    def get_server_pid(self) -> int: ...  # noqa: D102 - the stubs'


async def publish_with_libraries(
    session: Session,
    scoped: scoped_session[Session],
    connection: sa.Connection,
    model: sqlmodel.Session,
    older: OfPsycopg2,
    django: OfDjango,
) -> None:
    """Sync ones return."""
    creada = ReservaCreada(reserva_id=1)
    nuevos = [NuevoEvento(ReservaEvents.reserva_creada, creada)]
    assert_type(publicar_evento(session, ReservaEvents.reserva_creada, creada), int)
    assert_type(publicar_evento(scoped, ReservaEvents.reserva_creada, creada, clave="a"), int)
    assert_type(publicar_evento(connection, ReservaEvents.reserva_creada, creada), int)
    assert_type(publicar_evento(model, ReservaEvents.reserva_creada, creada), int)
    assert_type(publicar_evento(older, ReservaEvents.reserva_creada, creada), int)
    assert_type(publicar_evento(django, ReservaEvents.reserva_creada, creada), int)
    assert_type(publicar_eventos(session, nuevos), list[int])
    assert_type(publicar_eventos(scoped, nuevos), list[int])
    assert_type(publicar_eventos(connection, nuevos), list[int])
    assert_type(publicar_eventos(model, nuevos), list[int])
    assert_type(publicar_eventos(older, nuevos), list[int])
    assert_type(publicar_eventos(django, nuevos, own_transaction=True), list[int])


async def publish_with_async_libraries(
    session: AsyncSession,
    scoped: async_scoped_session[AsyncSession],
    connection: sa_async.AsyncConnection,
    model: sqlmodel_async.AsyncSession,
    other: OfAsyncpg,
) -> None:
    """Async ones are awaited."""
    creada = ReservaCreada(reserva_id=1)
    nuevos = [NuevoEvento(ReservaEvents.reserva_creada, creada)]
    assert_type(await publicar_evento(session, ReservaEvents.reserva_creada, creada), int)
    assert_type(await publicar_evento(scoped, ReservaEvents.reserva_creada, creada), int)
    assert_type(await publicar_evento(connection, ReservaEvents.reserva_creada, creada), int)
    assert_type(await publicar_evento(model, ReservaEvents.reserva_creada, creada), int)
    assert_type(await publicar_evento(other, ReservaEvents.reserva_creada, creada), int)
    assert_type(await publicar_eventos(session, nuevos), list[int])
    assert_type(await publicar_eventos(scoped, nuevos), list[int])
    assert_type(await publicar_eventos(connection, nuevos), list[int])
    assert_type(await publicar_eventos(model, nuevos), list[int])
    assert_type(await publicar_eventos(other, nuevos), list[int])


async def test(conn: Connection[Any], aconn: AsyncConnection[Any], settings: Settings) -> None:
    """The tools for tests know the payloads too, and serve every handler on the connection that the test has."""
    creada = ReservaCreada(reserva_id=1)
    call(reserva_creada, creada, attempt=2)
    call(sync_tx, creada, tx=conn, tipo=ReservaEvents.reserva_creada)
    await call_async(whatever, creada, tx=aconn)
    assert_type(drain(bus, settings).done, int)
    assert_type((await drain_async(bus, settings)).failures[0].error, str)
    assert_type(eventos(conn)[0].intentos, int)
    assert_type(wait_for(lambda: 1), int)
    assert_type(await wait_for_async(lambda: 1), int)


# an upcaster stays the function that it is, and an old payload is read as the newest type
dated = EventType("reserva.fechada", ReservaCreada, version=2)


@dated.upcast(1)
def rename(payload: dict[str, Any]) -> dict[str, Any]:
    """Bring a payload to version 2."""
    return {"reserva_id": payload["id"]}


assert_type(rename({"id": 1}), dict[str, Any])
assert_type(dated.load("{}", 1), ReservaCreada)
