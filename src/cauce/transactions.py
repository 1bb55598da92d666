"""What a handler may take as ``tx`` beside psycopg's connections, recognized without importing any of it.

A class is known by its name and the names of its bases, so subclasses such as SQLModel's sessions are known too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from cauce.arguments import names_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class AsyncSessionLike(Protocol):
    """SQLAlchemy's ``AsyncSession``, for type checkers that may not have the library."""

    async def commit(self) -> None: ...  # noqa: D102 - the library's
    async def flush(self) -> None: ...  # noqa: D102 - the library's
    def in_nested_transaction(self) -> bool: ...  # noqa: D102 - the library's


class SessionLike(Protocol):
    """SQLAlchemy's ``Session``."""

    def commit(self) -> None: ...  # noqa: D102 - the library's
    def flush(self) -> None: ...  # noqa: D102 - the library's
    def in_nested_transaction(self) -> bool: ...  # noqa: D102 - the library's


class DjangoLike(Protocol):
    """Django's ``DatabaseWrapper``."""

    def savepoint_commit(self, sid: str, /) -> object: ...  # noqa: D102 - the library's
    def validate_no_atomic_block(self) -> object: ...  # noqa: D102 - the library's


AsyncOrm = TypeVar("AsyncOrm", bound=AsyncSessionLike)
SyncOrm = TypeVar("SyncOrm", bound=SessionLike | DjangoLike)

DEFAULT_ALIAS: Final = "default"
"""Django's name of the database that is used where none is named."""


class Library(StrEnum):
    """The library of an ORM."""

    SQLALCHEMY = "sqlalchemy"
    DJANGO = "django"


@dataclass(frozen=True, slots=True)
class Orm:
    """The ORM that a handler takes as ``tx``."""

    library: Library
    wanted: type[Any]
    """The annotated class. The handler gets an instance of it, except with Django: there, of the backend's class."""
    alias: str = DEFAULT_ALIAS
    """Django's name of the database."""


SQLALCHEMY_SYNC: Final = "sqlalchemy.orm.session.Session"
SQLALCHEMY_ASYNC: Final = "sqlalchemy.ext.asyncio.session.AsyncSession"
DJANGO: Final = "django.db.backends.base.base.BaseDatabaseWrapper"

_LIBRARIES: Final[Mapping[str, Library]] = {
    SQLALCHEMY_SYNC: Library.SQLALCHEMY,
    SQLALCHEMY_ASYNC: Library.SQLALCHEMY,
    DJANGO: Library.DJANGO,
}
# for each class: whether the handler is async; and what the other kind of handler is to take
_ASYNC: Final[Mapping[str, tuple[bool, str]]] = {
    SQLALCHEMY_SYNC: (False, "be an AsyncSession"),
    SQLALCHEMY_ASYNC: (True, "be a Session"),
    DJANGO: (False, "not be Django's: its transactions are sync, so make the handler a plain `def`"),
}

CHOICES: Final = (
    "psycopg's AsyncConnection or Connection, SQLAlchemy's AsyncSession or Session, Django's DatabaseWrapper, or"
    " cauce.Attempt"
)
"""What the second parameter of a handler can be."""

_INSTEAD: Final = (
    "Take psycopg's AsyncConnection or SQLAlchemy's AsyncSession instead (postgresql+psycopg://), or do the work in a"
    " transaction of your own, with (evento, attempt) and attempt.idempotency_key"
)
_ASYNCPG: Final = (
    "asyncpg's connection cannot join the worker's transaction: it speaks PostgreSQL's protocol on a socket of its own."
    f" {_INSTEAD}"
)
_PSYCOPG2: Final = (
    "psycopg2's connection cannot join the worker's transaction: it holds a libpq connection of its own."
    f" {_INSTEAD.replace('Async', '')}"
)
_SESSION: Final = "take a Session, or an AsyncSession in an async handler; its connection() is SQLAlchemy's connection"
_REFUSED: Final[Mapping[str, str]] = {
    "asyncpg.connection.Connection": _ASYNCPG,
    "asyncpg.pool.PoolConnectionProxy": _ASYNCPG,
    "psycopg2.extensions.connection": _PSYCOPG2,
    "sqlalchemy.engine.base.Connection": _SESSION,
    "sqlalchemy.engine.base.Engine": _SESSION,
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": _SESSION,
    "sqlalchemy.ext.asyncio.engine.AsyncEngine": _SESSION,
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": _SESSION,
    "sqlalchemy.orm.scoping.scoped_session": _SESSION,
}
ONLY_TYPED: Final = {"AsyncSession", "Session", "DatabaseWrapper", "BaseDatabaseWrapper"}
"""Names that the bus must be able to look up at run time, to make what the handler takes."""


def orm_of(kind: object, extras: tuple[object, ...], *, is_async: bool, parameter: str) -> Orm:
    """Return the ORM that a handler's annotation asks for.

    Args:
        kind: the annotated class.
        extras: what ``Annotated`` says beside it: for Django, the name of the database.
        is_async: whether the handler is async.
        parameter: the name of the annotated parameter.

    Raises:
        TypeError: it is no class that a handler can take, or one for the other kind of handler.
    """
    wanted = cast("type[Any]", kind)
    for name in names_of(wanted) if isinstance(kind, type) else ():
        if name in _REFUSED:
            raise TypeError(f"has a parameter {parameter!r} that no transaction of the bus can be: {_REFUSED[name]}")
        if name in _LIBRARIES:
            wants_async, instead = _ASYNC[name]
            if is_async is not wants_async:
                raise TypeError(f"is {'async' if is_async else 'sync'}: its {parameter} must {instead}")
            alias = next((extra for extra in extras if isinstance(extra, str)), DEFAULT_ALIAS)
            return Orm(_LIBRARIES[name], wanted, alias)
    called = getattr(kind, "__qualname__", repr(kind))
    raise TypeError(
        f"has a parameter {parameter!r}, annotated {called}, which no handler can take; it can be {CHOICES}"
    )
