"""What a handler gets as ``tx``: the connection of the settling transaction, or an ORM on it.

An ORM's module is imported when a handler that takes it is called for the first time: its library is the
application's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cauce.engine.views import TxView, lent
from cauce.transactions import Library

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from psycopg.pq.abc import PGconn

    from cauce.transactions import Orm


def sync_tx(orm: Orm | None, pgconn: PGconn, hooks: list[Callable[[], object]]) -> AbstractContextManager[Any]:
    """Return a context with what a sync handler takes. Leaving it after a success writes what is not written yet.

    Args:
        orm: what the handler asks for; None: psycopg's connection.
        pgconn: the libpq connection, in the transaction of the handler.
        hooks: gets what the handler leaves to be called after the commit.
    """
    if orm is None:
        return lent(pgconn, TxView)
    if orm.library is Library.DJANGO:
        from cauce.engine import django  # noqa: PLC0415 - the application's library

        return django.database(pgconn, orm.alias, hooks)
    from cauce.engine import alchemy  # noqa: PLC0415 - the application's library

    return alchemy.session(pgconn, orm.wanted)


def async_tx(orm: Orm, pgconn: PGconn) -> AbstractAsyncContextManager[Any]:
    """Return the same for an async handler that takes SQLAlchemy's session."""
    from cauce.engine import alchemy  # noqa: PLC0415 - the application's library

    return alchemy.async_session(pgconn, orm.wanted)
