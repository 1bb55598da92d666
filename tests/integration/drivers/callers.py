"""Applications that publish, one for each kind of connection or session; all are driven the same way by a test."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import cache, partial
from importlib import import_module
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import django
import psycopg
import psycopg2
import sqlalchemy as sa
import sqlmodel
from django.conf import settings as django_settings
from django.db import connections
from django.db import transaction as django_transaction
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession as AsyncModelSession

from cauce import publicar_evento, publicar_eventos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Caller:
    """An application with one connection or session, ``given``, on which it publishes."""

    given: Any
    words: str
    """What the refusal of autocommit tells it to do."""

    def wait(self, result: Any) -> Any:
        """Return what a call returned, awaited if need be."""
        return result

    def publish(self, *arguments: Any, **more: Any) -> int:
        """Publish one event."""
        return int(self.wait(publicar_evento(self.given, *arguments, **more)))

    def publish_all(self, *arguments: Any, **more: Any) -> list[int]:
        """Publish many."""
        result = self.wait(publicar_eventos(self.given, *arguments, **more))
        assert isinstance(result, list)
        return result

    def execute(self, statement: str) -> None:
        """Run a statement of the application's own."""
        self.wait(self.given.execute(statement))

    def transaction(self) -> AbstractContextManager[object]:
        """Begin as the library does."""
        raise NotImplementedError

    def savepoint(self) -> AbstractContextManager[object]:
        """Set a savepoint as the library does."""
        raise NotImplementedError

    @contextmanager
    def loose(self) -> Iterator[None]:
        """Be in autocommit and in no transaction."""
        yield

    def close(self) -> None:
        """Close the connection."""
        self.wait(self.given.close())


class Awaiting(Caller):
    """One with a loop of its own."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def wait(self, result: Any) -> Any:
        """Await it in the loop."""

        async def awaited() -> Any:
            return await result

        return self.runner.run(awaited()) if isawaitable(result) else result

    @contextmanager
    def entered(self, block: AbstractAsyncContextManager[Any]) -> Iterator[Any]:
        """Be inside an ``async with``."""
        inside = self.wait(block.__aenter__())
        try:
            yield inside
        except BaseException:
            if not self.wait(block.__aexit__(*sys.exc_info())):
                raise
        else:
            self.wait(block.__aexit__(None, None, None))

    def close(self) -> None:
        """Close the loop, too."""
        super().close()
        self.runner.close()


class WithPsycopg(Caller):
    """psycopg 3."""

    words = r"inside `with conn\.transaction\(\):`"

    def __init__(self, dsn: str) -> None:
        self.given = psycopg.connect(dsn, autocommit=True)

    def transaction(self) -> AbstractContextManager[object]:
        """Begin, or set a savepoint."""
        return self.given.transaction()  # type: ignore[no-any-return]  # psycopg's

    savepoint = transaction


class WithAsyncPsycopg(Awaiting):
    """psycopg 3, async."""

    words = r"inside `async with conn\.transaction\(\):`"

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.given = self.wait(psycopg.AsyncConnection.connect(dsn, autocommit=True))

    def transaction(self) -> AbstractContextManager[object]:
        """Begin, or set a savepoint."""
        return self.entered(self.given.transaction())

    savepoint = transaction


class WithPsycopg2(Caller):
    """psycopg2."""

    words = r"conn\.autocommit = False, inside `with conn:`"

    def __init__(self, dsn: str) -> None:
        self.given = psycopg2.connect(dsn)

    def execute(self, statement: str) -> None:
        """Run it with a cursor."""
        with self.given.cursor() as cursor:
            cursor.execute(statement)

    def transaction(self) -> AbstractContextManager[object]:
        """Commit at the end of the block, or roll back."""
        return self.given  # type: ignore[no-any-return]  # psycopg2 has no types

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """psycopg2 leaves them to SQL."""
        self.execute("savepoint uno")
        try:
            yield
        except BaseException:
            self.execute("rollback to savepoint uno")
            raise
        self.execute("release savepoint uno")

    @contextmanager
    def loose(self) -> Iterator[None]:
        """Be in autocommit for a while."""
        self.given.autocommit = True
        yield
        self.given.autocommit = False


class WithAsyncpg(Awaiting):
    """asyncpg, with a connection of its own, or with one of a pool's."""

    words = r"inside `async with conn\.transaction\(\):`"

    def __init__(self, dsn: str, *, pooled: bool = False) -> None:
        super().__init__()
        self.pool = self.wait(self.open_pool(dsn)) if pooled else None
        self.given = self.wait(asyncpg.connect(dsn) if self.pool is None else self.pool.acquire())

    @staticmethod
    async def open_pool(dsn: str) -> Any:
        """Make a pool of one connection, in the loop that it is for."""
        return await asyncpg.create_pool(dsn, min_size=1, max_size=1)

    def transaction(self) -> AbstractContextManager[object]:
        """Begin, or set a savepoint."""
        return self.entered(self.given.transaction())

    savepoint = transaction

    def close(self) -> None:
        """Give it back first."""
        if self.pool is not None:
            self.wait(self.pool.release(self.given))
            self.given = self.pool
        super().close()


