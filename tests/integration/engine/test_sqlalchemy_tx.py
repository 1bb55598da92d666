"""SQLAlchemy's sessions as `tx`: in the settling transaction, flushed, closed, and nothing left on the connection."""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import psycopg
import pytest
import sqlmodel.ext.asyncio.session
from psycopg import AsyncConnection
from sqlalchemy import BigInteger, ForeignKey, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cauce import Evento, NuevoEvento, Subscriber, publicar_evento, publicar_eventos
from cauce.engine import alchemy
from cauce.testing import call, call_async, drain
from tests.integration.engine.kit import Conn, column, quick, states, work
from tests.integration.engine.orders import NOTA, TABLES, errors, orders, state_of
from tests.integration.engine.scenery import Cosa, PruebaEvents, bus, effect, make_effects, quiet, settled, tell


class Base(DeclarativeBase):
    """The models of the tests."""

    type_annotation_map: Final = {int: BigInteger, dict[str, Any]: JSONB}


class Pedido(Base):
    """A row of the application's."""

    __tablename__ = "pedidos"
    evento: Mapped[int] = mapped_column(primary_key=True)
    nota: Mapped[dict[str, Any]]
    creado: Mapped[datetime | None] = mapped_column(default=None)


class Linea(Base):
    """A row that needs another."""

    __tablename__ = "lineas"
    id: Mapped[int] = mapped_column(primary_key=True)
    pedido: Mapped[int] = mapped_column(ForeignKey("pedidos.evento"))


PREPARED: Final = "select count(*) from pg_prepared_statements where statement ilike 'insert into pedidos%'"


@pytest.fixture
def conn(conn: Conn) -> Conn:
    """A connection to a database that also has the application's tables."""
    conn.execute(TABLES)
    make_effects(conn)
    return conn


def both(steps: Callable[[Evento[Cosa], Session], object]) -> list[Any]:
    """Make a sync and an async handler, and each with a class of SQLModel's, of the same steps with a session."""

    def sync(evento: Evento[Cosa], tx: Session) -> None:
        steps(evento, tx)

    async def asynchronous(evento: Evento[Cosa], tx: AsyncSession) -> None:
        await tx.run_sync(functools.partial(steps, evento))

    def with_sqlmodel(evento: Evento[Cosa], tx: sqlmodel.Session) -> None:
        assert isinstance(tx, sqlmodel.Session)
        steps(evento, tx)

    async def with_async_sqlmodel(evento: Evento[Cosa], tx: sqlmodel.ext.asyncio.session.AsyncSession) -> None:
        assert isinstance(tx, sqlmodel.ext.asyncio.session.AsyncSession)
        await tx.run_sync(functools.partial(steps, evento))

    return [sync, asynchronous, with_sqlmodel, with_async_sqlmodel]


def adds(evento: Evento[Cosa], session: Session) -> None:
    """Add a row, and leave it to the end of the handler to flush it."""
    session.add(Pedido(evento=evento.id, nota=NOTA))


@pytest.mark.parametrize("handler", both(adds), ids=["sync", "async", "sqlmodel", "sqlmodel async"])
def test_what_a_session_adds_is_committed_with_the_settlement(
    conn: Conn, database: str, handler: Callable[..., Any]
) -> None:
    """Flushed by the bus, beside plain handlers in the same batch."""
    events, others = tell(conn, 5), tell(conn, 5, PruebaEvents.otra)
    work(bus(handler, other=effect), quick(database), lambda: settled(conn))
    assert errors(conn) == []
    assert orders(conn) == events
    assert column(conn, "select distinct nota from pedidos") == [NOTA]
    assert column(conn, "select evento from efectos order by 1") == others


def in_a_transaction(evento: Evento[Cosa], session: Session) -> None:
    """Note which transaction it is."""
    session.execute(text("insert into efectos values (:evento, pg_current_xact_id()::text)"), {"evento": evento.id})


