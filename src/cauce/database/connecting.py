"""Connecting to the database: the one place that opens connections for Cauce, sync and async, with one set of options.

Behind a pooler in transaction mode nothing is prepared, since the next statement may run in another session.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict

from cauce.database.refusals import POOLER
from cauce.errors import ConfigError

if TYPE_CHECKING:
    from cauce.config import Settings

CONNECT_SECONDS: Final = 10
"""Seconds to reach the database, by default."""
PREPARE_AFTER: Final = 5
"""Uses after which a statement is prepared: psycopg's default, for processes that run most statements once."""
PREPARE_AT_ONCE: Final = 0
"""For a process that runs the same statements again and again."""


def connect(
    settings: Settings, *, seconds: int = CONNECT_SECONDS, prepare: int | None = PREPARE_AFTER, name: str = "cauce"
) -> Connection[Any]:
    """Open a connection in autocommit.

    Args:
        settings: the database's address, and whether it is behind a pooler.
        seconds: seconds to reach it.
        prepare: uses after which a statement is prepared; None: never, as behind a pooler.
        name: the ``application_name`` in ``pg_stat_activity``, unless the address sets one.

    Raises:
        ConfigError: DATABASE_URL is missing, or libpq cannot read it.
        psycopg.OperationalError: the database cannot be reached, or not in time.
    """
    return psycopg.connect(address(settings), **_options(settings, seconds, prepare, name))


async def connect_async(
    settings: Settings, *, seconds: int = CONNECT_SECONDS, prepare: int | None = PREPARE_AFTER, name: str = "cauce"
) -> AsyncConnection[Any]:
    """Open an asynchronous connection; arguments and errors are those of ``connect``."""
    return await AsyncConnection.connect(address(settings), **_options(settings, seconds, prepare, name))


def address(settings: Settings) -> str:
    """Return the database's address.

    Raises:
        ConfigError: it is missing, or libpq cannot read it.
    """
    url = settings.require_database_url()
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # libpq's message would show the password
        raise ConfigError(
            "DATABASE_URL is not an address that libpq can read; write postgresql://user:password@host:5432/name"
            + _hint_about(url)
        ) from None
    return url


def refuse_pooler(conn: Connection[Any], settings: Settings) -> None:
    """Refuse a pooler in transaction mode while the setting ``pooler`` is off.

    A pooler reports process ids to its clients that are not the server's. If two clients that are connected at the same
    time share a server process, the pooler works in transaction mode. If it happens to give them two processes, this
    check does not notice, and the first prepared statement fails.

    Args:
        conn: a connection in autocommit.
        settings: the address of the same database, for a second connection.

    Raises:
        ConfigError: there is a pooler in transaction mode.
    """
    first = _process_of(conn)
    if settings.pooler or first == conn.info.backend_pid:
        return
    with connect(settings, prepare=None) as other:
        if first == _process_of(other) or first != _process_of(conn):
            raise ConfigError(POOLER)


def _process_of(conn: Connection[Any]) -> int:
    row = conn.execute("select pg_backend_pid()", prepare=False).fetchone()
    return int(row[0]) if row else 0


def _options(settings: Settings, seconds: int, prepare: int | None, name: str) -> dict[str, Any]:
    return {
        "autocommit": True,
        "connect_timeout": seconds,
        "prepare_threshold": None if settings.pooler else prepare,
        "fallback_application_name": name,
    }


def _hint_about(url: str) -> str:
    """Name a common mistake in an address, without showing any of it."""
    if url[:1] in "\"'":
        return ". It begins with a quotation mark: leave that to the shell"
    if re.match(r"(postgresql|postgres)\+\w+://", url):
        return ". It is SQLAlchemy's spelling: leave out the + and the driver's name"
    return ""
