"""Migrations: idempotent, safe side by side, never backwards; and the schema they make is the one that was agreed on.

After a change of the schema write the snapshot again, and read the difference:
`CAUCE_WRITE_SCHEMA=1 make test ARGS='tests/integration/engine/test_migrate.py'`
"""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from cauce import Bus, Catalog, EventHandlers, EventType, SchemaError, Subscriber, sql
from cauce.database import schema
from cauce.embedded.place import find_wheel
from tests.integration.engine.kit import column, drain, publish, value
from tests.integration.engine.scenery import Cosa, PruebaEvents, bus, quiet

SNAPSHOT = Path(__file__).parents[1] / "schema.sql"


def test_migrating_is_idempotent_and_keeps_the_data(dsn: str) -> None:
    """The second time there is nothing to do, and what was there stays."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        names = [f"{number:04}_{migration.name}" for number, migration in sql.migrations().items()]
        assert schema.migrate(conn, bus()) == names
        published = publish(conn)
        assert schema.migrate(conn, bus()) == []
        schema.check(conn)
        assert drain(conn) == published
        assert column(conn, "select numero from cauce.migraciones order by numero") == list(sql.migrations())


def test_eight_that_migrate_at_once_take_turns(dsn: str) -> None:
    """Each migration is applied once, nobody fails, and the catalog is there."""

    def migrate(_: int) -> list[str]:
        with psycopg.connect(dsn, autocommit=True) as conn:
            return schema.migrate(conn, bus())

    with ThreadPoolExecutor(8) as pool:
        applied = [name for names in pool.map(migrate, range(8)) for name in names]
    assert sorted(applied) == [f"{number:04}_{migration.name}" for number, migration in sql.migrations().items()]
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert column(conn, "select tipo from cauce.catalogo where origen = 'prueba' order by 1") == ["otra", "una"]
        assert value(conn, "select count(*) from cauce.posiciones") == 10


def test_a_newer_schema_is_refused(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """An older program neither migrates it nor works on it, and says so."""
    conn.execute("insert into cauce.migraciones (numero, nombre) values (999, 'from the future')")
    for refuse in (schema.migrate, schema.check):
        with pytest.raises(SchemaError, match="at version 999, this program knows"):
            refuse(conn)


def test_an_older_schema_is_refused_until_it_is_migrated(dsn: str) -> None:
    """Missing or behind: a worker does not start, and says what to run."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        with pytest.raises(SchemaError, match="are missing; run: cauce migrate"):
            schema.check(conn)
        schema.migrate(conn)
        conn.execute("delete from cauce.migraciones where numero = (select max(numero) from cauce.migraciones)")
        with pytest.raises(SchemaError, match=r"at version \d+ of \d+; run: cauce migrate"):
            schema.check(conn)


def test_a_migration_that_fails_leaves_nothing(dsn: str) -> None:
    """Each is a transaction: a failed one is rolled back, and the next run starts with it."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create schema cauce; create table cauce.catalogo (n int)")
        with pytest.raises(psycopg.errors.DuplicateTable):
            schema.migrate(conn)
        assert value(conn, "select to_regclass('cauce.eventos') is null and to_regclass('cauce.migraciones') is null")
        conn.execute("drop table cauce.catalogo")
        assert len(schema.migrate(conn)) == len(sql.migrations())


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_is_not_in_utf8_is_refused(dsn: str, encoding: str) -> None:
    """By migrate and at every start, with what to do: there all events would end in error."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        name = f"{admin.info.dbname}_{encoding.lower()}"
        admin.execute(f"create database {name} encoding '{encoding}' locale 'C' template template0".encode())
        try:
            with psycopg.connect(dsn, dbname=name, autocommit=True) as conn:
                for refuse in (schema.migrate, schema.check):
                    with pytest.raises(SchemaError, match=f"database {name} is in {encoding}, and Cauce needs UTF8"):
                        refuse(conn)
                assert value(conn, "select to_regnamespace('cauce') is null")
        finally:
            admin.execute(f"drop database {name}".encode())


