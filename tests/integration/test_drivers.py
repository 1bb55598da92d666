"""Publishing with what applications have: connections of other libraries, and mistakes with any of them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from typing import Any, cast

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa
from psycopg_pool import ConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from cauce import Catalog, EventType, NuevoEvento, WrongArgument, publicar_evento, publicar_eventos
from cauce.testing import Database, eventos


class Cosas(Catalog, origen="prueba"):
    """A catalog."""

    una = EventType("cosa.una", dict[str, int])


def url_of(dsn: str) -> sa.URL:
    """The address as SQLAlchemy reads it."""
    return sa.make_url(dsn.replace("postgresql://", "postgresql+psycopg://", 1))


def driver_of(connection: sa.Connection) -> psycopg.Connection[Any]:
    """Psycopg's own."""
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def published(db: Database) -> int:
    """How many events are there."""
    with db.connect() as conn:
        return len(eventos(conn))


def test_publishing_in_a_transaction_of_sqlalchemy(db: Database) -> None:
    """With the connection that the error names: it commits and rolls back with the rest."""
    engine = sa.create_engine(url_of(db.dsn))
    with engine.begin() as connection:
        with pytest.raises(WrongArgument, match=r"connection\.connection\.driver_connection"):
            publicar_evento(cast("Any", connection), Cosas.una, {"n": 1})
        publicar_evento(driver_of(connection), Cosas.una, {"n": 1})
        connection.rollback()
    assert published(db) == 0
    with engine.begin() as connection:
        publicar_evento(driver_of(connection), Cosas.una, {"n": 1})
    assert published(db) == 1
    with Session(engine) as session:
        publicar_evento(driver_of(session.connection()), Cosas.una, {"n": 1})
        session.commit()
    engine.dispose()
    assert published(db) == 2


def test_publishing_in_an_async_transaction_of_sqlalchemy(db: Database) -> None:
    """Likewise, awaited."""

    async def publish() -> None:
        engine = create_async_engine(url_of(db.dsn))
        async with engine.begin() as connection:
            with pytest.raises(WrongArgument, match=r"\(await connection\.get_raw_connection\(\)\)\.driver_connection"):
                publicar_evento(cast("Any", connection), Cosas.una, {"n": 1})
            raw = await connection.get_raw_connection()
            await publicar_evento(cast("psycopg.AsyncConnection[Any]", raw.driver_connection), Cosas.una, {"n": 1})
        await engine.dispose()

    asyncio.run(publish())
    assert published(db) == 1


def test_publishing_with_a_connection_of_a_pool(db: Database) -> None:
    """The pool itself is no connection, and the error says how to get one."""
    with ConnectionPool(db.dsn, min_size=1, max_size=1) as pool:
        with pytest.raises(
            WrongArgument, match=r"psycopg_pool\.pool\.ConnectionPool.*with pool\.connection\(\) as conn"
        ):
            publicar_evento(cast("Any", pool), Cosas.una, {"n": 1})
        with pool.connection() as conn:
            publicar_evento(conn, Cosas.una, {"n": 1})
            with pytest.raises(WrongArgument, match=r"a cursor has its connection: cursor\.connection"):
                publicar_evento(cast("Any", conn.cursor()), Cosas.una, {"n": 1})
    assert published(db) == 1


def test_publishing_with_asyncpg(db: Database) -> None:
    """In SQL, as the error says."""

    async def publish() -> None:
        conn = await asyncpg.connect(db.dsn)
        try:
            with pytest.raises(WrongArgument, match=r"select cauce\.publicar_evento\(\$1, \$2, \$3\)"):
                publicar_evento(conn, Cosas.una, {"n": 1})
            assert await conn.fetchval("select cauce.publicar_evento($1, $2, $3)", "prueba", "cosa.una", "{}") == 1
        finally:
            await conn.close()

    asyncio.run(publish())
    assert published(db) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"tipo": "cosa.una"}], "one of the events of publicar_eventos is a dict, and should be a NuevoEvento"),
        (NuevoEvento(Cosas.una, {"n": 1}), "put a single event in a list"),
        (Cosas.una, "the second argument of publicar_eventos is a cauce.catalog.EventType"),
        ([NuevoEvento("cosa.una", {})], "the event of publicar_eventos is the text 'cosa.una'"),  # type: ignore[arg-type]  # wrong on purpose
        ([NuevoEvento("cosa.una", {}, id_externo="1")], "the event of publicar_eventos is the text"),  # type: ignore[arg-type]  # likewise
        ([NuevoEvento(Cosas, {})], "the event of publicar_eventos is the class Cosas"),  # type: ignore[arg-type]  # likewise
        ([NuevoEvento(Cosas.una, {"n": 1}, clave=7)], "clave is an int, and should be a str"),  # type: ignore[arg-type]  # likewise
        ([NuevoEvento(Cosas.una, {"n": 1}, prioridad=-1)], "prioridad is an int, .* it is -1"),
        ([NuevoEvento(Cosas.una, {"n": 1}, id_externo="1", prioridad=10)], "prioridad is an int, .* it is 10"),
        ([NuevoEvento(Cosas.una, {"n": 1}, cabeceras={"a": set()})], "cabeceras is a dict, .* set is not JSON"),
        ([NuevoEvento(Cosas.una, {"n": 1}, id_externo="1", cabeceras="abc")], "cabeceras is the text 'abc'"),  # type: ignore[arg-type]  # likewise
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
                publicar_eventos(conn, [NuevoEvento(Cosas.una, {"n": 1})])  # type: ignore[unused-coroutine]  # likewise
            gc.collect()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
    assert [str(one.message) for one in caught if one.category is RuntimeWarning] == [
        f"coroutine '{function}' was never awaited"
    ]


DJANGO = """
import sys
import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

name = conninfo_to_dict(sys.argv[1])
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": name["dbname"], "USER": name["user"], "HOST": name["host"],
    "PORT": name["port"],
}})
django.setup()
from django.db import connection, transaction
from cauce import Catalog, EventType, publicar_evento

class Cosas(Catalog, origen="prueba"):
    una = EventType("cosa.una", dict[str, int])

try:
    publicar_evento(connection, Cosas.una, {"n": 1})
except TypeError as error:
    print(error)
try:
    with transaction.atomic():
        publicar_evento(connection.connection, Cosas.una, {"n": 1})
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    publicar_evento(connection.connection, Cosas.una, {"n": 2})
"""


def test_publishing_in_a_transaction_of_django(db: Database) -> None:
    """With the connection that the error names, in `atomic`; a process of its own, for Django is configured once."""
    done = subprocess.run([sys.executable, "-c", DJANGO, db.dsn], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (
        "it wraps a psycopg connection: django.db.connection.connection; use it inside transaction.atomic()"
        in done.stdout
    )
    with db.connect() as conn:
        assert [evento.payload for evento in eventos(conn)] == [{"n": 2}]