class WithAlchemy(Caller):
    """SQLAlchemy, or SQLModel."""

    words = r'without isolation_level="AUTOCOMMIT"'

    def __init__(self, dsn: str, *, driver: str, make: Callable[[Any], Any]) -> None:
        self.make = make
        self.engine = sa.create_engine(address(dsn, driver))
        self.given = make(self.engine)

    def execute(self, statement: str) -> None:
        """Run it as a text; that begins, outside of a block."""
        self.given.execute(sa.text(statement))

    def transaction(self) -> AbstractContextManager[object]:
        """Begin."""
        return self.given.begin()  # type: ignore[no-any-return]  # SQLAlchemy's

    def savepoint(self) -> AbstractContextManager[object]:
        """Set one."""
        return self.given.begin_nested()  # type: ignore[no-any-return]  # SQLAlchemy's

    @contextmanager
    def loose(self) -> Iterator[None]:
        """Have another, whose engine is in autocommit."""
        usual, self.given = self.given, self.make(self.engine.execution_options(isolation_level="AUTOCOMMIT"))
        yield
        self.given.close()
        self.given = usual

    def close(self) -> None:
        """Close what there is, and the engine."""
        self.given.close()
        self.engine.dispose()


class WithAsyncAlchemy(Awaiting):
    """SQLAlchemy, or SQLModel, async."""

    words = r'without isolation_level="AUTOCOMMIT"'

    def __init__(self, dsn: str, *, driver: str, make: Callable[[Any], Any]) -> None:
        super().__init__()
        self.make = make
        self.engine = create_async_engine(address(dsn, driver))
        self.given = self.open(self.engine)

    def open(self, engine: object) -> Any:
        """Make one; a connection is awaited, a session is not."""
        made = self.make(engine)
        return self.wait(made) if isinstance(made, AsyncConnection) else made

    def execute(self, statement: str) -> None:
        """Run it as a text; that begins, outside of a block."""
        conn = self.given if isinstance(self.given, AsyncConnection) else self.wait(self.given.connection())
        self.wait(conn.execute(sa.text(statement)))

    def transaction(self) -> AbstractContextManager[object]:
        """Begin."""
        return self.entered(self.given.begin())

    def savepoint(self) -> AbstractContextManager[object]:
        """Set one."""
        return self.entered(self.given.begin_nested())

    @contextmanager
    def loose(self) -> Iterator[None]:
        """Have another, whose engine is in autocommit."""
        usual, self.given = self.given, self.open(self.engine.execution_options(isolation_level="AUTOCOMMIT"))
        yield
        self.wait(self.given.close())
        self.given = usual

    def close(self) -> None:
        """Close what there is, and the engine."""
        self.wait(self.given.close())
        self.wait(self.engine.dispose())
        self.runner.close()


