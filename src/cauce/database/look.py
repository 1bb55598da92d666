"""A look at the bus: one read-only snapshot, bounded in rows and time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg

from cauce import sql
from cauce.database import schema
from cauce.errors import CauceError

if TYPE_CHECKING:
    from psycopg import Connection

LOOK_SECONDS: Final = 15.0
"""Seconds that each statement of a look may take, waits for locks included. A look normally takes milliseconds."""


@contextmanager
def look(conn: Connection[Any]) -> Generator[None]:
    """Run read-only statements in a transaction, on tables of this program's version.

    Args:
        conn: a connection in autocommit.

    Raises:
        SchemaError: the tables are missing, older or newer.
        CauceError: a statement took longer than ``LOOK_SECONDS``.
    """
    try:
        with conn.transaction():
            conn.execute(sql.query("look"))
            conn.execute("select set_config('statement_timeout', %s, true)", (f"{LOOK_SECONDS * 1000:.0f}ms",))
            schema.check_version(conn)
            yield
    except psycopg.errors.QueryCanceled as error:
        raise CauceError(
            f"this took longer than {LOOK_SECONDS:g} s and was stopped: the database is overloaded, or a session holds"
            " a lock on a table of schema cauce. pg_stat_activity shows the sessions, pg_blocking_pids(pid) who blocks"
        ) from error
