"""Checks of arguments, and the errors about wrong ones: every such message is built here, in one form.

A caller checks with ``isinstance`` where that costs nothing, or calls ``wrong`` after an attribute turned out to be
missing. So correct arguments cost no time.
"""

from __future__ import annotations

import inspect
import re
from types import NoneType
from typing import TYPE_CHECKING, Final

from cauce.errors import WrongArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLISHING: Final = "publishing"
"""The guide about connections and events; ``cauce docs NAME`` prints a guide."""
HANDLERS: Final = "handlers"
"""The guide about handlers."""
FIRST_STEPS: Final = "first-steps"
"""The guide that shows how to make a bus."""
CHANGING: Final = "changing"
"""The guide about versions of an event."""
DEPLOYING: Final = "deploying"
"""The guide about deploys, and about several applications on one bus."""
SETTINGS: Final = "settings"
"""The list of settings."""

_PLAIN: Final = re.compile(r"[\w.*/-]{1,60}")
"""Text that an error may quote. The address of a database, which contains a password, does not match."""

_POOL: Final = "take one from the pool: with pool.connection() as conn"
_SESSIONMAKER: Final = "make a session: with maker.begin() as session, async with for an async one"
_ENTER: Final = "enter it first, and give the connection: with pool.connection() as conn"
_CURSOR: Final = "a cursor has its connection: cursor.connection"
_TRANSACTION: Final = "a transaction has its connection: transaction.connection"
_INSTEAD: Final = {
    "sqlalchemy.engine.base.Engine": "begin a transaction: with engine.begin() as connection",
    "sqlalchemy.engine.base.Transaction": _TRANSACTION,
    "sqlalchemy.ext.asyncio.engine.AsyncEngine": "begin a transaction: async with engine.begin() as connection",
    "sqlalchemy.ext.asyncio.engine.AsyncTransaction": _TRANSACTION,
    "sqlalchemy.ext.asyncio.session.AsyncSessionTransaction": "give the session: transaction.session",
    "sqlalchemy.ext.asyncio.session.async_sessionmaker": _SESSIONMAKER,
    "sqlalchemy.orm.session.SessionTransaction": "give the session: transaction.session",
    "sqlalchemy.orm.session.sessionmaker": _SESSIONMAKER,
    "sqlalchemy.pool.base.PoolProxiedConnection": "it has the driver's connection: connection.driver_connection",
    "django.db.backends.utils.CursorWrapper": "a cursor has its connection: cursor.db",
    "django.db.utils.ConnectionHandler": "choose one: connections['default']",
    "django.db.transaction.Atomic": "give django.db.connection, inside the block",
    "psycopg_pool.pool.ConnectionPool": _POOL,
    "psycopg_pool.pool_async.AsyncConnectionPool": "take one from the pool: async with pool.connection() as conn",
    "psycopg2.pool.AbstractConnectionPool": "take one from the pool: pool.getconn()",
    "psycopg2.extensions.cursor": _CURSOR,
    "psycopg.AsyncCursor": _CURSOR,
    "psycopg.Cursor": _CURSOR,
    "asyncpg.pool.Pool": "take one from the pool: async with pool.acquire() as conn, conn.transaction()",
    "asyncpg.pool.PoolAcquireContext": "enter it first: async with pool.acquire() as conn",
    "asyncpg.transaction.Transaction": "give the connection on which you began it",
    "contextlib.AbstractContextManager": _ENTER,
    "contextlib.AbstractAsyncContextManager": f"{_ENTER}, async with for an async pool",
    "builtins.str": "make one: psycopg.connect(...)",
}
"""By qualified name of a type: what to give instead of one of its objects."""


def wrong(what: str, given: object, wanted: str, guide: str, hint: str = "") -> WrongArgument:
    """Return the error about an argument.

    Args:
        what: the argument and its function, as in "the event of publicar_evento".
        given: the value that was passed.
        wanted: what the value should be.
        guide: the name of the guide that explains it.
        hint: how to get the wanted value, if there is a short way.
    """
    said = f"{what} is {describe(given)}, and should be {wanted}"
    return WrongArgument(f"{said}{'; ' if hint else ''}{hint}. See: cauce docs {guide}")


def expect(given: object, kinds: type | tuple[type, ...], what: str, wanted: str, guide: str) -> None:
    """Check that an argument is an instance of one of ``kinds``; the other arguments are those of ``wrong``.

    Raises:
        WrongArgument: it is not.
    """
    if not isinstance(given, kinds):
        raise wrong(what, given, wanted, guide)


def names_of(kind: type) -> Iterator[str]:
    """Return the qualified names of a type and its bases: a library is recognized by them and not imported."""
    return (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)


def wrong_connection(given: object, function: str) -> WrongArgument:
    """Return the error about an object that no transaction runs on, which says what to give instead."""
    wanted = "the connection or session that your transaction runs on"
    hints = (_INSTEAD[name] for name in names_of(type(given)) if name in _INSTEAD)
    hint = "await it first" if inspect.iscoroutine(given) else next(hints, "")
    return wrong(f"the connection of {function}", given, wanted, PUBLISHING, hint)


def other_database(library: str, vendor: str) -> WrongArgument:
    """Return the error about a library's connection to a database that is not PostgreSQL."""
    return WrongArgument(
        f"the connection to publish on is {library}'s to {vendor}, and should be one to PostgreSQL, in the database"
        f" of the events. See: cauce docs {PUBLISHING}"
    )


def expect_names(**names: object) -> None:
    """Check that each named argument is a str or None.

    Raises:
        WrongArgument: one is something else.
    """
    for name, given in names.items():
        expect(given, (str, NoneType), name, "a str", PUBLISHING)


def describe(given: object) -> str:
    """Describe a value by its type, without its contents, which may be secret."""
    if given is None:
        return "None"
    if inspect.isclass(given):
        return f"the class {given.__qualname__}"
    if inspect.isroutine(given):
        return f"the function {given.__qualname__}"
    if isinstance(given, str):
        return f"the text {given!r}" if _PLAIN.fullmatch(given) else "a text"
    kind = type(given)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
