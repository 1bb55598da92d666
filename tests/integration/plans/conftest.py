"""A log of a million waiting events, made once a run and never analyzed; and fresh databases that may be filled."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from cauce.testing import Server
from tests.integration.engine.kit import Conn
from tests.integration.plans.explained import LARGE

FILL_LANE = """
    insert into cauce.eventos (origen, tipo, payload, carril, prioridad)
    select 'prueba', 'prueba.hecha', '{"n": 1}', %s, %s from generate_series(1, %s)"""
FILL = FILL_LANE.replace("%s, %s from", "5, 5 from")


def fresh(cauce_server: Server) -> Iterator[str]:
    """Make a migrated database in which nothing is ever analyzed unless a test does it; drop it afterwards."""
    with cauce_server.migrated() as database:
        with database.connect(autocommit=True) as conn:
            for table in (*LARGE, "lotes", "posiciones"):
                conn.execute(
                    sql.SQL("alter table cauce.{} set (autovacuum_enabled = off)").format(sql.Identifier(table))
                )
        yield database.dsn


@pytest.fixture(scope="session")
def million(cauce_server: Server) -> Iterator[str]:
    """The address of a database with a million waiting events that nobody has analyzed."""
    for dsn in fresh(cauce_server):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(FILL, (1_000_000,))
            conn.execute("insert into cauce.catalogo (origen, tipo, prioridad) values ('prueba', 'prueba.hecha', 5)")
        yield dsn


@pytest.fixture
def database(cauce_server: Server) -> Iterator[str]:
    """The address of a fresh migrated database."""
    yield from fresh(cauce_server)


@pytest.fixture
def conn(database: str) -> Iterator[Conn]:
    """A connection in autocommit."""
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn
