"""Django's ORM as `tx`: plain queries of a sync handler run in the settling transaction."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import psycopg
import pytest
from django.db import IntegrityError, connection, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from cauce import Evento, Subscriber, publicar_evento
from cauce.testing import call, drain
from tests import django_settings
from tests.integration.engine.kit import Conn, column, quick, states, work
from tests.integration.engine.orders import NOTA, TABLES, errors, orders, state_of
from tests.integration.engine.scenery import Cosa, PruebaEvents, bus, effect, make_effects, quiet, settled, tell

django_settings.configure()

TOKYO: Final = """
    do $$ begin execute format('alter database %I set timezone = ''Asia/Tokyo''', current_database()); end $$
"""


class Pedido(models.Model):  # type: ignore[misc]  # Django has no types
    """A row of the application's."""

    evento = models.BigIntegerField(primary_key=True)
    nota = models.JSONField()
    creado = models.DateTimeField(null=True)

    class Meta:
        """Django does not make the table."""

        app_label = "tienda"
        db_table = "pedidos"
        managed = False

    def __str__(self) -> str:
        """Name the row."""
        return f"pedido {self.evento}"


class Linea(models.Model):  # type: ignore[misc]  # the same
    """A row that needs another."""

    pedido = models.ForeignKey(Pedido, models.DO_NOTHING, db_column="pedido")

    class Meta:
        """Django does not make the table."""

        app_label = "tienda"
        db_table = "lineas"
        managed = False

    def __str__(self) -> str:
        """Name the row."""
        return f"linea {self.pk}"


@pytest.fixture
def conn(conn: Conn, database: str) -> Iterator[Conn]:
    """A connection to a database that has the application's tables, and that is Django's, too."""
    conn.execute(TABLES)
    make_effects(conn)
    part = conninfo_to_dict(database)
    named = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": part["dbname"],
        "USER": part.get("user", ""),
        "PASSWORD": part.get("password", ""),
        "HOST": part.get("host", ""),
        "PORT": str(part.get("port", "")),
    }
    before, usual = dict(connections.settings), connections["default"]
    connections.settings.update(connections.configure_settings({"default": named, "otra": named}))
    connections["default"] = connections.create_connection("default")
    yield conn
    connections["default"] = usual
    connections.settings.clear()
    connections.settings.update(before)


