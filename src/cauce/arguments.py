"""What to say of an argument that is something else than what is wanted: one sentence for all, made in one place.

A caller asks ``isinstance`` where that costs nothing, or comes here when an attribute turned out to be missing: what is
published correctly pays nothing for these words.
"""

from __future__ import annotations

import inspect
import re
from types import NoneType
from typing import Final

from psycopg import AsyncConnection, Connection

from cauce.errors import WrongArgument

PUBLISHING: Final = "publishing"
"""The guide to read on about connections and events; ``cauce docs NAME`` prints it."""
HANDLERS: Final = "handlers"
"""The guide about what may handle an event."""
FIRST_STEPS: Final = "first-steps"
"""The guide that makes a bus."""
DEPLOYING: Final = "deploying"
"""The guide about deploys, and about several applications on one bus."""
SETTINGS: Final = "settings"
"""The list of settings."""

_PLAIN: Final = re.compile(r"[\w.*/-]{1,60}")
"""Text that may be quoted: no address of a database, which has a password in it."""

_ELSEWHERE: Final = {
    "sqlalchemy": "psycopg's own is in it: connection.connection.driver_connection, of a session"
    " session.connection().connection.driver_connection, of an async one"
    " (await connection.get_raw_connection()).driver_connection; in a transaction that SQLAlchemy has begun",
    "django": "psycopg's own is in it: django.db.connection.connection, inside transaction.atomic()",
    "psycopg_pool": "take one from the pool: with pool.connection() as conn",
    "asyncpg": "with this driver publish in SQL: select cauce.publicar_evento($1, $2, $3)",
    "psycopg2": "with this driver publish in SQL: select cauce.publicar_evento(%s, %s, %s)",
    "psycopg": "a cursor knows its connection: cursor.connection",
    "contextlib": "enter it first: with pool.connection() as conn, async with for an async one",
    "builtins": "make one: psycopg.connect(...)",
}
"""What leads from something of a library's to a connection."""


def wrong(what: str, given: object, wanted: str, guide: str, hint: str = "") -> WrongArgument:
    """Return the error about an argument.

    Args:
        what: which one, of which function.
        given: what it is.
        wanted: what it should be.
        guide: the document to read on.
        hint: what else helps.
    """
    said = f"{what} is {describe(given)}, and should be {wanted}"
    return WrongArgument(f"{said}{'; ' if hint else ''}{hint}. Read on: cauce docs {guide}")


def expect(given: object, kinds: type | tuple[type, ...], what: str, wanted: str, guide: str) -> None:
    """Make sure that an argument is of one of these kinds; the rest as of ``wrong``.

    Raises:
        WrongArgument: it is none of them.
    """
    if not isinstance(given, kinds):
        raise wrong(what, given, wanted, guide)


def expect_connection(given: object, function: str) -> None:
    """Make sure that what a function was given is a connection of psycopg 3, sync or async.

    Raises:
        WrongArgument: it is not; how to come from the connection of another library to one is said.
    """
    if not isinstance(given, (Connection, AsyncConnection)):
        library = type(given).__module__.partition(".")[0]
        wanted = "the psycopg.Connection or AsyncConnection that your transaction runs on"
        hint = "await it first" if inspect.iscoroutine(given) else _ELSEWHERE.get(library, "")
        raise wrong(f"the connection of {function}", given, wanted, PUBLISHING, hint)


def expect_names(**names: object) -> None:
    """Make sure that columns that hold text, if they are given at all, are given text.

    Raises:
        WrongArgument: one is something else.
    """
    for name, given in names.items():
        expect(given, (str, NoneType), name, "a str", PUBLISHING)


def describe(given: object) -> str:
    """Say what something is, without its contents, which may be secret."""
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
