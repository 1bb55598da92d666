"""Mistakes with connections of any library, and what about a connection does not matter."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy as sa
from asgiref.sync import sync_to_async
from django.db import connections as django_connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2.extras import RealDictCursor
from psycopg_pool import ConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from cauce import Catalog, EventType, NuevoEvento, WrongArgument, publicar_evento, publicar_eventos
from cauce.testing import eventos
from tests.integration.drivers.callers import CALLERS, address

if TYPE_CHECKING:
    from cauce.testing import Database


class Cosas(Catalog, origen="prueba"):
    """A catalog."""

    una = EventType("cosa.una", dict[str, int])


class Textos(Catalog, origen="texto"):
    """Another."""

    uno = EventType("texto.uno", str)


def published(db: Database) -> int:
    """How many events are there."""
    with db.connect() as conn:
        return len(eventos(conn))


def refused(conn: Any, said: str) -> None:
    """Neither function takes it, and both say what to give instead."""
    with pytest.raises(WrongArgument, match=said):
        publicar_evento(conn, Cosas.una, {"n": 1})
    with pytest.raises(WrongArgument, match=said):
        publicar_eventos(conn, [NuevoEvento(Cosas.una, {"n": 1})])


def test_what_no_transaction_runs_on_is_refused(db: Database) -> None:
    """Engines, pools, cursors, factories and transactions: the error says how to get what to give."""
    engine = sa.create_engine(address(db.dsn, "psycopg"))
    refused(engine, r"sqlalchemy\.engine\.base\.Engine, .* with engine\.begin\(\) as connection")
    refused(sessionmaker(engine), r"with maker\.begin\(\) as session")
    with engine.connect() as connection:
        refused(connection.begin(), r"transaction\.connection")
        refused(connection.connection, r"connection\.driver_connection")
    refused(create_async_engine(address(db.dsn, "asyncpg")), r"async with engine\.begin\(\) as connection")
    refused(Session(engine).begin(), r"give the session: transaction\.session")
    with ConnectionPool(db.dsn, min_size=1, max_size=1) as pool, pool.connection() as conn:
        refused(pool, r"psycopg_pool\.pool\.ConnectionPool.*with pool\.connection\(\) as conn")
        refused(pool.connection(), r"enter it first, .* with pool\.connection\(\) as conn")
        refused(conn.cursor(), r"a cursor has its connection: cursor\.connection")
        refused(psycopg.RawCursor(conn), r"cursor\.connection")
        refused(conn.transaction(), r"enter it first, and give the connection")
        assert publicar_evento(conn, Cosas.una, {"n": 1}) == 1
    older = psycopg2.connect(db.dsn)
    refused(older.cursor(), r"psycopg2\.extensions\.cursor, .* cursor\.connection")
    older.close()
    refused(django_connections, r"connections\['default'\]")
    engine.dispose()


async def test_what_no_transaction_of_asyncpg_runs_on_is_refused(db: Database) -> None:
    """A pool, what its acquire returns before it is entered, a transaction."""
    async with asyncpg.create_pool(db.dsn, min_size=1, max_size=1) as pool:
        refused(pool, r"async with pool\.acquire\(\) as conn, conn\.transaction\(\)")
        refused(pool.acquire(), r"enter it first")
        async with pool.acquire() as conn:
            refused(conn.transaction(), "the connection on which you began it")


def test_another_database_is_refused() -> None:
    """It has no events."""
    with sa.create_engine("sqlite://").connect() as connection:
        refused(connection, "SQLAlchemy's to sqlite, and should be one to PostgreSQL")
    refused(SimpleDjango(), "Django's to sqlite, and should be one to PostgreSQL")


class SimpleDjango(BaseDatabaseWrapper):  # type: ignore[misc]  # Django has no types
    """Django's connection to another database, as far as it is asked."""

    vendor = "sqlite"

    def __init__(self) -> None:
        pass


def test_a_session_with_several_engines_is_told_which_connection_to_give(db: Database) -> None:
    """It cannot know on which of them the event is to be published."""
    refused(Session(binds={}), r"session\.connection\(bind_arguments=\{'mapper': TheMappedClass\}\)")
    engine = sa.create_engine(address(db.dsn, "psycopg"))
    with Session() as session:
        publicar_evento(session.connection(bind_arguments={"bind": engine}), Cosas.una, {"n": 1})
        session.commit()
    engine.dispose()
    assert published(db) == 1


def test_django_in_a_coroutine_is_told_to_use_a_thread(db: Database) -> None:
    """Its connections belong to threads; in `sync_to_async` it publishes as anywhere."""
    caller = CALLERS["Django over psycopg"](db.dsn)

    def in_a_thread() -> None:
        mine = CALLERS["Django over psycopg"](db.dsn)
        with mine.transaction():
            mine.publish(Cosas.una, {"n": 1})
        mine.close()

    async def scene() -> None:
        refused(caller.given, r"is Django's in a coroutine, .* sync_to_async\(function\)\(\)")
        await sync_to_async(in_a_thread)()

    asyncio.run(scene())
    assert published(db) == 1


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_session_lent_by_run_sync_publishes(db: Database, driver: str) -> None:
    """It is a sync session over an async driver."""

    def work(session: Session) -> list[int]:
        one = publicar_evento(session, Cosas.una, {"n": 1})
        return [one, *publicar_eventos(session, [NuevoEvento(Cosas.una, {"n": 2})])]

    async def scene() -> list[int]:
        engine = create_async_engine(address(db.dsn, driver))
        async with AsyncSession(engine) as session, session.begin():
            ids = await session.run_sync(work)
        await engine.dispose()
        return ids

    assert asyncio.run(scene()) == [1, 2]
    assert published(db) == 2


