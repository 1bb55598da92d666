"""What publishing asks of a connection, and which module answers for each library.

A library is recognized by the qualified names of the bases of a connection's type, so none is imported before one of
its connections is used. The module that answers for it is imported then, and may import the library.

Publishing is written once, as coroutines. The methods of a sync link are coroutines that never wait, so ``run_now``
runs them to their end in a single step, without an event loop.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, Final, LiteralString, Protocol, TypeAlias, TypeVar, cast

from cauce.arguments import PUBLISHING, names_of, wrong, wrong_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping

    from cauce.database.refusals import ErrorResponse

R = TypeVar("R")


class Link(Protocol):
    """The caller's connection, as publishing uses it."""

    advice: ClassVar[str]
    """How a caller begins a transaction with this library, as errors say it."""

    def begun(self) -> bool:
        """Tell whether a transaction is open, or the library opens it with the next statement."""
        ...

    def copies(self) -> bool:
        """Tell whether the connection can run a COPY now."""
        ...

    async def fetch(self, statement: LiteralString, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - the first column, of whatever type
        """Return the first column of the first row."""
        ...

    async def execute(self, command: LiteralString) -> None:
        """Run ``begin``, ``commit`` or ``rollback``."""
        ...

    async def copy(self, pieces: Iterable[str]) -> None:
        """Send the pieces by ``statements.COPIAR``."""
        ...

    def response(self, error: Exception) -> ErrorResponse | None:
        """Return what PostgreSQL said in an error of this library; None for an error that is not PostgreSQL's."""
        ...


if TYPE_CHECKING:
    Work: TypeAlias = Callable[[Link], Coroutine[Any, Any, R]]
    """What publishing does on a link."""
    Face: TypeAlias = Callable[[Any, Work[Any]], Any]
    """Do some work on a connection. The result is returned on a sync connection, and awaited on an async one."""

RECOGNIZED: Final[Mapping[str, str]] = {
    "psycopg.Connection": "psycopg3.publish",
    "psycopg.AsyncConnection": "psycopg3.publish_async",
    "psycopg2.extensions.connection": "psycopg2.publish",
    "asyncpg.connection.Connection": "asyncpg.publish_async",
    "asyncpg.pool.PoolConnectionProxy": "asyncpg.publish_async",
    "sqlalchemy.engine.base.Connection": "sqlalchemy.publish",
    "sqlalchemy.orm.session.Session": "sqlalchemy.publish_session",
    "sqlalchemy.orm.scoping.scoped_session": "sqlalchemy.publish_session",
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": "sqlalchemy.publish_async",
    "sqlalchemy.ext.asyncio.session.AsyncSession": "sqlalchemy.publish_async_session",
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": "sqlalchemy.publish_async_scoped",
    "django.db.backends.base.base.BaseDatabaseWrapper": "django.publish",
    "django.utils.connection.ConnectionProxy": "django.publish",
}
"""From a type's qualified name to the function of this package that works on its objects."""

_DRIVERS: Final[Mapping[str, str]] = {
    "psycopg.Connection": "psycopg3.Psycopg",
    "psycopg.AsyncConnection": "psycopg3.AsyncPsycopg",
    "psycopg2.extensions.connection": "psycopg2.Psycopg2",
    "asyncpg.connection.Connection": "asyncpg.Asyncpg",
}
"""From a type's qualified name to the link of the driver, for libraries that stand on a driver."""


def face_of(conn: object, function: str) -> Face:
    """Return the function that works on a connection.

    Raises:
        WrongArgument: the object is no connection that a transaction runs on; the message says what to give instead.
    """
    face: Face | None = _found(cast("Hashable", type(conn)), "face")
    if face is None:
        raise wrong_connection(conn, function)
    return face


def driver_of(conn: object, where: str) -> Link:
    """Return the link to the driver's connection that a library's connection has inside.

    Raises:
        WrongArgument: it is another driver's.
    """
    link: Callable[[Any], Link] | None = _found(cast("Hashable", type(conn)), "driver")
    if link is None:
        raise wrong(f"the driver's connection inside {where}", conn, "psycopg's, psycopg2's or asyncpg's", PUBLISHING)
    return link(conn)


@cache
def _found(kind: type, what: str) -> Any:  # noqa: ANN401 - a Face or a class of links
    table = RECOGNIZED if what == "face" else _DRIVERS
    for name in names_of(kind):
        if name in table:
            module, _, attribute = table[name].partition(".")
            return getattr(import_module(f"cauce.publishing.{module}"), attribute)
    return None


def run_now(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never waits, and return its result."""
    try:
        work.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    raise RuntimeError(f"{work} waits, although its link is sync")


def named(result: R, function: str) -> R:
    """Name a coroutine after the function that the caller called, for Python's warning about a forgotten await."""
    made: object = result
    if isinstance(made, CoroutineType):
        made.__qualname__ = function
    return result
