"""What an ORM costs in handlers with `tx`: events a second, each beside psycopg's own connection. Run as a program.

Every handler inserts one row. The rounds take turns, so a noisy machine is as hard on one as on another; the figure is
the median of the ratios of a round.
"""

from __future__ import annotations

import asyncio
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Final

import django
import psycopg
from cyclopts import App, Parameter
from django.conf import settings as django_settings
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: TC002 - read at run time
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel
from rich.console import Console
from sqlalchemy import BigInteger
from sqlalchemy.ext.asyncio import AsyncSession  # noqa: TC002 - the same
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, NuevoEvento, Settings, publicar_eventos
from cauce.database import schema
from cauce.embedded import EmbeddedPostgres
from cauce.engine.cron import procesar_lote

if TYPE_CHECKING:
    from cauce.catalog import AnyHandler

INSERT: Final = "insert into efectos (evento) values (%s)"


class Base(DeclarativeBase):
    """The one model."""


class Efecto(Base):
    """What a handler leaves."""

    __tablename__ = "efectos"
    evento: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class Cosa(BaseModel):
    """A payload."""

    n: int


class MedidaEvents(Catalog, origen="medida"):
    """The one event."""

    hecha = EventType("hecha", Cosa)


async def plain_async(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """psycopg, async."""
    await tx.execute(INSERT, (evento.id,))


def plain_sync(evento: Evento[Cosa], tx: Connection[Any]) -> None:
    """psycopg, sync."""
    tx.execute(INSERT, (evento.id,))


async def async_session(evento: Evento[Cosa], tx: AsyncSession) -> None:
    """SQLAlchemy, async."""
    tx.add(Efecto(evento=evento.id))


def session(evento: Evento[Cosa], tx: Session) -> None:
    """SQLAlchemy, sync."""
    tx.add(Efecto(evento=evento.id))


def with_django(evento: Evento[Cosa], _tx: BaseDatabaseWrapper) -> None:
    """Django's connection."""
    with connection.cursor() as cursor:
        cursor.execute(INSERT, (evento.id,))


PAIRS: Final[list[tuple[AnyHandler, AnyHandler]]] = [
    (async_session, plain_async),
    (session, plain_sync),
    (with_django, plain_sync),
]
app = App(help=__doc__)


@app.default
def main(events: Annotated[int, Parameter(help="events of a drain")] = 1500, rounds: int = 5) -> None:
    """Measure, and print a line for each ORM."""
    with EmbeddedPostgres(settings={"fsync": "off"}) as server, psycopg.connect(server.dsn, autocommit=True) as conn:
        part = conninfo_to_dict(server.dsn)
        named = {key: part.get(name, "") for key, name in {"NAME": "dbname", "USER": "user", "HOST": "host"}.items()}
        named |= {"ENGINE": "django.db.backends.postgresql", "PORT": str(part.get("port", ""))}
        django_settings.configure(DATABASES={"default": named})
        django.setup()
        schema.migrate(conn, _bus(plain_async))
        conn.execute("create table efectos (evento bigint primary key)")
        for orm, plain in PAIRS:
            for handler in (orm, plain):
                _drain(conn, handler, 50)  # imports, engines, caches
            pairs = [(_drain(conn, orm, events), _drain(conn, plain, events)) for _ in range(rounds)]
            rates = [f"{median(one):,.0f}" for one in zip(*pairs, strict=True)]
            ratio = median(ours / theirs for ours, theirs in pairs)
            cost = median(1e6 / ours - 1e6 / theirs for ours, theirs in pairs)
            Console().print(
                f"{orm.__doc__} {rates[0]}/s, psycopg {rates[1]}/s: {ratio:.2f}, {cost:.0f} us an event more"
            )


def _bus(handler: AnyHandler) -> Bus:
    return Bus(catalogs=[MedidaEvents], event_handlers=EventHandlers(MedidaEvents.hecha.handled_by(handler)))


def _drain(conn: Connection[Any], handler: AnyHandler, events: int) -> float:
    """Return events a second of one drain by one call of ``procesar_lote``, after they were published."""
    publicar_eventos(conn, [NuevoEvento(MedidaEvents.hecha, Cosa(n=n)) for n in range(events)], own_transaction=True)
    settings = Settings.model_validate({"database_url": conn.info.dsn})
    begun = monotonic()
    count = asyncio.run(procesar_lote(_bus(handler), settings, limite=events, segundos=600))
    seconds = monotonic() - begun
    if count["procesados"] != events:
        raise SystemExit(f"{count}, and there were {events} events")
    return events / seconds


if __name__ == "__main__":
    app()
