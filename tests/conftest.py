"""What every test may ask for, beside the fixtures of the package's own plugin: short names for the usual databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cauce.embedded import EmbeddedPostgres
    from cauce.testing import Database, Server


@pytest.fixture(scope="session")
def server(cauce_server: Server) -> EmbeddedPostgres:
    """The embedded server of the whole run, for tests of what only our own server can do."""
    if cauce_server.embedded is None:
        pytest.skip("the tests run on another PostgreSQL")
    return cauce_server.embedded


@pytest.fixture
def dsn(cauce_server: Server) -> Iterator[str]:
    """The address of a fresh, empty database."""
    with cauce_server.empty() as database:
        yield database.dsn


@pytest.fixture
def db(cauce_db: Database) -> Database:
    """A fresh database with Cauce's tables in it, and no application's catalog."""
    return cauce_db
