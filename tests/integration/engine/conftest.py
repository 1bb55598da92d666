"""A fresh database with the bus's tables for every test of the engine, copied from one that is migrated once."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from cauce import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cauce.embedded import EmbeddedPostgres
    from tests.integration.engine.kit import Conn

_numbers = count(1)


@pytest.fixture(scope="session")
def template(server: EmbeddedPostgres) -> str:
    """The name of a database that is migrated and otherwise untouched; nobody stays connected to it."""
    name = "engine_template"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with psycopg.connect(server.database(name), autocommit=True) as conn:
        schema.migrate(conn)
    return name


@pytest.fixture
def database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The address of a fresh migrated database, dropped after the test with whoever is still connected."""
    name = f"engine_{next(_numbers)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        create = sql.SQL("create database {} template {} strategy file_copy")
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        yield server.database(name)
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