class WithDjango(Caller):
    """Django."""

    words = r"inside `with transaction\.atomic\(\):`"

    def __init__(self, dsn: str, *, driver: str) -> None:
        self.alias = f"con_{driver}"
        connections[self.alias] = self.given = backend(driver)(database(dsn), self.alias)

    def execute(self, statement: str) -> None:
        """Run it with a cursor."""
        with self.given.cursor() as cursor:
            cursor.execute(statement)

    def transaction(self) -> AbstractContextManager[object]:
        """Begin, or set a savepoint."""
        return django_transaction.atomic(using=self.alias)  # type: ignore[no-any-return]  # Django has no types

    savepoint = transaction


def address(dsn: str, driver: str) -> sa.URL:
    """Return the address as SQLAlchemy reads it."""
    return sa.make_url(dsn).set(drivername=f"postgresql+{driver}")


def database(dsn: str) -> dict[str, Any]:
    """Return an entry of Django's DATABASES."""
    if not django_settings.configured:
        django_settings.configure()
        django.setup()
    name = conninfo_to_dict(dsn)
    return {
        **{key.upper(): name.get(libpq) or "" for key, libpq in
           {"name": "dbname", "user": "user", "password": "password", "host": "host", "port": "port"}.items()},
        "ENGINE": "django.db.backends.postgresql", "TIME_ZONE": None, "AUTOCOMMIT": True, "OPTIONS": {},
        "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False, "ATOMIC_REQUESTS": False, "TEST": {},
    }  # fmt: skip


@cache
def backend(driver: str) -> Any:
    """Return Django's class of connections over a driver.

    Django takes psycopg 3 if it is there. So its modules are loaded once more, while psycopg 3 is out of sight.
    """
    name = "django.db.backends.postgresql"
    if driver == "psycopg":
        return import_module(f"{name}.base").DatabaseWrapper
    hidden = {key: module for key, module in sys.modules.items() if key.startswith((name, "psycopg."))}
    hidden["psycopg"] = sys.modules["psycopg"]
    for key in hidden:
        del sys.modules[key]
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # an import fails then
    try:
        return import_module(f"{name}.base").DatabaseWrapper
    finally:
        for key in [key for key in sys.modules if key.startswith(name)]:
            del sys.modules[key]
        sys.modules.update(hidden)


SYNC: Final[dict[str, Callable[[Any], Any]]] = {
    "Connection": lambda engine: engine.connect(),
    "Session": Session,
    "scoped_session": lambda engine: scoped_session(sessionmaker(engine)),
    "SQLModel": sqlmodel.Session,
}
ASYNC: Final[dict[str, Callable[[Any], Any]]] = {
    "AsyncConnection": lambda engine: engine.connect(),
    "AsyncSession": AsyncSession,
    "async_scoped_session": lambda engine: async_scoped_session(async_sessionmaker(engine), lambda: "one"),
    "SQLModel async": AsyncModelSession,
}
CALLERS: Final[dict[str, Callable[[str], Caller]]] = {
    "psycopg": WithPsycopg,
    "psycopg async": WithAsyncPsycopg,
    "psycopg2": WithPsycopg2,
    "asyncpg": WithAsyncpg,
    "asyncpg pool": partial(WithAsyncpg, pooled=True),
    **{
        f"{name} over {driver}": partial(WithAlchemy, driver=driver, make=make)
        for name, make in SYNC.items()
        for driver in ("psycopg", "psycopg2")
    },
    **{
        f"{name} over {driver}": partial(WithAsyncAlchemy, driver=driver, make=make)
        for name, make in ASYNC.items()
        for driver in ("psycopg", "asyncpg")
    },
    "Django over psycopg": partial(WithDjango, driver="psycopg"),
    "Django over psycopg2": partial(WithDjango, driver="psycopg2"),
}
"""By name."""