def test_a_session_that_streams_publishes(db: Database) -> None:
    """A server-side cursor cannot run an INSERT."""
    engine = sa.create_engine(address(db.dsn, "psycopg"), execution_options={"stream_results": True})
    with engine.begin() as connection:
        publicar_evento(connection, Cosas.una, {"n": 1})
    engine.dispose()
    assert published(db) == 1


def test_a_codec_of_the_application_does_not_matter(db: Database) -> None:
    """Asyncpg would write our JSON text as a JSON string."""

    async def scene() -> None:
        conn = await asyncpg.connect(db.dsn)
        await conn.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        async with conn.transaction():
            await publicar_evento(conn, Cosas.una, {"n": 1})
            await publicar_evento(conn, Cosas.una, {"n": 1}, id_externo="x", cabeceras={"a": 1})
            await publicar_eventos(conn, [NuevoEvento(Cosas.una, {"n": 1}, cabeceras={"a": 1})])
        await conn.close()

    asyncio.run(scene())
    with db.connect() as conn:
        found = conn.execute("select payload, cabeceras from cauce.eventos order by id").fetchall()
    assert found == [({"n": 1}, None), ({"n": 1}, {"a": 1}), ({"n": 1}, {"a": 1})]


def test_the_cursors_and_the_encoding_of_psycopg2_do_not_matter(db: Database) -> None:
    """Rows as dictionaries, and another encoding than UTF-8 on the wire."""
    conn = psycopg2.connect(db.dsn, cursor_factory=RealDictCursor)
    conn.set_client_encoding("LATIN1")
    publicar_evento(conn, Textos.uno, "\xe9")
    publicar_eventos(conn, [NuevoEvento(Textos.uno, "\xe9")] * 100)
    conn.commit()
    conn.close()
    with db.connect() as reader:
        assert {evento.payload for evento in eventos(reader)} == {"\xe9"}
        assert len(eventos(reader)) == 101


def test_no_library_is_imported_before_it_is_used() -> None:
    """Whoever has psycopg alone can publish."""
    program = "import sys, cauce; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"asyncpg", "django", "psycopg2", "sqlalchemy", "sqlmodel"} & set(loaded)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"tipo": "cosa.una"}], "one of the events of publicar_eventos is a dict, and should be a NuevoEvento"),
        (NuevoEvento(Cosas.una, {"n": 1}), "put a single event in a list"),
        (Cosas.una, "the second argument of publicar_eventos is a cauce.catalog.EventType"),
        ([NuevoEvento("cosa.una", {})], "the event of publicar_eventos is the text 'cosa.una'"),  # type: ignore[arg-type]  # wrong on purpose
        ([NuevoEvento("cosa.una", {}, id_externo="1")], "the event of publicar_eventos is the text"),  # type: ignore[arg-type]  # wrong on purpose
        ([NuevoEvento(Cosas, {})], "the event of publicar_eventos is the class Cosas"),  # type: ignore[arg-type]  # wrong on purpose
        ([NuevoEvento(Cosas.una, {"n": 1}, clave=7)], "clave is an int, and should be a str"),  # type: ignore[arg-type]  # wrong on purpose
        ([NuevoEvento(Cosas.una, {"n": 1}, prioridad=-1)], "prioridad is an int, .* it is -1"),
        ([NuevoEvento(Cosas.una, {"n": 1}, id_externo="1", prioridad=10)], "prioridad is an int, .* it is 10"),
        ([NuevoEvento(Cosas.una, {"n": 1}, cabeceras={"a": set()})], "cabeceras is a dict, .* set is not JSON"),
        ([NuevoEvento(Cosas.una, {"n": 1}, id_externo="1", cabeceras="abc")], "cabeceras is the text 'abc'"),  # type: ignore[arg-type]  # wrong on purpose
    ],
)
def test_what_is_wrong_among_many_is_named(db: Database, given: Any, said: str) -> None:
    """Whichever way they travel, and nothing of them is stored."""
    with db.connect() as conn, pytest.raises(WrongArgument, match=said):
        publicar_eventos(conn, given)
    assert published(db) == 0


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"clave": 7}, "clave is an int, and should be a str"),
        ({"id_externo": 7}, "id_externo is an int"),
        (
            {"cabeceras": {"a": object()}},
            "cabeceras is a dict, and should be a dict that JSON can hold; Object of type",
        ),
        ({"cabeceras": 3}, "cabeceras is an int"),
        ({"cabeceras": "x"}, "cabeceras is the text 'x', and should be a dict that JSON can hold. See"),
        ({"prioridad": 10}, "prioridad is an int, and should be a whole number from 0 .* it is 10. See"),
        ({"prioridad": "1"}, "prioridad is the text '1'"),
    ],
)
def test_a_column_of_a_wrong_type_is_named(db: Database, columns: dict[str, Any], said: str) -> None:
    """PostgreSQL would say that there is no such function."""
    with db.connect() as conn, pytest.raises(WrongArgument, match=said):
        publicar_evento(conn, Cosas.una, {"n": 1}, **columns)


@pytest.mark.parametrize("function", ["publicar_evento", "publicar_eventos"])
def test_a_forgotten_await_names_the_function(db: Database, function: str) -> None:
    """What Python warns of is a name that the caller has written."""

    async def forget() -> None:
        async with await psycopg.AsyncConnection.connect(db.dsn) as conn:
            if function == "publicar_evento":
                publicar_evento(conn, Cosas.una, {"n": 1})  # type: ignore[unused-coroutine]  # on purpose
            else:
                publicar_eventos(conn, [NuevoEvento(Cosas.una, {"n": 1})])  # type: ignore[unused-coroutine]  # on purpose
            gc.collect()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
    assert [str(one.message) for one in caught if one.category is RuntimeWarning] == [
        f"coroutine '{function}' was never awaited"
    ]
