"""psycopg2, which is sync and writes parameters as ``%s``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, cursor

from cauce.database.refusals import ErrorResponse
from cauce.publishing.links import run_now
from cauce.publishing.statements import COPIAR, pyformat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cauce.publishing.links import R, Work


def publish(conn: Any, work: Work[R]) -> R:  # noqa: ANN401 - psycopg2 has no types
    """Work on a connection."""
    return run_now(work(Psycopg2(conn)))


class Psycopg2:
    """A connection."""

    __slots__ = ("conn",)
    advice: ClassVar[str] = "Publish with conn.autocommit = False, inside `with conn:`"

    def __init__(self, conn: Any) -> None:  # noqa: ANN401 - psycopg2 has no types
        self.conn = conn

    def begun(self) -> bool:
        """Tell whether a transaction is open, or psycopg2 opens it with the next statement."""
        return not self.conn.autocommit or self.conn.get_transaction_status() != TRANSACTION_STATUS_IDLE

    def copies(self) -> bool:
        """Always."""
        return True

    async def fetch(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - as Link says
        """Return the first column of the first row, whatever cursors the connection makes by default."""
        with self.conn.cursor(cursor_factory=cursor) as cur:
            cur.execute(pyformat(statement), values)
            return cur.fetchone()[0]

    async def execute(self, command: str) -> None:
        """Run a command of transactions."""
        with self.conn.cursor(cursor_factory=cursor) as cur:
            cur.execute(command)

    async def copy(self, pieces: Iterable[str]) -> None:
        """Send the pieces by COPY."""
        reader = _Reader(iter(pieces))
        try:
            with self.conn.cursor(cursor_factory=cursor) as cur:
                cur.copy_expert(COPIAR, reader)
        except psycopg2.Error:
            if reader.error is not None:
                raise reader.error from None
            raise

    @staticmethod
    def response(error: Exception) -> ErrorResponse | None:
        """Read an error of psycopg2's."""
        return ErrorResponse.of(error.pgcode, error.diag) if isinstance(error, psycopg2.Error) else None


class _Reader:
    """The file that ``copy_expert`` reads; of an error in the caller's generator psycopg2 keeps only the text."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self.pieces = pieces
        self.error: BaseException | None = None

    def read(self, _size: int = -1) -> str:
        """Return the next piece; psycopg2 takes one of any size, and encodes it for the connection."""
        try:
            return next(self.pieces, "")
        except BaseException as error:
            self.error = error
            raise
