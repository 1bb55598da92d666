"""The pytest plugin of Cauce: a PostgreSQL once a run, a fresh database a test.

It stands outside of the package so that pytest, which loads every installed plugin at every start, does not load all of
Cauce with it. The fixtures import what they need when a test asks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cauce import Bus
    from cauce.testing import Database, Server


@pytest.fixture(scope="session")
def cauce_server() -> Iterator[Server]:
    """A PostgreSQL for the whole run: the one ``CAUCE_TEST_DATABASE_URL`` names, or else an embedded one.

    That address names a database to connect to, and a role that may create others; nothing else there is touched.
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
    """The application's own tables: SQL, or a function that is given a database's address; override it likewise."""
    return ""


@pytest.fixture
def cauce_db(
    cauce_server: Server, cauce_bus: Bus | None, cauce_schema: str | Callable[[str], object]
) -> Iterator[Database]:
    """A fresh database with Cauce's tables, the catalog of ``cauce_bus`` and the tables of ``cauce_schema``.

    It is a copy of a template that is made once a run, and dropped after the test with whoever is still connected.
    """
    with cauce_server.migrated(cauce_bus, cauce_schema) as database:
        yield database
