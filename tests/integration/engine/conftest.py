"""A fresh database with the bus's tables for every test of the engine, copied from one that is migrated once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cauce.testing import Database
from tests.integration.engine.kit import Conn


@pytest.fixture
def database(db: Database) -> str:
    """The address of a fresh migrated database, dropped after the test with whoever is still connected."""
    return db.dsn


@pytest.fixture
def connect(database: str) -> Iterator[Callable[..., Conn]]:
    """Open connections in autocommit, closed after the test."""
    opened: list[Conn] = []

    def open_another(**options: Any) -> Conn:
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
