"""Databases for tests: a server a run, and copies of a migrated template, which cost milliseconds."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cauce.config import Settings
from cauce.database import schema
from cauce.embedded import EmbeddedError, EmbeddedPostgres

if TYPE_CHECKING:
    from cauce.bus import Bus

URL_VARIABLE: Final = "CAUCE_TEST_DATABASE_URL"
"""Names a PostgreSQL to use instead of an embedded one."""

_SETTINGS: Final = {
    "fsync": "off",  # nothing here outlives a power cut, so nothing waits for the disk
    "full_page_writes": "off",  # nor is any page torn; each copy of a database would be logged whole
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "shared_buffers": "128MB",
}


@dataclass(frozen=True)
class Database:
    """A database of a test."""

    dsn: str
    """Its address, as libpq reads it."""

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect; used in a ``with`` block the connection commits, or rolls back after an error, and closes.

        Args:
            autocommit: commit each statement by itself.
        """
        return psycopg.connect(self.dsn, autocommit=autocommit)  # as an application does, not as Cauce

    @cached_property
    def settings(self) -> Settings:
        """The settings of a worker on this database; ``settings.model_copy(update={...})`` changes some."""
        return Settings(database_url=self.dsn)


class Server:
    """A PostgreSQL that tests make databases in, for the time of a ``with`` block.

    It is the one that ``CAUCE_TEST_DATABASE_URL`` names or, without it, an embedded one.

    Args:
        url: the address to use instead of that variable.

    Raises:
        EmbeddedError: the variable is not set, and no embedded server can be started.
    """

    def __init__(self, url: str = "") -> None:
        self.embedded: EmbeddedPostgres | None = None
        """The embedded server, if it is one: tests may stop and restart it."""
        self._url = url or os.environ.get(URL_VARIABLE, "")
        self._prefix = f"cauce_test_{secrets.token_hex(4)}"
        self._numbers = count(1)
        self._templates: dict[tuple[Bus | None, str | Callable[[str], object]], str] = {}

    def __enter__(self) -> Self:
        """Start the embedded server, unless there is another."""
        if not self._url:
            try:
                self.embedded = EmbeddedPostgres(settings=_SETTINGS)
                self.embedded.__enter__()
            except EmbeddedError as error:
                error.add_note(f"Or name a PostgreSQL for the tests: {URL_VARIABLE}=postgresql://...")
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the embedded server, or drop what is left in the other."""
        if self.embedded is not None:
            self.embedded.close()
            return
        for name in self._templates.values():
            self._drop(name)

    @property
    def dsn(self) -> str:
        """The address of a database that is there from the start."""
        return self.embedded.dsn if self.embedded is not None else self._url

    @contextmanager
    def empty(self) -> Generator[Database]:
        """Make a database with nothing in it, and drop it afterwards with whoever is still connected."""
        name = self._create()
        try:
            yield self._database(name)
        finally:
            self._drop(name)

    @contextmanager
    def migrated(self, bus: Bus | None = None, tables: str | Callable[[str], object] = "") -> Generator[Database]:
        """Make a database with Cauce's tables, and drop it afterwards with whoever is still connected.

        Args:
            bus: the application whose catalog and groups the database holds.
            tables: the application's own tables, as SQL or as a function of the database's address.
        """
        template = self._templates.get((bus, tables))
        if template is None:
            template = self._templates[bus, tables] = self._make_template(bus, tables)
        name = self._create(template)
        try:
            yield self._database(name)
        finally:
            self._drop(name)

    def _make_template(self, bus: Bus | None, tables: str | Callable[[str], object]) -> str:
        name = self._create()
        database = self._database(name)
        try:
            with database.connect(autocommit=True) as conn:
                schema.migrate(conn, bus)
                if isinstance(tables, str) and tables:
                    conn.execute(tables.encode())
            if callable(tables):
                tables(database.dsn)
        except BaseException:
            self._drop(name)
            raise
        return name

    def _create(self, template: str = "template1") -> str:
        name = f"{self._prefix}_{next(self._numbers)}"
        statement = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        if self.embedded is not None:
            statement += sql.SQL(" strategy file_copy")  # a third of the time, where no checkpoint waits for a disk
        self._execute(statement)
        return name

    def _drop(self, name: str) -> None:
        self._execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with Database(self.dsn).connect(autocommit=True) as conn:
            conn.execute(statement)

    def _database(self, name: str) -> Database:
        return Database(_rename(self.dsn, name))


def _rename(dsn: str, name: str) -> str:
    """Return the address with another database in it; a URL stays one, for drivers that read nothing else."""
    if url := re.fullmatch(r"(postgres(?:ql)?://[^/?]*)(?:/[^?]*)?(\?.*)?", dsn):
        return f"{url[1]}/{name}{url[2] or ''}"
    return make_conninfo(dsn, dbname=name)
