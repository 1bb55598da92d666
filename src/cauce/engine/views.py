"""Views: further connection objects of psycopg over the worker's libpq connection, lent to a handler.

A view has settings of its own (adapters, row factory, handlers of notices), which end with it. The event loop does not
touch the connection while a handler has a view of it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg import AsyncConnection, Connection
from psycopg.adapt import AdaptersMap

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg.abc import AdaptContext
    from psycopg.pq.abc import PGconn

OWNED: Final = "the transaction is the bus's: return to commit, raise to roll back"
"""What a handler is told that would end its transaction."""


class TxView(Connection[Any]):
    """A sync view of an async connection that is in a transaction of ours: a handler may use it, not end it."""

    def commit(self) -> None:
        """Refuse.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"a handler must not end its transaction: {OWNED}")

    rollback = commit

    def close(self) -> None:
        """Refuse, as ``commit``."""
        self.commit()

    def __del__(self, *_: object) -> None:
        """Leave the connection open: it is only lent."""


class _OrmView:
    """What the views for ORMs have in common.

    An ORM calls ``rollback`` after an error and ``close`` in the end, both while an exception may be under way. So they
    do not raise. A rollback is noted, and the delivery fails after it, whatever the handler does.
    """

    rolled_back = False
    """Whether the ORM takes the transaction for rolled back."""
    _own: AdaptersMap | None = None

    def adapt(self, context: AdaptContext) -> None:
        """Take the ORM's adapters, for this view alone."""
        self._own = AdaptersMap(context.adapters)

    @property
    def adapters(self) -> AdaptersMap:
        """The ORM's adapters."""
        if self._own is None:
            self._own = AdaptersMap()
        return self._own

    def check(self) -> None:
        """Check that the ORM still takes the transaction for alive.

        Raises:
            RuntimeError: it was rolled back, so it must not be settled.
        """
        if self.rolled_back:
            raise RuntimeError(
                "the handler left its transaction rolled back: it must not suppress an error of a flush or of a"
                " statement; begin_nested() undoes a part"
            )


class OrmView(_OrmView, TxView):
    """A sync view for an ORM."""

    def rollback(self) -> None:
        """Note it."""
        self.rolled_back = True

    def close(self) -> None:
        """Do nothing: the view ends with the handler."""


class AsyncOrmView(_OrmView, AsyncConnection[Any]):
    """An async view for an ORM."""

    async def commit(self) -> None:
        """Refuse, as a sync view does."""
        raise RuntimeError(f"a handler must not end its transaction: {OWNED}")

    async def rollback(self) -> None:
        """Note it."""
        self.rolled_back = True

    async def close(self) -> None:
        """Do nothing: the view ends with the handler."""

    def __del__(self, *_: object) -> None:
        """Leave the connection open: it is only lent."""


V = TypeVar("V", bound=TxView | AsyncOrmView)


@contextmanager
def lent(pgconn: PGconn, kind: type[V]) -> Generator[V]:
    """Lend a connection by a view, and give the connection its own handlers of notices and notifications back.

    A view prepares nothing: the names of prepared statements are the other connection object's to give.
    """
    handlers = pgconn.notice_handler, pgconn.notify_handler
    try:
        view = kind(pgconn)  # which sets handlers of its own
        view.prepare_threshold = None
        yield view
    finally:
        pgconn.notice_handler, pgconn.notify_handler = handlers
