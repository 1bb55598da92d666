"""What PostgreSQL refuses, in our words, where they say more than its own: one place for every caller."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from cauce.errors import (
    FOREIGN_RESTORE,
    OWNED_ELSEWHERE,
    CatalogError,
    ConfigError,
    ForeignRestore,
    SchemaError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg import Connection

    from cauce.errors import CauceError

_MISSING = (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn, errors.InvalidSchemaName)
_UNPREPARED = (errors.DuplicatePreparedStatement, errors.InvalidSqlStatementName)

_POOLER = (
    "a pooler in transaction mode (PgBouncer) stands before the database, where no prepared statement can be relied on."
    " Set CAUCE_POOLER=true for every process of cauce, and publish on connections that are made with"
    " psycopg.connect(..., prepare_threshold=None). Read on: cauce docs deploying"
)


def explained(error: psycopg.Error) -> CauceError | None:
    """Return the error that says what to do about one of PostgreSQL's; None where that one says enough.

    The caller raises it ``from`` the other.
    """
    said = error.diag.message_primary or ""
    if error.sqlstate == FOREIGN_RESTORE:
        return ForeignRestore(f"{said}. {error.diag.message_hint}")
    if error.sqlstate == OWNED_ELSEWHERE:
        return CatalogError(
            [f"{owned}. {error.diag.message_hint}" for owned in (error.diag.message_detail or "").splitlines()]
        )
    if isinstance(error, _UNPREPARED):
        return ConfigError(_POOLER)
    if isinstance(error, _MISSING) and ("cauce" in said or isinstance(error, errors.UndefinedColumn)):
        return SchemaError(
            f"the tables of schema cauce are missing or old in this database ({said}); run: cauce migrate module:bus"
        )
    return None


@contextmanager
def explaining() -> Generator[None]:
    """Raise the errors of PostgreSQL as ``explained`` has them."""
    try:
        yield
    except psycopg.Error as error:
        if (better := explained(error)) is not None:
            raise better from error
        raise


def refuse_pooler(conn: Connection[Any], dsn: str) -> None:
    """Refuse a pooler in transaction mode, where a program was not told of one.

    A pooler gives its clients a process number that is not the server's. Two clients that are connected at the same
    time and share a process of the server show that it hands it out by the transaction. A pooler that happens to give
    them two says nothing, and is found out by the first prepared statement.

    Args:
        conn: a connection in autocommit.
        dsn: the same database, for another connection if it takes one.

    Raises:
        ConfigError: it is one.
    """
    first = _process_of(conn)
    if first == conn.info.backend_pid:
        return
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10, prepare_threshold=None) as other:
        if first == _process_of(other) or first != _process_of(conn):
            raise ConfigError(_POOLER)


def _process_of(conn: Connection[Any]) -> int:
    row = conn.execute("select pg_backend_pid()", prepare=False).fetchone()
    return int(row[0]) if row else 0
