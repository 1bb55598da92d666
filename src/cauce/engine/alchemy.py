"""SQLAlchemy's sessions inside the settling transaction, on the worker's connection.

There is one engine in a process for sync sessions and one for async ones. They have no pool: each "connects" to the
view that ``_view`` holds at that moment. So its dialect is initialized once, by the first handler that runs.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import NullPool, create_engine, event

from cauce.engine.views import OWNED, AsyncOrmView, OrmView, lent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from psycopg.abc import AdaptContext
    from psycopg.pq.abc import PGconn
    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session, SessionTransaction

URL: Final = "postgresql+psycopg://"
OPTIONS: Final[dict[str, Any]] = {
    "poolclass": NullPool,
    "pool_reset_on_return": None,
    "use_native_hstore": False,  # a query for each process, whose answer depends on the database
}
JOINS: Final = "rollback_only"
"""A session of ours cannot commit the transaction it joins (``join_transaction_mode``)."""

_view: ContextVar[OrmView | AsyncOrmView | None] = ContextVar("view", default=None)
"""What the engines connect to; None: nothing, for no handler is just being called."""


@contextmanager
def session(pgconn: PGconn, wanted: type[Session]) -> Generator[Session]:
    """Make a session in the transaction the connection is in; flush it if the block succeeds, and close it.

    Args:
        pgconn: the libpq connection.
        wanted: the session's class.

    Raises:
        RuntimeError: the block has left the transaction rolled back, or a savepoint open.
        Exception: the flush failed.
    """
    with lent(pgconn, OrmView) as view:
        token = _view.set(view)
        try:
            connection = _engine.connect()
        finally:
            _view.reset(token)
        with connection:
            connection.begin()
            view.rolled_back = False  # the dialect's initialization ends in a rollback
            one = _owned(wanted)(bind=connection, join_transaction_mode=JOINS)
            try:
                yield one
                _check_savepoints(one)
                one.flush()
                view.check()
            finally:
                wanted.close(one)


@asynccontextmanager
async def async_session(pgconn: PGconn, wanted: type[AsyncSession]) -> AsyncGenerator[AsyncSession]:
    """Do the same as ``session`` for an async handler."""
    sync_class = wanted.sync_session_class
    with lent(pgconn, AsyncOrmView) as view:
        token = _view.set(view)
        try:
            connection = await _async_engine().connect()
        finally:
            _view.reset(token)
        async with aclosing(connection):
            await connection.begin()
            view.rolled_back = False
            one = wanted(bind=connection, sync_session_class=_owned(sync_class), join_transaction_mode=JOINS)
            try:
                yield one
                _check_savepoints(one)
                await one.flush()
                view.check()
            finally:
                await one.run_sync(sync_class.close)


def _check_savepoints(session: Session | AsyncSession) -> None:
    """Check that no savepoint is open: closing the session would undo it, and the event would be settled all the same.

    Raises:
        RuntimeError: one is.
    """
    if session.in_nested_transaction():
        raise RuntimeError(
            "the handler left a savepoint open, so what it wrote there would be lost: use `with tx.begin_nested():`"
            " (`async with` on an AsyncSession), or commit what begin_nested() returns"
        )


def _own(wanted: type[Session]) -> type[Session]:
    """Make that subclass."""

    class OwnedSession(wanted):  # type: ignore[valid-type, misc]  # a base that is known at run time only
        """A session that cannot end its transaction."""

        def commit(self) -> None:
            """Refuse.

            Raises:
                RuntimeError: always.
            """
            raise RuntimeError(f"a handler must not end its session's transaction: {OWNED}")

        rollback = close = reset = invalidate = prepare = commit

        def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
            """Begin a savepoint, or refuse."""
            if not nested:
                raise RuntimeError(
                    f"the handler's session is in a transaction already, and {OWNED}; begin_nested() makes a savepoint"
                )
            made: SessionTransaction = super().begin(nested=True)
            return made

        def get_bind(self, *_: object, **__: object) -> Connection:
            """Return the connection, also if the base chooses among several databases."""
            return cast("Connection", self.bind)

    OwnedSession.__name__, OwnedSession.__qualname__, OwnedSession.__module__ = (
        wanted.__name__,
        wanted.__qualname__,
        wanted.__module__,
    )
    return OwnedSession


_made: Final[dict[type[Session], type[Session]]] = {}


def _owned(wanted: type[Session]) -> type[Session]:
    """Return the subclass of a session's class whose transaction is the bus's, made once."""
    if wanted not in _made:
        _made[wanted] = _own(wanted)
    return _made[wanted]


def _lent_view(context: AdaptContext) -> OrmView | AsyncOrmView:
    """Return what an engine connects to, with the adapters of its dialect.

    Raises:
        RuntimeError: somebody else than the bus connects.
    """
    view = _view.get()
    if view is None:
        raise RuntimeError(
            "the engine of a handler's session has no connection but the bus's; for another one, make an engine"
        )
    view.adapt(context)
    return view


def _connect(_: Dialect, __: object, ___: object, options: dict[str, Any]) -> OrmView | AsyncOrmView:
    return _lent_view(options["context"])


_engine: Final = create_engine(URL, **OPTIONS)
event.listen(_engine, "do_connect", _connect)


@cache
def _async_engine() -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - needs greenlet, which SQLAlchemy does not

    engine = create_async_engine(URL, **OPTIONS)

    def connect(dialect: Dialect, _: object, __: object, options: dict[str, Any]) -> object:
        view = _lent_view(options["context"])

        async def given() -> OrmView | AsyncOrmView:
            return view

        return dialect.loaded_dbapi.connect(async_creator_fn=given)

    event.listen(engine.sync_engine, "do_connect", connect)
    return engine