def creates(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
    """Write as one does in Django."""
    assert connections["default"] is tx
    Pedido.objects.create(evento=evento.id, nota=NOTA, creado=datetime(2026, 1, 2, tzinfo=UTC))
    found = Pedido.objects.get(pk=evento.id)
    assert found.nota == NOTA
    assert found.creado == datetime(2026, 1, 2, tzinfo=UTC)
    assert list(Pedido.objects.iterator())[-1] is not None


def test_plain_queries_are_committed_with_the_settlement(conn: Conn, database: str) -> None:
    """Beside plain handlers, in one transaction with them."""
    events, others = tell(conn, 5), tell(conn, 5, PruebaEvents.otra)
    work(bus(creates, other=effect), quick(database), lambda: settled(conn))
    assert errors(conn) == []
    assert orders(conn) == events
    assert column(conn, "select evento from efectos order by 1") == others


def test_handlers_of_one_batch_share_a_transaction(conn: Conn, database: str) -> None:
    """And none of them sees another one's time zone."""

    def django(evento: Evento[Cosa], tx: BaseDatabaseWrapper) -> None:
        with tx.cursor() as cursor:
            cursor.execute(
                "insert into efectos values (%s, pg_current_xact_id() || current_setting('timezone'))", [evento.id]
            )

    async def plain(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await tx.execute(
            "insert into efectos values (%s, pg_current_xact_id() || current_setting('timezone'))", (evento.id,)
        )

    conn.execute(TOKYO)
    with conn.transaction():
        tell(conn, 3)
    listeners: dict[str, Any] = {"1": plain, "2": django, "3": plain}
    subscribers = [Subscriber(name, PruebaEvents.una.handled_by(handler)) for name, handler in listeners.items()]
    assert drain(bus(quiet, subscribers=subscribers), quick(database)).done == 12
    by_zone = dict(conn.execute("select substring(quien from '[A-Z].*'), count(*) from efectos group by 1").fetchall())
    assert by_zone == {"Asia/Tokyo": 6, "UTC": 3}
    assert len(column(conn, "select distinct substring(quien from '^[0-9]+') from efectos")) == 1


def test_one_that_raises_rolls_back_with_its_settlement(conn: Conn, database: str) -> None:
    """And fails alone; the thread's own connection is Django's again."""
    seen: list[object] = []

    def handler(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
        creates(evento, tx)
        if evento.payload.n == 5 and evento.intentos < 3:
            raise ValueError("not yet")

    def without_tx(evento: Evento[Cosa]) -> None:
        seen.append(Pedido.objects.filter(pk=evento.id).exists())
        seen.append(connection.in_atomic_block)
        connections.close_all()

    events = tell(conn, 10)
    tell(conn, 10, PruebaEvents.otra)
    work(bus(handler, other=without_tx), quick(database), lambda: settled(conn))
    assert orders(conn) == events
    assert column(conn, "select intentos from cauce.eventos where tipo = 'una' order by id") == [1] * 5 + [3] + [1] * 4
    assert seen == [False] * 20


def test_atomic_is_a_savepoint(conn: Conn, database: str) -> None:
    """What fails in one is undone, and what comes after it is kept; a durable one is refused."""
    said: list[str] = []

    def handler(evento: Evento[Cosa], _tx: DatabaseWrapper) -> None:
        with transaction.atomic():
            Pedido.objects.create(evento=evento.id, nota=NOTA)
        with contextlib.suppress(IntegrityError), transaction.atomic():
            Pedido.objects.create(evento=evento.id, nota=NOTA)
        with contextlib.suppress(KeyError), transaction.atomic():
            Linea.objects.create(pedido_id=evento.id)
            raise KeyError
        try:
            with transaction.atomic(durable=True):
                pass
        except RuntimeError as error:
            said.append(str(error))

    events = tell(conn, 3)
    work(bus(handler), quick(database), lambda: settled(conn))
    assert errors(conn) == []
    assert orders(conn) == events
    assert column(conn, "select pedido from lineas") == []
    assert set(said) == {"A durable atomic block cannot be nested within another atomic block."}


def closes_all(_: Evento[Cosa], _tx: DatabaseWrapper) -> None:
    """Close every connection of the thread."""
    connections.close_all()


ENDS: Final[dict[str, Callable[[Evento[Cosa], DatabaseWrapper], object]]] = {
    "commit": lambda _, tx: tx.commit(),
    "rollback": lambda _, tx: tx.rollback(),
    "close": lambda _, tx: tx.close(),
    "proxy": lambda _, __: connection.commit(),
    "transaction": lambda _, __: transaction.commit(),
    "close all": closes_all,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_djangos_connection_does_not_end_the_transaction(
    conn: Conn, database: str, end: Callable[[Evento[Cosa], DatabaseWrapper], object]
) -> None:
    """The handler is told whose it is, its effects are undone, and its neighbours are not."""

    def handler(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
        creates(evento, tx)
        end(evento, tx)

    tell(conn)
    good = tell(conn, 2, PruebaEvents.otra)
    drain(bus(handler, other=effect), quick(database, max_attempts=1), check=False)
    assert orders(conn) == []
    assert column(conn, "select evento from efectos order by 1") == good
    assert "the transaction is the bus's: return to commit, raise to roll back" in errors(conn)[0]


def swallows_an_error(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
    """Suppress an error of SQL."""
    creates(evento, tx)
    with contextlib.suppress(IntegrityError):
        Pedido.objects.create(evento=evento.id, nota=NOTA)


def asks_for_a_rollback(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
    """Mark the transaction, as Django does after an error in a block without a savepoint."""
    creates(evento, tx)
    transaction.set_rollback(True)


@pytest.mark.parametrize("handler", [swallows_an_error, asks_for_a_rollback])
def test_an_aborted_transaction_is_not_settled(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """Whoever suppresses the error has failed all the same."""
    tell(conn)
    drain(bus(handler), quick(database, max_attempts=1), check=False)
    assert orders(conn) == []
    assert "must not suppress an" in errors(conn)[0]


def test_hooks_run_after_the_commit_or_not_at_all(conn: Conn, database: str) -> None:
    """Also in the second pass; one that raises is logged, and undoes nothing."""
    seen: list[tuple[int, bool]] = []

    def fails() -> None:
        raise ValueError("too late")

    def handler(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
        creates(evento, tx)
        transaction.on_commit(fails)
        transaction.on_commit(lambda: seen.append((evento.id, Pedido.objects.filter(pk=evento.id).exists())))
        transaction.on_commit(connections.close_all)
        if evento.payload.n == 1 and evento.intentos == 1:
            raise ValueError("not yet")

    events = tell(conn, 3)
    work(bus(handler), quick(database), lambda: settled(conn))
    assert sorted(seen) == [(evento, True) for evento in events]
    assert states(conn) == {"procesado": 3}


def test_another_database_of_django_is_named_in_the_annotation(conn: Conn, database: str) -> None:
    """By its alias; the default one is then Django's own."""

    def handler(evento: Evento[Cosa], tx: Annotated[DatabaseWrapper, "otra"]) -> None:
        assert tx.alias == "otra"
        Pedido.objects.using("otra").create(evento=evento.id, nota=NOTA)
        assert not Pedido.objects.filter(pk=evento.id).exists()
        connections["default"].close()

    events = tell(conn, 2)
    drain(bus(handler), quick(database))
    assert orders(conn) == events


def test_a_database_that_is_not_postgresql_is_refused(conn: Conn, database: str) -> None:
    """With what to do."""

    def handler(_: Evento[Cosa], tx: Annotated[BaseDatabaseWrapper, "sqlite"]) -> None:
        """Do nothing."""

    connections.settings["sqlite"] = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3"}
    tell(conn)
    drain(bus(handler), quick(database, max_attempts=1), check=False)
    assert "Django's database 'sqlite' cannot join the bus's transaction" in errors(conn)[0]


def test_events_are_published_in_the_transaction(conn: Conn, database: str) -> None:
    """With Django's connection, by either name."""

    def handler(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
        publicar_evento(tx, PruebaEvents.otra, Cosa(n=evento.id))
        publicar_evento(connection, PruebaEvents.otra, Cosa(n=evento.id))
        if evento.intentos == 1:
            raise ValueError("not yet")

    tell(conn)
    work(bus(handler), quick(database), lambda: settled(conn))
    assert states(conn) == {"procesado": 3}


def test_a_handler_that_takes_too_long_is_stopped(conn: Conn, database: str) -> None:
    """As a plain one is."""

    def handler(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
        creates(evento, tx)
        with tx.cursor() as cursor:
            cursor.execute("select pg_sleep(600)")

    tell(conn)
    good = tell(conn, 3, PruebaEvents.otra)
    work(bus(handler, other=effect, timeout=0.15), quick(database, max_attempts=1), lambda: settled(conn))
    assert errors(conn) == ["TimeoutError: took longer than 0.15 s"]
    assert orders(conn) == []
    assert column(conn, "select evento from efectos order by 1") == good


def test_a_lost_connection_is_not_the_handlers_failure(conn: Conn, database: str) -> None:
    """Though Django turns the error into one of its own."""
    first = iter([True])

    def handler(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
        creates(evento, tx)
        with tx.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(pg_backend_pid())" if next(first, False) else "select 1")

    events = tell(conn, 3)
    work(bus(handler), quick(database), lambda: settled(conn))
    assert errors(conn) == []
    assert orders(conn) == events


@pytest.mark.parametrize("count", [100, pytest.param(2_000, marks=pytest.mark.soak)])
def test_nothing_of_django_is_left_on_the_connection(conn: Conn, database: str, count: int) -> None:
    """After many deliveries; and what a handler keeps of its connection reaches nothing."""
    before: list[tuple[object, ...]] = []
    left: list[tuple[object, ...]] = []
    kept: list[tuple[DatabaseWrapper, int]] = []

    def django(evento: Evento[Cosa], tx: DatabaseWrapper) -> None:
        creates(evento, tx)
        kept[:] = [(tx, threading.get_ident())]

    async def first(_: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        before.append(state_of(tx))

    async def last(_: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        left.append(state_of(tx))

    events = tell(conn, count)
    listeners: dict[str, Any] = {"1": first, "2": django, "3": last}
    subscribers = [Subscriber(name, PruebaEvents.una.handled_by(handler)) for name, handler in listeners.items()]
    drained = drain(bus(quiet, subscribers=subscribers), quick(database), limit=10 * count)
    assert drained.done == 4 * count
    assert orders(conn) == events
    assert set(left) <= set(before)
    wrapper, _ = kept[0]
    wrapper.inc_thread_sharing()
    with pytest.raises(RuntimeError, match="has ended"):
        wrapper.ensure_connection()


def test_a_broken_statement_names_its_cause(conn: Conn, database: str) -> None:
    """The first error, not what follows from it."""
    raised: list[BaseException] = []

    def handler(_: Evento[Cosa], _tx: DatabaseWrapper) -> None:
        Linea.objects.create(pedido_id=-1)

    tell(conn)
    application = bus(handler, on_error=lambda error, *_: raised.append(error))
    drain(application, quick(database, max_attempts=1), check=False)
    assert isinstance(raised[0], IntegrityError)
    assert isinstance(raised[0].__cause__, psycopg.errors.ForeignKeyViolation)


def test_a_handler_called_alone_uses_the_tests_connection(conn: Conn) -> None:
    """Django's own is untouched."""
    call(creates, Cosa(), tx=conn)
    assert orders(conn) == [1]
    with pytest.raises(IntegrityError):
        call(creates, Cosa(), tx=conn)
    assert connection.connection is None
