"""Django's ``connection`` and ``connections[alias]``, over psycopg 3 and psycopg2.

Django's cursor runs the statements, so that its logs, its wrappers and its tests see them. Only a COPY goes to the
driver's connection inside. Django's connections belong to threads and are sync, also under ASGI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.core.exceptions import SynchronousOnlyOperation  # pyright: ignore[reportMissingTypeStubs] - Django has no types

from cauce.arguments import PUBLISHING, other_database
from cauce.errors import WrongArgument
from cauce.publishing.links import driver_of, run_now
from cauce.publishing.statements import pyformat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cauce.database.refusals import ErrorResponse
    from cauce.publishing.links import R, Work


def publish(conn: Any, work: Work[R]) -> R:  # noqa: ANN401 - Django has no types
    """Work on a connection.

    Raises:
        WrongArgument: it is no connection to PostgreSQL, or a coroutine uses it.
    """
    if conn.vendor != "postgresql":
        raise other_database("Django", conn.vendor)
    try:
        conn.ensure_connection()
    except SynchronousOnlyOperation as error:
        raise WrongArgument(
            "the connection to publish on is Django's in a coroutine, and should be used in a thread; put"
            " transaction.atomic() and the publishing into a function, and await sync_to_async(function)()."
            f" See: cauce docs {PUBLISHING}"
        ) from error
    return run_now(work(Django(conn)))


class Django:
    """A connection, with the driver's connection inside."""

    __slots__ = ("conn", "driver")
    advice: ClassVar[str] = "Publish inside `with transaction.atomic():`"

    def __init__(self, conn: Any) -> None:  # noqa: ANN401 - Django has no types
        self.conn = conn
        self.driver = driver_of(conn.connection, "Django's connection")

    def begun(self) -> bool:
        """Tell whether a transaction is open."""
        return not self.conn.get_autocommit() or self.driver.begun()

    def copies(self) -> bool:
        """Tell whether the driver can."""
        return self.driver.copies()

    async def fetch(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - as Link says
        """Return the first column of the first row."""
        with self.conn.cursor() as cursor:
            cursor.execute(pyformat(statement), values or None)
            return cursor.fetchone()[0]

    async def execute(self, command: str) -> None:
        """Run a command of transactions, outside ``atomic``."""
        with self.conn.cursor() as cursor:
            cursor.execute(command)

    async def copy(self, pieces: Iterable[str]) -> None:
        """Send the pieces by the driver's COPY."""
        await self.driver.copy(pieces)

    def response(self, error: Exception) -> ErrorResponse | None:
        """Read an error of the driver, which Django may have wrapped."""
        for cause in (error, error.__cause__):
            if isinstance(cause, Exception) and (said := self.driver.response(cause)) is not None:
                return said
        return None
