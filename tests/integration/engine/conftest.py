"""A fresh database with the bus's tables for every test of the engine, copied from one that is migrated once."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cauce import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cauce.testing import Server
    from tests.integration.engine.kit import Conn

_numbers = count(1)


@pytest.fixture(scope="session")
def template(cauce_server: Server) -> Iterator[str]:
    """The name of a database that is migrated and otherwise untouched; nobody stays connected to it."""
    name = "engine_template"
    with psycopg.connect(cauce_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        with psycopg.connect(make_conninfo(cauce_server.dsn, dbname=name), autocommit=True) as conn:
            schema.migrate(conn)
        yield name
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database(cauce_server: Server, template: str) -> Iterator[str]:
    """The address of a fresh migrated database, dropped after the test with whoever is still connected."""
    name = f"engine_{next(_numbers)}"
    with psycopg.connect(cauce_server.dsn, autocommit=True) as admin:
        create = sql.SQL("create database {} template {} strategy file_copy")
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        yield make_conninfo(cauce_server.dsn, dbname=name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def connect(database: str) -> Iterator[Callable[..., Conn]]:
    """Open connections in autocommit, closed after the test."""
    opened: list[Conn] = []

    def open_another(**options: Any) -> Conn:  # noqa: ANN401 - psycopg's
        conn = psycopg.connect(database, autocommit=options.pop("autocommit", True), **options)
        opened.append(conn)
        return conn

    yield open_another
    for conn in opened:
        conn.close()


@pytest.fixture
def conn(connect: Callable[..., Conn]) -> Conn:
    """A connection in autocommit."""
    return connect()
