"""A catalog of a few events for tests of the worker, and buses made of the handlers that a test is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from psycopg import AsyncConnection, Connection
from pydantic import BaseModel

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, Subscriber, publicar_evento
from tests.integration.engine.kit import Conn, value


class Cosa(BaseModel):
    """A payload."""

    n: int = 0


class PruebaEvents(Catalog, origen="prueba"):
    """Events to try things with."""

    una = EventType("una", Cosa)
    otra = EventType("otra", Cosa)


EFECTOS = "insert into efectos (evento, quien) values (%s, %s)"


async def quiet(_: Evento[Any]) -> None:
    """Do nothing."""


async def effect(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Leave a row."""
    await tx.execute(EFECTOS, (evento.id, "async"))


def sync_effect(evento: Evento[Cosa], tx: Connection[Any]) -> None:
    """Leave a row, from a thread."""
    tx.execute(EFECTOS, (evento.id, "sync"))


def bus(
    handler: Callable[..., Any] = quiet,
    *,
    other: Callable[..., Any] = quiet,
    subscribers: Sequence[Subscriber] = (),
    timeout: float | None = None,
    on_error: Any = None,
) -> Bus:
    """Make a bus whose event `una` has this handler."""
    return Bus(
        catalogs=[PruebaEvents],
        event_handlers=EventHandlers(
            PruebaEvents.una.handled_by(handler, timeout=timeout), PruebaEvents.otra.handled_by(other, timeout=timeout)
        ),
        subscribers=subscribers,
        on_error=on_error,
    )


def make_effects(conn: Conn) -> None:
    """Make the table that handlers leave their rows in."""
    conn.execute("create table efectos (evento bigint, quien text)")


def effects(conn: Conn) -> list[int]:
    """Return the events of which there are effects, once for each."""
    return [row[0] for row in conn.execute("select evento from efectos order by evento")]


def tell(conn: Conn, count: int = 1, tipo: EventType[Cosa] = PruebaEvents.una) -> list[int]:
    """Publish."""
    with conn.transaction():
        return [publicar_evento(conn, tipo, Cosa(n=n)) for n in range(count)]


def settled(conn: Conn) -> bool:
    """Whether every event is `procesado` or in `error`, and no lease is left."""
    return bool(
        value(
            conn,
            "select not exists (select from cauce.eventos where estado in ('pendiente', 'en_proceso'))"
            " and not exists (select from cauce.lotes)",
        )
    )
