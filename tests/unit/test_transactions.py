"""What a handler may take as `tx`: recognized by the annotation, refused where it is written."""

import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any

import asyncpg
import psycopg2.extensions
import pytest
import sqlalchemy
import sqlmodel.ext.asyncio.session
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.base import DatabaseWrapper
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from cauce import Bus, Catalog, CatalogError, EventHandlers, Evento, EventType
from cauce.handlers import Shape, Takes, shape_of
from cauce.transactions import CHOICES, Library, Orm


def asks(kind: object, *, is_async: bool = False) -> Callable[..., Any]:
    """Make a handler whose second parameter has that annotation."""

    def sync(evento: Evento[int], tx: object) -> None:
        """Do nothing."""

    async def asynchronous(evento: Evento[int], tx: object) -> None:
        """Do nothing."""

    handler = asynchronous if is_async else sync
    handler.__annotations__["tx"] = kind
    return handler


class Own(Session):
    """An application's session."""


@pytest.mark.parametrize(
    ("kind", "is_async", "orm"),
    [
        (Session, False, Orm(Library.SQLALCHEMY, Session)),
        (Own, False, Orm(Library.SQLALCHEMY, Own)),
        (sqlmodel.Session, False, Orm(Library.SQLALCHEMY, sqlmodel.Session)),
        (AsyncSession, True, Orm(Library.SQLALCHEMY, AsyncSession)),
        (
            sqlmodel.ext.asyncio.session.AsyncSession,
            True,
            Orm(Library.SQLALCHEMY, sqlmodel.ext.asyncio.session.AsyncSession),
        ),
        (Annotated[Session, "of the shop"], False, Orm(Library.SQLALCHEMY, Session, "of the shop")),
        (DatabaseWrapper, False, Orm(Library.DJANGO, DatabaseWrapper)),
        (BaseDatabaseWrapper, False, Orm(Library.DJANGO, BaseDatabaseWrapper)),
        (Annotated[DatabaseWrapper, "orders"], False, Orm(Library.DJANGO, DatabaseWrapper, "orders")),
    ],
)
def test_an_orm_is_known_by_its_class(kind: object, is_async: bool, orm: Orm) -> None:  # noqa: FBT001 - a table
    """And by the classes it is derived from."""
    assert shape_of(asks(kind, is_async=is_async)) == Shape(is_async, Takes.TX, orm)


@pytest.mark.parametrize(
    ("kind", "is_async", "said"),
    [
        (Session, True, "is async: its tx must be an AsyncSession"),
        (AsyncSession, False, "is sync: its tx must be a Session"),
        (DatabaseWrapper, True, "make the handler a plain `def`"),
        (asyncpg.Connection, True, "Take psycopg's AsyncConnection or SQLAlchemy's AsyncSession instead"),
        (asyncpg.pool.PoolConnectionProxy, True, "asyncpg's connection cannot join the worker's transaction"),
        (psycopg2.extensions.connection, False, "Take psycopg's Connection or SQLAlchemy's Session instead"),
        (sqlalchemy.Connection, False, "take a Session"),
        (sqlalchemy.Engine, False, "take a Session"),
        (AsyncConnection, True, "an AsyncSession in an async handler"),
        (scoped_session, False, "take a Session"),
        (scoped_session[Session], False, "take a Session"),
        (async_scoped_session, True, "take a Session"),
        (Session | None, False, CHOICES),
        (int, False, CHOICES),
    ],
)
def test_what_cannot_be_in_the_transaction_is_refused(kind: object, is_async: bool, said: str) -> None:  # noqa: FBT001 - a table
    """When the bus is made, with what to take instead; the handler is named."""
    with pytest.raises(TypeError) as refused:
        shape_of(asks(kind, is_async=is_async))
    assert said in str(refused.value)
    assert "tx" in str(refused.value)


async def session_typed_only(evento: Evento[int], tx: "elsewhere.AsyncSession") -> None:  # type: ignore[name-defined]  # noqa: F821 - on purpose
    """Ask for a session that exists for type checkers only."""


def test_a_session_that_only_type_checkers_see_is_refused() -> None:
    """Psycopg's connection in its place would fail at the first event."""
    with pytest.raises(TypeError, match="import it outside `if TYPE_CHECKING:`"):
        shape_of(session_typed_only)


def test_one_annotation_that_cannot_be_read_does_not_hide_the_others() -> None:
    """The payload's may exist for type checkers only."""

    def handler(evento: "nowhere.Evento", tx: Session) -> None:  # type: ignore[name-defined]  # noqa: F821 - on purpose
        """Do nothing."""

    assert shape_of(handler).orm == Orm(Library.SQLALCHEMY, Session)


def test_the_bus_says_which_handler_it_is() -> None:
    """With its file and line, as for every fault of a bus."""

    class Formas(Catalog, origen="forma"):
        """A catalog."""

        uno = EventType("uno", int)

    with pytest.raises(CatalogError, match=r"forma/uno: the handler asks.*asyncpg's connection.*test_transactions.py"):
        Bus(catalogs=[Formas], event_handlers=EventHandlers(Formas.uno.handled_by(asks(asyncpg.Connection))))


def test_no_library_is_imported_for_who_does_not_use_it() -> None:
    """Neither by the package nor by a bus."""
    code = (
        "import sys, cauce, cauce.engine.worker, cauce.testing;"
        " print({'sqlalchemy', 'django', 'asyncpg', 'psycopg2'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
