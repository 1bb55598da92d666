"""SQLAlchemy's connections and sessions, SQLModel's among them, over psycopg, psycopg2 and asyncpg.

SQLAlchemy's connection runs the statements: it begins its transaction as with any statement, logs, and notices a lost
connection. Only a COPY, which SQLAlchemy does not have, goes to the driver's connection inside. An async connection or
session lends the sync one that it wraps (``run_sync``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy.exc import DBAPIError, UnboundExecutionError

from cauce.arguments import PUBLISHING, other_database, wrong
from cauce.publishing.links import driver_of, run_now
from cauce.publishing.statements import as_text, pyformat

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    from cauce.database.refusals import ErrorResponse
    from cauce.publishing.links import R, Work

_NO_STREAM: Final[Mapping[str, bool]] = {"stream_results": False}
"""A server-side cursor, which a connection may be set to, cannot run an INSERT."""


def publish(conn: Connection, work: Work[R]) -> R:
    """Work on a connection."""
    return run_now(work(Alchemy(conn)))


def publish_session(session: Session | scoped_session[Any], work: Work[R]) -> R:
    """Work on a session's connection.

    Raises:
        WrongArgument: the session has several engines.
    """
    try:
        conn = session.connection()
    except UnboundExecutionError as error:
        wanted = "a session with one engine"
        hint = "give session.connection(bind_arguments={'mapper': TheMappedClass})"
        raise wrong("the session to publish on", session, wanted, PUBLISHING, hint) from error
    return publish(conn, work)


async def publish_async(conn: AsyncConnection, work: Work[R]) -> R:
    """Work on an async connection."""
    return await conn.run_sync(publish, work)


async def publish_async_session(session: AsyncSession, work: Work[R]) -> R:
    """Work on an async session's connection."""
    return await session.run_sync(publish_session, work)


def publish_async_scoped(session: async_scoped_session[Any], work: Work[R]) -> Coroutine[Any, Any, R]:
    """Work on the connection of the task's session."""
    return publish_async_session(session(), work)


class Alchemy:
    """A connection, with the driver's connection inside.

    Raises:
        WrongArgument: it is no connection to PostgreSQL, or its driver is unknown.
    """

    __slots__ = ("conn", "dbapi", "driver")
    advice: ClassVar[str] = 'Publish on a connection without isolation_level="AUTOCOMMIT"'

    def __init__(self, conn: Connection) -> None:
        if conn.dialect.name != "postgresql":
            raise other_database("SQLAlchemy", conn.dialect.name)
        self.conn = conn
        self.dbapi: Any = conn.connection.dbapi_connection
        self.driver = driver_of(conn.connection.driver_connection, "SQLAlchemy's connection")

    def begun(self) -> bool:
        """Tell whether a transaction is open, or SQLAlchemy opens it with the next statement."""
        return not self.dbapi.autocommit or self.driver.begun()

    def copies(self) -> bool:
        """Tell whether the driver can."""
        return self.driver.copies()

    async def fetch(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - as Link says
        """Return the first column of the first row."""
        own = as_text if self.conn.dialect.paramstyle == "numeric_dollar" else pyformat
        return self.conn.exec_driver_sql(own(statement), values or None, execution_options=_NO_STREAM).scalar_one()

    async def execute(self, command: str) -> None:
        """Run a command of transactions, which SQLAlchemy leaves to the caller in autocommit."""
        self.conn.exec_driver_sql(command)

    async def copy(self, pieces: Iterable[str]) -> None:
        """Send the pieces by the driver's COPY; an async driver is awaited by SQLAlchemy."""
        if hasattr(self.dbapi, "run_async"):

            def copy(_inside: object) -> Coroutine[Any, Any, None]:
                return self.driver.copy(pieces)

            self.dbapi.run_async(copy)
        else:
            await self.driver.copy(pieces)

    def response(self, error: Exception) -> ErrorResponse | None:
        """Read an error of the driver, which SQLAlchemy may have wrapped, and for asyncpg has wrapped twice."""
        inner = error.orig if isinstance(error, DBAPIError) else error
        for cause in (inner, inner and inner.__cause__):
            if isinstance(cause, Exception) and (said := self.driver.response(cause)) is not None:
                return said
        return None
