"""Django's ORM inside the settling transaction, on the worker's connection.

While a handler runs, ``django.db.connections[alias]`` of its thread is a wrapper of the worker's connection. It is
in an atomic block, so Django commits nothing, and every ``atomic`` of the handler is a savepoint.
"""

# Django has no types in its wheel.
# pyright: basic, reportMissingTypeStubs=false

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from django.apps import apps
from django.db import connections, transaction
from psycopg.pq import TransactionStatus

from cauce.engine.views import OWNED, OrmView, lent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper as Wrapper
    from psycopg.pq.abc import PGconn


@contextmanager
def database(pgconn: PGconn, alias: str, hooks: list[Callable[[], object]]) -> Generator[Wrapper]:
    """Let Django's database of that name be the transaction the connection is in, in this thread.

    Args:
        pgconn: the libpq connection.
        alias: Django's name of the database.
        hooks: gets what was registered with ``transaction.on_commit``, if the block succeeds.

    Raises:
        RuntimeError: the block has marked its transaction for rollback.
        TypeError: the database is not PostgreSQL by psycopg 3.
    """
    usual = connections[alias]
    _check(usual)
    with lent(pgconn, OrmView) as view:
        owned = _owned(type(usual))(usual.settings_dict, alias)
        options = owned.get_connection_params()
        view.adapt(options["context"])
        view.cursor_factory = options["cursor_factory"]
        owned.connection = view
        connections[alias] = owned
        try:
            _register_types(owned)
            block = cast("AbstractContextManager[None]", transaction.atomic(using=alias, savepoint=False))
            with _time_zone(view, owned.timezone_name), block:
                yield owned
                if owned.needs_rollback:
                    raise RuntimeError(
                        "the handler left its transaction marked for rollback: it must not suppress an error of the"
                        " database; atomic() around the statement that may fail undoes that part"
                    )
            hooks.extend(hook for _, hook, _ in owned.run_on_commit)
        finally:
            connections[alias] = usual
            owned.connection = None


def _check(usual: Wrapper) -> None:
    """Check that the database's wrapper can use the worker's connection.

    Raises:
        TypeError: it cannot.
    """
    driver = getattr(getattr(usual, "Database", None), "__name__", "unknown")
    if usual.vendor != "postgresql" or driver != "psycopg":
        raise TypeError(
            f"Django's database {usual.alias!r} cannot join the bus's transaction, which is one of PostgreSQL by"
            f" psycopg 3; its ENGINE is {usual.settings_dict['ENGINE']}, its driver {driver}. Name another:"
            ' tx: Annotated[DatabaseWrapper, "alias"]'
        )


@contextmanager
def _time_zone(view: OrmView, wanted: str | None) -> Generator[None]:
    """Set Django's time zone for the block, where it differs from the connection's."""
    found = view.info.parameter_status("TimeZone")
    if wanted is None or wanted == found:
        yield
        return
    statement = "select set_config('TimeZone', %s, true)"
    view.execute(statement, (wanted,))
    yield
    if view.info.transaction_status == TransactionStatus.INTRANS:
        view.execute(statement, (found,))  # for the handlers that follow in this transaction


def _register_types(owned: Wrapper) -> None:
    """Register hstore and citext, as Django does when it connects.

    The signal ``connection_created`` is not sent: its receivers set up a connection of Django's, and what they set
    would stay on the worker's.
    """
    if apps.is_installed("django.contrib.postgres"):
        from django.contrib.postgres.signals import register_type_handlers  # noqa: PLC0415 - an optional part

        register_type_handlers(owned)


def _own(wanted: type[Any]) -> type[Any]:
    """Make that subclass."""

    class OwnedDatabase(wanted):  # type: ignore[misc]  # a base that is known at run time only
        """A wrapper that cannot end its transaction, or connect."""

        def commit(self) -> NoReturn:
            """Refuse.

            Raises:
                RuntimeError: always.
            """
            raise RuntimeError(f"a handler must not end the transaction of Django's database: {OWNED}")

        rollback = close = commit

        def connect(self) -> NoReturn:
            """Refuse.

            Raises:
                RuntimeError: always.
            """
            raise RuntimeError("the handler that this connection was made for has ended")

    OwnedDatabase.__name__, OwnedDatabase.__qualname__, OwnedDatabase.__module__ = (
        wanted.__name__,
        wanted.__qualname__,
        wanted.__module__,
    )
    return OwnedDatabase


_made: Final[dict[type[Any], type[Any]]] = {}


def _owned(wanted: type[Any]) -> type[Any]:
    """Return the subclass of a wrapper's class whose transaction is the bus's, made once."""
    if wanted not in _made:
        _made[wanted] = _own(wanted)
    return _made[wanted]
