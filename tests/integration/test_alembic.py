"""Alembic beside the bus: with the documented filter, autogenerate leaves the schema `cauce` alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cauce.testing import Database

DOCUMENT = Path(__file__).parents[2] / "docs/frameworks.md"


def documented() -> dict[str, Any]:
    """Run the snippet of the document; return the options it makes."""
    found = re.search(r"<!-- alembic -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found[1], names)  # noqa: S102 - our own document
    options: dict[str, Any] = names["options"]
    return options


@pytest.fixture
def connection(cauce_db: Database) -> Iterator[sqlalchemy.Connection]:
    """A connection of SQLAlchemy's, with a table of the business in a schema of its own."""
    with cauce_db.connect(autocommit=True) as conn:
        conn.execute("create schema tienda")
        conn.execute("create table tienda.vieja (id integer primary key)")
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(cauce_db.dsn))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def dropped(connection: sqlalchemy.Connection, options: dict[str, Any]) -> list[str]:
    """Return the tables that autogenerate would drop, where no model is declared."""
    context = MigrationContext.configure(connection, opts=options)
    return [
        str(change[1]) for change in compare_metadata(context, sqlalchemy.MetaData()) if change[0] == "remove_table"
    ]


@pytest.mark.filterwarnings("ignore:Did not recognize type")
def test_without_the_filter_it_would_drop_the_bus(connection: sqlalchemy.Connection) -> None:
    """The reason for the filter."""
    assert "cauce.eventos" in dropped(connection, {"include_schemas": True})


def test_with_the_documented_filter_it_leaves_the_bus_alone(connection: sqlalchemy.Connection) -> None:
    """And sees the other schemas still."""
    assert dropped(connection, documented()) == ["tienda.vieja"]
