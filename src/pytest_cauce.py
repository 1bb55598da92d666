"""The pytest plugin of Cauce: one PostgreSQL for each run, a fresh database for each test.

It is outside the package because pytest loads every installed plugin at every start and should not load all of Cauce
with it. The fixtures import what they need when a test uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cauce import Bus
    from cauce.testing import Database, Server


@pytest.fixture(scope="session")
def cauce_server() -> Iterator[Server]:
    """A PostgreSQL for the whole run: the one that ``CAUCE_TEST_DATABASE_URL`` names, or an embedded one.

    The role in that address must be allowed to create databases; existing databases are not changed.
    """
    from cauce.testing import Server  # noqa: PLC0415 - as the module says

    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def cauce_bus() -> Bus | None:
    """The application whose catalog ``cauce_db`` holds; override it in ``conftest.py``."""
    return None


@pytest.fixture(scope="session")
def cauce_schema() -> str | Callable[[str], object]:
    """The application's own tables, as SQL or a function of a database's address; override it in ``conftest.py``."""
    return ""


@pytest.fixture
def cauce_db(
    cauce_server: Server, cauce_bus: Bus | None, cauce_schema: str | Callable[[str], object]
) -> Iterator[Database]:
    """A fresh database with Cauce's tables, the catalog of ``cauce_bus`` and the tables of ``cauce_schema``.

    It is a copy of a template that is made once for each run. After the test it is dropped, even if connections to it
    are still open.

    Args:
        cauce_server: the PostgreSQL in which the database is created.
        cauce_bus: the application whose catalog the database holds; None for none.
        cauce_schema: the application's own tables, as SQL or as a function of the database's address.
    """
    with cauce_server.migrated(cauce_bus, cauce_schema) as database:
        yield database
