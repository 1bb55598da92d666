"""What every test may ask for: one PostgreSQL server a run, and one empty database a test."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from cauce.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A temporary server for the whole run. Nothing here outlives a power cut, so nothing waits for the disk."""
    settings = {
        "fsync": "off",
        "max_connections": "200",
        "max_prepared_transactions": "10",
        "shared_buffers": "128MB",
    }
    with EmbeddedPostgres(settings=settings) as server:
        yield server


@pytest.fixture
def dsn(server: EmbeddedPostgres) -> Iterator[str]:
    """The address of a fresh, empty database, dropped after the test with whoever is still connected."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield server.database(name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