@pytest.mark.parametrize("handler", both(in_a_transaction)[:2], ids=["sync", "async"])
def test_handlers_of_one_batch_share_a_transaction(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """As plain ones do, and with them."""

    async def plain(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await tx.execute("insert into efectos values (%s, pg_current_xact_id()::text)", (evento.id,))

    with conn.transaction():
        tell(conn, 4)
        tell(conn, 4, PruebaEvents.otra)
    assert drain(bus(handler, other=plain), quick(database)).done == 8
    assert len(column(conn, "select distinct quien from efectos")) == 1


def fails_at_five(evento: Evento[Cosa], session: Session) -> None:
    """Add a row, and fail in one event's first attempts."""
    adds(evento, session)
    session.flush()
    if evento.payload.n == 5 and evento.intentos < 3:
        raise ValueError("not yet")


@pytest.mark.parametrize("handler", both(fails_at_five)[:2], ids=["sync", "async"])
def test_one_that_raises_rolls_back_with_its_settlement(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """And fails alone, as a plain one does."""
    events = tell(conn, 10)
    work(bus(handler), quick(database), lambda: settled(conn))
    assert orders(conn) == events
    assert column(conn, "select intentos from cauce.eventos order by id") == [1] * 5 + [3] + [1] * 4


def savepoints(evento: Evento[Cosa], session: Session) -> None:
    """Keep one savepoint, undo another by hand, and a third by an error."""
    with session.begin_nested():
        adds(evento, session)
    undone = session.begin_nested()
    session.add(Linea(pedido=evento.id))
    session.flush()
    undone.rollback()
    try:
        with session.begin_nested():
            session.add(Linea(pedido=-1))
    except IntegrityError:
        session.add(Linea(pedido=evento.id))


@pytest.mark.parametrize("handler", both(savepoints)[:2], ids=["sync", "async"])
def test_savepoints_are_the_handlers_own(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """What is undone in one is undone, and what comes after a failed one is kept."""
    events = tell(conn, 3)
    work(bus(handler), quick(database), lambda: settled(conn))
    assert errors(conn) == []
    assert orders(conn) == events
    assert column(conn, "select pedido from lineas order by 1") == events


def calls(name: str) -> Callable[[Evento[Cosa], Session], None]:
    """Make a step that calls a method of the session."""

    def step(evento: Evento[Cosa], session: Session) -> None:
        adds(evento, session)
        getattr(session, name)()

    return step


def commits_the_connection(evento: Evento[Cosa], session: Session) -> None:
    """Go round the session."""
    adds(evento, session)
    session.connection().commit()


def commits_the_drivers(_: Evento[Cosa], session: Session) -> None:
    """Go round SQLAlchemy, in a sync handler."""
    connection: Any = session.connection().connection.dbapi_connection
    connection.commit()


ENDS: Final[dict[str, Callable[[Evento[Cosa], Session], None]]] = {
    name: calls(name) for name in ("commit", "rollback", "close", "reset", "begin", "invalidate")
} | {"connection": commits_the_connection, "driver": commits_the_drivers}


@pytest.mark.parametrize("number", [0, 1], ids=["sync", "async"])
@pytest.mark.parametrize("step", ENDS.values(), ids=ENDS)
def test_a_session_does_not_end_the_transaction(
    conn: Conn, database: str, step: Callable[[Evento[Cosa], Session], None], number: int
) -> None:
    """The handler is told whose it is, its effects are undone, and its neighbours are not."""
    (bad,) = tell(conn)
    good = tell(conn, 2, PruebaEvents.otra)
    drain(bus(both(step)[number], other=effect), quick(database, max_attempts=1), check=False)
    assert orders(conn) == []
    assert column(conn, "select evento from efectos order by 1") == good
    assert column(conn, "select id from cauce.eventos where estado = 'error'") == [bad]
    assert "the transaction is the bus's: return to commit, raise to roll back" in errors(conn)[0]


async def commits_async(evento: Evento[Cosa], tx: AsyncSession) -> None:
    """Call the async method itself."""
    tx.add(Pedido(evento=evento.id, nota=NOTA))
    await tx.commit()


async def begins_async(_: Evento[Cosa], tx: AsyncSession) -> None:
    """Begin, as an application does with its own session."""
    async with tx.begin():
        pass


async def leaves_async(_: Evento[Cosa], tx: AsyncSession) -> None:
    """Enter the session, which closes it."""
    async with tx:
        pass


@pytest.mark.parametrize("handler", [commits_async, begins_async, leaves_async])
def test_an_async_session_does_not_end_it_either(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """By whatever method."""
    tell(conn)
    drain(bus(handler), quick(database, max_attempts=1), check=False)
    assert orders(conn) == []
    assert "the transaction is the bus's: return to commit, raise to roll back" in errors(conn)[0]


def rolls_back_the_connection(evento: Evento[Cosa], session: Session) -> None:
    """Undo it behind the session's back."""
    adds(evento, session)
    session.flush()
    session.connection().rollback()


def swallows_a_flush(evento: Evento[Cosa], session: Session) -> None:
    """Suppress what SQLAlchemy rolls a transaction back for, though PostgreSQL knows of no error."""
    adds(evento, session)
    session.flush()
    with contextlib.suppress(Exception):
        session.add(Pedido(evento=object(), nota=NOTA))
        session.flush()


def swallows_an_error(evento: Evento[Cosa], session: Session) -> None:
    """Suppress an error of SQL."""
    adds(evento, session)
    session.flush()
    with contextlib.suppress(Exception):
        session.execute(text("select 1 / 0"))


def leaves_a_savepoint_open(evento: Evento[Cosa], session: Session) -> None:
    """Begin a savepoint and forget to commit it."""
    session.begin_nested()
    adds(evento, session)


ABORTS: Final = {
    "savepoint": (leaves_a_savepoint_open, "left a savepoint open"),
    "rollback": (rolls_back_the_connection, "left its transaction rolled back"),
    "flush": (swallows_a_flush, "rolled back"),
    "statement": (swallows_an_error, "it must not suppress an SQL error"),
}


@pytest.mark.parametrize("number", [0, 1], ids=["sync", "async"])
@pytest.mark.parametrize(("step", "said"), ABORTS.values(), ids=ABORTS)
def test_an_aborted_transaction_is_not_settled(
    conn: Conn, database: str, step: Callable[[Evento[Cosa], Session], None], said: str, number: int
) -> None:
    """Whoever suppresses the error has failed all the same."""
    tell(conn)
    drain(bus(both(step)[number]), quick(database, max_attempts=1), check=False)
    assert orders(conn) == []
    assert states(conn) == {"error": 1}
    assert said in errors(conn)[0]


def refers_to_nothing(_: Evento[Cosa], session: Session) -> None:
    """Leave what cannot be flushed."""
    session.add(Linea(pedido=-1))


@pytest.mark.parametrize("handler", both(refers_to_nothing)[:2], ids=["sync", "async"])
def test_a_flush_that_fails_is_the_handlers_failure(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """With PostgreSQL's own words as the cause; it is tried again by the policy, and then dead."""
    tell(conn)
    raised: list[BaseException] = []
    application = bus(handler, on_error=lambda error, *_: raised.append(error))
    work(application, quick(database, max_attempts=2), lambda: settled(conn))
    assert [type(error) for error in raised] == [IntegrityError] * 2
    assert isinstance(raised[0].__cause__, psycopg.errors.ForeignKeyViolation)
    assert all("violates foreign key constraint" in error for error in errors(conn))
    assert states(conn) == {"error": 1}


def never_ends(evento: Evento[Cosa], session: Session) -> None:
    """Never end, in the server."""
    adds(evento, session)
    session.flush()
    session.execute(text("select pg_sleep(600)"))


@pytest.mark.parametrize("handler", both(never_ends)[:2], ids=["sync", "async"])
def test_a_session_that_takes_too_long_is_stopped(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """As a plain handler is."""
    tell(conn)
    good = tell(conn, 3, PruebaEvents.otra)
    work(bus(handler, other=effect, timeout=0.15), quick(database, max_attempts=1), lambda: settled(conn))
    assert errors(conn) == ["TimeoutError: took longer than 0.15 s"]
    assert orders(conn) == []
    assert column(conn, "select evento from efectos order by 1") == good


@pytest.mark.parametrize("number", [0, 1], ids=["sync", "async"])
def test_a_connection_lost_under_a_session_is_not_its_failure(conn: Conn, database: str, number: int) -> None:
    """The settlement goes on with another connection."""
    first = iter([True])

    def is_cut(evento: Evento[Cosa], session: Session) -> None:
        adds(evento, session)
        session.flush()
        session.execute(text("select pg_terminate_backend(pg_backend_pid())" if next(first, False) else "select 1"))

    events = tell(conn, 3)
    work(bus(both(is_cut)[number]), quick(database), lambda: settled(conn))
    assert errors(conn) == []
    assert orders(conn) == events


def connects_again(_: Evento[Cosa], session: Session) -> None:
    """Ask the engine for a second connection."""
    session.connection().engine.connect()


@pytest.mark.parametrize("handler", both(connects_again)[:2], ids=["sync", "async"])
def test_the_engine_has_no_second_connection(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """It would be the same one, and its transaction with it."""
    tell(conn)
    drain(bus(handler), quick(database, max_attempts=1), check=False)
    assert "has no connection but the bus's" in errors(conn)[0]


def test_a_session_is_closed_when_its_handler_ends(conn: Conn, database: str) -> None:
    """Objects that are kept are detached; no statement of theirs can reach the worker's connection."""
    kept: list[tuple[Session, Pedido]] = []

    def keeps(evento: Evento[Cosa], tx: Session) -> None:
        order = Pedido(evento=evento.id, nota=NOTA)
        tx.add(order)
        kept.append((tx, order))

    tell(conn)
    drain(bus(keeps), quick(database))
    session, order = kept[0]
    assert order not in session
    with pytest.raises(Exception, match="closed"):
        session.scalar(select(Pedido.evento))


def test_events_are_published_with_the_session(conn: Conn, database: str) -> None:
    """In the same transaction, one by one and by COPY."""

    def publishes(evento: Evento[Cosa], tx: Session) -> None:
        publicar_evento(tx, PruebaEvents.otra, Cosa(n=evento.id))
        publicar_eventos(tx, [NuevoEvento(PruebaEvents.otra, Cosa(n=n)) for n in range(3)])
        if evento.intentos == 1:
            raise ValueError("not yet")

    async def publishes_async(evento: Evento[Cosa], tx: AsyncSession) -> None:
        await publicar_evento(tx, PruebaEvents.otra, Cosa(n=evento.id))
        if evento.intentos == 1:
            raise ValueError("not yet")

    tell(conn)
    other = Subscriber("async", PruebaEvents.una.handled_by(publishes_async))
    work(bus(publishes, subscribers=[other]), quick(database), lambda: settled(conn))
    assert states(conn) == {"procesado": 6}


class Routing(Session):
    """A session of an application that has several databases."""

    def get_bind(self, *_: Any, **__: Any) -> Any:
        """Choose another database."""
        raise AssertionError("the effects would be in another transaction")


def test_a_session_class_that_chooses_a_database_gets_the_bus_connection(conn: Conn, database: str) -> None:
    """Else its effects would commit apart."""

    def handler(evento: Evento[Cosa], tx: Routing) -> None:
        assert isinstance(tx, Routing)
        adds(evento, tx)

    events = tell(conn)
    drain(bus(handler), quick(database))
    assert orders(conn) == events


@pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=pytest.mark.soak)])
def test_nothing_of_the_orm_is_left_on_the_connection(conn: Conn, database: str, count: int) -> None:
    """After many deliveries: adapters, factories, handlers of notices, time zone, prepared statements; one engine."""
    before: list[tuple[object, ...]] = []
    left: list[tuple[object, ...]] = []
    prepared: list[int] = []

    def looks(evento: Evento[Cosa], tx: Session) -> None:
        adds(evento, tx)
        tx.flush()
        tx.execute(text("do $$ begin raise notice 'said'; end $$"))

    async def looks_async(evento: Evento[Cosa], tx: AsyncSession) -> None:
        found = await tx.get_one(Pedido, evento.id)
        assert found.nota == NOTA

    async def first(_: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        before.append(state_of(tx))

    async def last(_: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        left.append(state_of(tx))
        row = await (await tx.execute(PREPARED)).fetchone()
        prepared.append(row[0] if row else -1)

    events = tell(conn, count)
    listeners: dict[str, Any] = {"1": first, "2": looks, "3": looks_async, "4": last}
    subscribers = [Subscriber(name, PruebaEvents.una.handled_by(handler)) for name, handler in listeners.items()]
    drained = drain(bus(quiet, subscribers=subscribers), quick(database), limit=10 * count)
    assert drained.done == 5 * count
    assert orders(conn) == events
    assert set(left) <= set(before)
    assert len(set(left)) == len({id(state[0]) for state in left})  # by connection
    assert set(prepared) == {0}
    assert alchemy._engine.pool.status() == "NullPool"
    assert alchemy._async_engine() is alchemy._async_engine()


def test_sessions_in_many_event_loops_share_the_engine(conn: Conn, database: str) -> None:
    """A process may run one loop after another, as tests do."""

    async def handler(evento: Evento[Cosa], tx: AsyncSession) -> None:
        await asyncio.sleep(0)  # lets the loop run other tasks in between
        tx.add(Pedido(evento=evento.id, nota=NOTA))

    for _ in range(3):
        tell(conn)
        drain(bus(handler), quick(database))
    assert len(orders(conn)) == 3


@pytest.mark.parametrize("handler", both(adds)[:2], ids=["sync", "async"])
def test_a_handler_called_alone_gets_a_session_on_the_tests_connection(conn: Conn, handler: Callable[..., Any]) -> None:
    """From sync and async tests; kept if it returns, undone if it raises."""
    call(handler, Cosa(), tx=conn)
    assert orders(conn) == [1]
    with pytest.raises(IntegrityError):
        call(handler, Cosa(), tx=conn)

    async def in_a_test() -> None:
        async with await AsyncConnection.connect(conn.info.dsn) as mine:
            await mine.execute("delete from pedidos")
            await call_async(handler, Cosa(), tx=mine)

    asyncio.run(in_a_test())
    assert orders(conn) == [1]
