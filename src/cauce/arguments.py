"""Checks of arguments, and the errors about wrong ones: every such message is built here, in one form.

A caller checks with ``isinstance`` where that costs nothing, or calls ``wrong`` after an attribute turned out to be
missing. So correct arguments cost no time.
"""

from __future__ import annotations

import inspect
import re
from types import NoneType
from typing import Final

from psycopg import AsyncConnection, Connection

from cauce.errors import WrongArgument

PUBLISHING: Final = "publishing"
"""The guide about connections and events; ``cauce docs NAME`` prints a guide."""
HANDLERS: Final = "handlers"
"""The guide about handlers."""
FIRST_STEPS: Final = "first-steps"
"""The guide that shows how to make a bus."""
DEPLOYING: Final = "deploying"
"""The guide about deploys, and about several applications on one bus."""
SETTINGS: Final = "settings"
"""The list of settings."""

_PLAIN: Final = re.compile(r"[\w.*/-]{1,60}")
"""Text that an error may quote. The address of a database, which contains a password, does not match."""

_ELSEWHERE: Final = {
    "sqlalchemy": "it wraps a psycopg connection: connection.connection.driver_connection, of a session"
    " session.connection().connection.driver_connection, of an async connection"
    " (await connection.get_raw_connection()).driver_connection; use it in a transaction that SQLAlchemy has begun",
    "django": "it wraps a psycopg connection: django.db.connection.connection; use it inside transaction.atomic()",
    "psycopg_pool": "take one from the pool: with pool.connection() as conn",
    "asyncpg": "with this driver publish in SQL: select cauce.publicar_evento($1, $2, $3)",
    "psycopg2": "with this driver publish in SQL: select cauce.publicar_evento(%s, %s, %s)",
    "psycopg": "a cursor has its connection: cursor.connection",
    "contextlib": "enter it first: with pool.connection() as conn, async with for an async pool",
    "builtins": "make one: psycopg.connect(...)",
}
"""For each library, how to get a psycopg connection from one of its objects."""


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


def expect_connection(given: object, function: str) -> None:
    """Check that an argument is a psycopg 3 connection, sync or async.

    Raises:
        WrongArgument: it is not. For known libraries the message says how to get the psycopg connection.
    """
    if not isinstance(given, (Connection, AsyncConnection)):
        library = type(given).__module__.partition(".")[0]
        wanted = "the psycopg.Connection or AsyncConnection that your transaction runs on"
        hint = "await it first" if inspect.iscoroutine(given) else _ELSEWHERE.get(library, "")
        raise wrong(f"the connection of {function}", given, wanted, PUBLISHING, hint)


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
