"""A database without Cauce's tables, or with another's version of them: every way in says to migrate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from cauce import NuevoEvento, SchemaError, Settings, publicar_evento, publicar_eventos
from cauce.database import operations
from cauce.engine.cron import procesar_lote
from cauce.engine.worker import Worker
from cauce.testing import Database, drain, eventos
from tests.integration.engine.scenery import Cosa, PruebaEvents, bus, quiet

BUS = bus(quiet)
ONE = NuevoEvento(PruebaEvents.una, Cosa(n=1))


def connected(do: Callable[[psycopg.Connection[tuple[object, ...]]], object]) -> Callable[[str], None]:
    """Do something with a connection to a database."""

    def run(dsn: str) -> None:
        with psycopg.connect(dsn) as conn:
            do(conn)

    return run


async def publish(dsn: str) -> None:
    """Publish, async."""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await publicar_evento(conn, ONE.tipo, ONE.payload)


async def publish_many(dsn: str) -> None:
    """Publish many, async."""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await publicar_eventos(conn, [ONE])


WAYS_IN: dict[str, Callable[[str], object]] = {
    "publicar_evento": connected(lambda conn: publicar_evento(conn, ONE.tipo, ONE.payload)),
    "publicar_evento with a key": connected(lambda conn: publicar_evento(conn, ONE.tipo, ONE.payload, clave="1")),
    "publicar_eventos": connected(lambda conn: publicar_eventos(conn, [ONE])),
    "publicar_eventos by statement": connected(
        lambda conn: publicar_eventos(conn, [ONE._replace(id_externo="1")]),
    ),
    "publicar_evento, async": lambda dsn: asyncio.run(publish(dsn)),
    "publicar_eventos, async": lambda dsn: asyncio.run(publish_many(dsn)),
    "a worker": lambda dsn: asyncio.run(Worker(BUS, Settings(database_url=dsn)).run()),
    "a cron": lambda dsn: asyncio.run(procesar_lote(BUS, Settings(database_url=dsn))),
    "a test that drains": lambda dsn: drain(BUS, Settings(database_url=dsn)),
    "a test that reads": connected(eventos),
    "retry": connected(lambda conn: operations.retry(conn, 1)),
}


@pytest.mark.parametrize("enter", WAYS_IN.values(), ids=WAYS_IN)
def test_a_database_without_tables_says_to_migrate(enter: Callable[[str], object], dsn: str) -> None:
    """Not that a relation or a function does not exist."""
    with pytest.raises(SchemaError, match=r"missing.*run: cauce migrate module:bus"):
        enter(dsn)


def test_a_table_of_the_application_is_not_ours(db: Database) -> None:
    """An error of the application's own trigger is told as it is."""
    with db.connect() as conn:
        conn.execute(
            "create function auditar() returns trigger language plpgsql as"
            " $$ begin insert into auditoria values (1); return new; end $$;"
            "create trigger auditar after insert on cauce.eventos for each row execute function auditar()"
        )
        with pytest.raises(psycopg.errors.UndefinedTable, match='"auditoria" does not exist'):
            publicar_evento(conn, ONE.tipo, ONE.payload)