def test_migrating_wants_autocommit(dsn: str) -> None:
    """Each migration is to be a transaction of its own."""
    with psycopg.connect(dsn) as conn, pytest.raises(SchemaError, match="autocommit"):
        schema.migrate(conn)


def test_a_deploy_removes_what_its_application_no_longer_has_a_worker_only_adds(dsn: str) -> None:
    """`migrate` says what it removes, in whatever group; a worker that starts may be the older program, and adds."""
    older = bus(
        subscribers=[
            Subscriber("viejo", PruebaEvents.una.handled_by(quiet)),
            Subscriber("s", PruebaEvents.una.handled_by(quiet), grupo="aparte"),
        ]
    )
    live = "select suscriptor from cauce.suscripciones where retirada_en is null order by grupo, tipo, suscriptor"
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.migrate(conn, bus())
        assert schema.save_catalog(conn, older, replace=False) == []
        assert column(conn, live) == ["s", "manejador", "manejador", "viejo"]
        gone = schema.save_catalog(conn, bus(), replace=True)
        assert gone == [("aparte", "s", "prueba", "una"), ("principal", "viejo", "prueba", "una")]
        assert column(conn, live) == ["manejador", "manejador"]
        assert schema.save_catalog(conn, bus(), replace=True) == []


def test_an_older_program_that_starts_again_brings_nothing_back(dsn: str) -> None:
    """Neither a subscriber that the newer one removed nor a priority that it changed; a deploy does."""

    class Antes(Catalog, origen="prueba", prioridad=7):
        una = EventType("una", Cosa)

    class Ahora(Catalog, origen="prueba", prioridad=3):
        una = EventType("una", Cosa)

    older = Bus(
        catalogs=[Antes],
        event_handlers=EventHandlers(Antes.una.handled_by(quiet)),
        subscribers=[Subscriber("viejo", Antes.una.handled_by(quiet))],
    )
    newer = Bus(catalogs=[Ahora], event_handlers=EventHandlers(Ahora.una.handled_by(quiet)))
    stored = (
        "select c.prioridad, array_agg(s.suscriptor::text order by s.suscriptor) from cauce.catalogo c"
        " join cauce.suscripciones s using (origen, tipo) where s.retirada_en is null group by 1"
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.migrate(conn, older)
        schema.migrate(conn, newer)
        assert schema.save_catalog(conn, older, replace=False) == [("principal", "viejo", "prueba", "una")]
        assert conn.execute(stored).fetchone() == (3, ["manejador"])
        schema.migrate(conn, older)
        assert conn.execute(stored).fetchone() == (7, ["manejador", "viejo"])


def dump(dsn: str) -> str:
    """Return the schema as pg_dump tells it, without what differs between runs, and without the bodies of functions.

    Those stand in the migrations word for word; what the snapshot adds is what they are called with.
    """
    program = find_wheel() / "pginstall" / "bin" / "pg_dump"
    options = ["--schema-only", "--schema=cauce", "--no-owner", "--no-comments", dsn]
    text = subprocess.run(
        [program, *options], check=True, capture_output=True, text=True, env={"PATH": os.defpath}
    ).stdout
    text = re.sub(r"AS (\$\w*\$).*?\1", "AS (...)", text, flags=re.DOTALL)
    lines = [
        line for line in text.splitlines() if not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config"))
    ]
    return "\n".join(line for line, before in zip(lines, ["", *lines], strict=False) if line or before).strip() + "\n"


def test_the_migrated_schema_is_the_snapshot(database: str) -> None:
    """What the migrations make of an empty database, read back from it: a change shows in review, or is an accident."""
    found = dump(database)
    if os.environ.get("CAUCE_WRITE_SCHEMA"):
        SNAPSHOT.write_text(found)
    assert found == SNAPSHOT.read_text()
