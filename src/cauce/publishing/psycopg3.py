"""psycopg 3, sync and async."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, AsyncRawCursor, BaseConnection, Connection, Cursor, RawCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from cauce.database.refusals import ErrorResponse
from cauce.publishing.links import run_now
from cauce.publishing.statements import COPIAR

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from cauce.publishing.links import R, Work

# A new cursor first looks up how to write parameters and read results, which takes a third of the client's time of a
# publish. So one cursor is kept for each connection, as an attribute of it, and is taken away while it is in use: the
# second of two tasks or threads that publish on one connection makes another.
_SPARE: Final = "_cauce_cursor"


def publish(conn: Connection[Any], work: Work[R]) -> R:
    """Work on a sync connection."""
    return run_now(work(Psycopg(conn)))


def publish_async(conn: AsyncConnection[Any], work: Work[R]) -> Coroutine[Any, Any, R]:
    """Work on an async connection."""
    return work(AsyncPsycopg(conn))


C = TypeVar("C", bound=BaseConnection[Any])


class _Either(Generic[C]):
    """What both kinds of connection answer without waiting."""

    __slots__ = ("conn",)

    def __init__(self, conn: C) -> None:
        self.conn = conn

    def begun(self) -> bool:
        """Tell whether a transaction is open, or psycopg opens it with the next statement."""
        return not self.conn.autocommit or self.conn.pgconn.transaction_status != TransactionStatus.IDLE

    def copies(self) -> bool:
        """A pipeline has no COPY."""
        return not self.conn.pgconn.pipeline_status

    @staticmethod
    def response(error: Exception) -> ErrorResponse | None:
        """Read an error of psycopg's."""
        return ErrorResponse.of(error.sqlstate, error.diag) if isinstance(error, psycopg.Error) else None


class Psycopg(_Either[Connection[Any]]):
    """A sync connection."""

    __slots__ = ()
    advice: ClassVar[str] = "Publish inside `with conn.transaction():`"

    async def fetch(self, statement: LiteralString, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - as Link says
        """Return the first column of the first row."""
        cursor = vars(self.conn).pop(_SPARE, None) or RawCursor(self.conn, row_factory=tuple_row)
        value = cursor.execute(statement, values).fetchall()[0][0]
        vars(self.conn)[_SPARE] = cursor
        return value

    async def execute(self, command: LiteralString) -> None:
        """Run a command of transactions."""
        RawCursor(self.conn).execute(command)

    async def copy(self, pieces: Iterable[str]) -> None:
        """Send the pieces by COPY."""
        with Cursor(self.conn).copy(COPIAR) as copy:
            for piece in pieces:
                copy.write(piece)


class AsyncPsycopg(_Either[AsyncConnection[Any]]):
    """An async connection."""

    __slots__ = ()
    advice: ClassVar[str] = "Publish inside `async with conn.transaction():`"

    async def fetch(self, statement: LiteralString, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - as Link says
        """Return the first column of the first row."""
        cursor = vars(self.conn).pop(_SPARE, None) or AsyncRawCursor(self.conn, row_factory=tuple_row)
        await cursor.execute(statement, values)
        value = (await cursor.fetchall())[0][0]
        vars(self.conn)[_SPARE] = cursor
        return value

    async def execute(self, command: LiteralString) -> None:
        """Run a command of transactions."""
        await AsyncRawCursor(self.conn).execute(command)

    async def copy(self, pieces: Iterable[str]) -> None:
        """Send the pieces by COPY."""
        async with AsyncCursor(self.conn).copy(COPIAR) as copy:
            for piece in pieces:
                await copy.write(piece)
