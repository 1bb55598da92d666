"""Turns PostgreSQL's errors into Cauce's where those say more: one place for every caller."""

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
    "the database is behind a pooler in transaction mode (PgBouncer), where prepared statements do not work."
    " Set CAUCE_POOLER=true for every process of cauce, and publish on connections made with"
    " psycopg.connect(..., prepare_threshold=None). See: cauce docs deploying"
)


def explained(error: psycopg.Error) -> CauceError | None:
    """Return Cauce's error for one of PostgreSQL's; None if there is none, because PostgreSQL's says enough.

    The caller raises it ``from`` PostgreSQL's.
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
    """Raise what ``explained`` returns instead of PostgreSQL's errors."""
    try:
        yield
    except psycopg.Error as error:
        if (better := explained(error)) is not None:
            raise better from error
        raise


def refuse_pooler(conn: Connection[Any], dsn: str) -> None:
    """Refuse a pooler in transaction mode while the setting ``pooler`` is off.

    A pooler reports process ids to its clients that are not the server's. If two clients that are connected at the same
    time share a server process, the pooler works in transaction mode. If it happens to give them two processes, this
    check does not notice, and the first prepared statement fails.

    Args:
        conn: a connection in autocommit.
        dsn: the address of the same database, for a second connection.

    Raises:
        ConfigError: there is a pooler in transaction mode.
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
