"""`cauce.testing`: fresh databases, draining, a handler called alone, waiting; and the plugin in another project."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, Connection
from pydantic import BaseModel

from cauce import (
    Attempt,
    Bus,
    Catalog,
    Discard,
    Estado,
    EventHandlers,
    Evento,
    EventType,
    RetryPolicy,
    Subscriber,
    publicar_evento,
)
from cauce.testing import (
    Database,
    DrainError,
    Server,
    call,
    call_async,
    drain,
    drain_async,
    eventos,
    wait_for,
    wait_for_async,
)


class Pedido(BaseModel):
    """A payload."""

    numero: int


class PedidoEvents(Catalog, origen="pedido"):
    """The events of these tests."""

    creado = EventType("pedido.creado", Pedido, clave="numero")
    enviado = EventType("pedido.enviado", Pedido)


seen: list[str] = []


async def creado(evento: Evento[Pedido], tx: AsyncConnection[Any]) -> None:
    """Publish that it was sent; number 13 never works, 7 works at the third attempt."""
    seen.append(f"creado {evento.payload.numero}, attempt {evento.intentos}")
    if evento.payload.numero == 13 or (evento.payload.numero == 7 and evento.intentos < 3):
        raise ValueError(f"number {evento.payload.numero}")
    await publicar_evento(tx, PedidoEvents.enviado, evento.payload)


def enviado(evento: Evento[Pedido], tx: Connection[Any]) -> None:
    """Write it down, in more statements of one text than psycopg leaves unprepared."""
    for _ in range(10):
        tx.execute("insert into envios (numero) values (%s)", [evento.payload.numero])


def contabilidad(evento: Evento[Pedido], attempt: Attempt) -> None:
    """Note what an attempt is told."""
    seen.append(f"contabilidad {evento.payload.numero}, attempt {attempt.number}, {attempt.group}")


def swallow(evento: Evento[Pedido], tx: Connection[Any]) -> None:
    """Hide an SQL error."""
    try:
        tx.execute("select * from nowhere where numero = %s", [evento.payload.numero])
    except psycopg.Error:
        return


bus = Bus(
    catalogs=[PedidoEvents],
    event_handlers=EventHandlers(
        PedidoEvents.creado.handled_by(creado, retry=RetryPolicy(max_attempts=4, base=3600.0)),
        PedidoEvents.enviado.handled_by(enviado),
    ),
    subscribers=[Subscriber("contabilidad", PedidoEvents.creado.handled_by(contabilidad), grupo="contabilidad")],
)


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@pytest.fixture(scope="session")
def cauce_bus() -> Bus:
    """The application of these tests."""
    return bus


@pytest.fixture(scope="session")
def cauce_schema() -> str:
    """Its table."""
    return "create table envios (numero integer not null); create index on envios (numero)"


def publish(database: Database, *numbers: int) -> None:
    """Publish an order for each number, in one transaction."""
    with database.connect() as conn:
        for number in numbers:
            publicar_evento(conn, PedidoEvents.creado, Pedido(numero=number))


# ------------------------------------------------------------------------------------------------------------ databases


def test_a_database_is_migrated_and_has_the_catalog_and_the_tables(cauce_db: Database) -> None:
    """`cauce_db` has Cauce's tables, what `cauce_bus` says of events and groups, and the tables of `cauce_schema`."""
    with cauce_db.connect() as conn:
        assert conn.execute("select tipo from cauce.catalogo where origen = 'pedido' order by 1").fetchall() == [
            ("pedido.creado",),
            ("pedido.enviado",),
        ]
        assert conn.execute("select grupo from cauce.grupos order by 1").fetchall() == [
            ("contabilidad",),
            ("principal",),
        ]
        assert conn.execute("select count(*) from envios").fetchone() == (0,)


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_has_a_database_of_its_own(cauce_db: Database, turn: str) -> None:
    """What one test stores, another does not find."""
    with cauce_db.connect() as conn:
        assert eventos(conn) == []
    publish(cauce_db, 1)
    with cauce_db.connect() as conn:
        assert len(eventos(conn)) == 1, turn


def test_a_database_is_dropped_with_whoever_is_connected(cauce_server: Server) -> None:
    """A connection that a test forgot does not keep its database alive."""
    with cauce_server.migrated() as database:
        forgotten = database.connect()
        name = forgotten.info.dbname
    with psycopg.connect(cauce_server.dsn) as conn:
        assert conn.execute("select 1 from pg_database where datname = %s", [name]).fetchone() is None
    with pytest.raises(psycopg.OperationalError):
        forgotten.execute("select 1")
    forgotten.close()


def test_the_server_has_the_clock_of_the_tests(cauce_server: Server) -> None:
    """Also where `make test DAYS=400` moves it."""
    with psycopg.connect(cauce_server.dsn) as conn:
        row = conn.execute("select now()").fetchone()
    assert row is not None
    assert abs(datetime.now(UTC) - row[0]) < timedelta(hours=1)


def test_an_existing_server_is_used_and_left_clean(cauce_server: Server) -> None:
    """`CAUCE_TEST_DATABASE_URL` names a server: databases are made there, and none stays, templates included."""
    names = "select datname from pg_database order by 1"
    with psycopg.connect(cauce_server.dsn, autocommit=True) as conn:
        before = conn.execute(names).fetchall()
        with Server(cauce_server.dsn) as other:
            assert other.embedded is None
            with other.migrated(bus) as database, other.empty() as empty:
                assert database.dsn.startswith("postgresql://")
                with empty.connect() as there:
                    assert there.execute("select to_regclass('cauce.eventos')").fetchone() == (None,)
            assert conn.execute(names).fetchall() != before
        assert conn.execute(names).fetchall() == before


def test_tables_may_be_made_by_a_function(cauce_server: Server) -> None:
    """Migrations of another tool are run once for all copies, given the template's address."""
    addresses: list[str] = []

    def migrations(dsn: str) -> None:
        addresses.append(dsn)
        with psycopg.connect(dsn) as conn:
            conn.execute("create table propia ()")

    for _ in range(2):
        with cauce_server.migrated(bus, migrations) as database, database.connect() as conn:
            assert conn.execute("select count(*) from propia").fetchone() == (0,)
    assert len(addresses) == 1


def test_a_template_that_cannot_be_made_leaves_nothing(cauce_server: Server) -> None:
    """A mistake in the application's tables is raised as it is, every time, and no database of it stays."""
    names = "select count(*) from pg_database"
    with psycopg.connect(cauce_server.dsn, autocommit=True) as conn:
        before = conn.execute(names).fetchone()
        for _ in range(2):
            with pytest.raises(psycopg.errors.SyntaxError), cauce_server.migrated(bus, "create tabel"):
                pass
        assert conn.execute(names).fetchone() == before


# ---------------------------------------------------------------------------------------------------------------- drain


def test_draining_runs_every_group_and_what_handlers_publish(cauce_db: Database) -> None:
    """Two orders: their handler, the one of the event it publishes, and the subscriber of another group have run."""
    publish(cauce_db, 1, 2)
    drained = drain(bus, cauce_db.settings)
    # the group of the subscriber reads past the two events that it does not listen to
    assert (drained.done, drained.retried, drained.dead, drained.ignored, drained.waiting) == (8, 0, 0, 0, 0)
    assert sorted(seen) == [
        "contabilidad 1, attempt 1, contabilidad",
        "contabilidad 2, attempt 1, contabilidad",
        "creado 1, attempt 1",
        "creado 2, attempt 1",
    ]
    with cauce_db.connect() as conn:
        assert {(evento.tipo, evento.estado, evento.intentos) for evento in eventos(conn)} == {
            ("pedido.creado", Estado.PROCESADO, 1),
            ("pedido.enviado", Estado.PROCESADO, 1),
        }
        assert conn.execute("select numero, count(*) from envios group by 1 order by 1").fetchall() == [
            (1, 10),
            (2, 10),
        ]


def test_draining_nothing_does_nothing(cauce_db: Database) -> None:
    """Without events there is nothing to report."""
    drained = drain(bus, cauce_db.settings)
    assert (drained.done, drained.waiting, drained.failures) == (0, 0, ())


def test_a_failed_attempt_is_an_error_with_its_cause(cauce_db: Database) -> None:
    """The error lists what failed and comes from what the handler raised; the others' work is done all the same."""
    publish(cauce_db, 1, 13, 2)
    with pytest.raises(DrainError, match=r"pedido/pedido.creado\), subscriber manejador.*number 13") as caught:
        drain(bus, cauce_db.settings)
    assert isinstance(caught.value.__cause__, ValueError)
    assert (caught.value.drained.retried, caught.value.drained.waiting) == (1, 1)
    (failure,) = caught.value.drained.failures
    assert (failure.tipo, failure.suscriptor, failure.intento) == ("pedido.creado", "manejador", 1)
    assert failure.traza is not None
    with cauce_db.connect() as conn:
        assert [evento.estado for evento in eventos(conn) if evento.tipo == "pedido.creado"] == [
            Estado.PROCESADO,
            Estado.EN_PROCESO,
            Estado.PROCESADO,
        ]


def test_backoff_is_hurried(cauce_db: Database) -> None:
    """Unchecked, a handler that waits an hour between attempts is tried until it works, or until it has none left."""
    publish(cauce_db, 7, 13)
    drained = drain(bus, cauce_db.settings, check=False)
    assert {line for line in seen if line.startswith("creado 7")} == {f"creado 7, attempt {n}" for n in (1, 2, 3)}
    assert (drained.dead, drained.waiting, len(drained.failures)) == (1, 0, 2 + 4)
    with cauce_db.connect() as conn:
        states = [(evento.payload, evento.estado, evento.intentos) for evento in eventos(conn)]
    assert states == [
        ({"numero": 7}, Estado.PROCESADO, 3),
        ({"numero": 13}, Estado.ERROR, 4),
        ({"numero": 7}, Estado.PROCESADO, 1),
    ]


def test_backoff_is_left_alone_on_request(cauce_db: Database) -> None:
    """Without `hurry` what waits for its backoff goes on waiting, and is counted."""
    publish(cauce_db, 7)
    drained = drain(bus, cauce_db.settings, check=False, hurry=False)
    assert (drained.retried, drained.waiting) == (1, 1)


def test_the_hook_of_the_application_is_still_called(cauce_db: Database) -> None:
    """`on_error` of the bus hears of every failure while draining."""
    heard: list[str] = []
    listening = Bus(
        catalogs=bus.catalogs,
        event_handlers=bus.event_handlers,
        on_error=lambda error, _evento, attempt: heard.append(f"{attempt.number}: {error}"),
    )
    publish(cauce_db, 13)
    drain(listening, cauce_db.settings, check=False)
    assert heard == [f"{n}: number 13" for n in (1, 2, 3, 4)]


def test_a_handler_that_publishes_its_own_event_is_found_out(cauce_db: Database) -> None:
    """Work without an end is an error after so many deliveries."""

    async def again(evento: Evento[Pedido], tx: AsyncConnection[Any]) -> None:
        await publicar_evento(tx, PedidoEvents.creado, evento.payload)

    endless = Bus(
        catalogs=[PedidoEvents],
        event_handlers=EventHandlers(PedidoEvents.creado.handled_by(again), PedidoEvents.enviado.handled_by(enviado)),
    )
    publish(cauce_db, 1)
    with pytest.raises(DrainError, match="after 20 deliveries") as caught:
        drain(endless, cauce_db.settings, limit=20)
    assert caught.value.drained.done == 20


def test_draining_inside_a_loop(cauce_db: Database) -> None:
    """In an async test `drain` names its async sister, whose handlers share the test's loop."""
    loops: list[object] = []

    async def noting(evento: Evento[Pedido]) -> None:
        loops.append(asyncio.get_running_loop())
        if evento.payload.numero == 13:
            raise Discard("unlucky")

    async def test() -> None:
        with pytest.raises(RuntimeError, match="await drain_async"):
            drain(own, cauce_db.settings)
        with pytest.raises(DrainError, match="unlucky"):
            await drain_async(own, cauce_db.settings)
        assert loops == [asyncio.get_running_loop()] * 2

    own = Bus(
        catalogs=[PedidoEvents],
        event_handlers=EventHandlers(PedidoEvents.creado.handled_by(noting), PedidoEvents.enviado.handled_by(noting)),
    )
    publish(cauce_db, 1, 13)
    asyncio.run(test())


# ----------------------------------------------------------------------------------------------- a handler called alone


def test_handlers_of_every_shape_are_called(cauce_db: Database) -> None:
    """One connection of the test serves async and sync handlers; what they do there is the test's to see."""
    with cauce_db.connect() as conn:
        call(creado, Pedido(numero=1), tx=conn)
        call(enviado, Pedido(numero=2), tx=conn)
        call(contabilidad, Pedido(numero=3), attempt=5)
        assert [(evento.tipo, evento.clave, evento.payload) for evento in eventos(conn)] == [
            ("pedido.enviado", None, {"numero": 1})
        ]
        assert conn.execute("select distinct numero from envios").fetchall() == [(2,)]
    assert seen == ["creado 1, attempt 1", "contabilidad 3, attempt 5, principal"]


def test_handlers_of_every_shape_are_called_in_a_loop(cauce_db: Database) -> None:
    """The same in an async test, on an async connection."""

    async def test() -> None:
        async with await AsyncConnection.connect(cauce_db.dsn) as conn:
            await call_async(creado, Pedido(numero=1), tx=conn)
            await call_async(enviado, Pedido(numero=2), tx=conn)
            await call_async(contabilidad, Pedido(numero=3))
            cursor = await conn.execute("select distinct numero from envios")
            assert await cursor.fetchall() == [(2,)]

    asyncio.run(test())
    assert seen == ["creado 1, attempt 1", "contabilidad 3, attempt 1, principal"]


@pytest.mark.parametrize("autocommit", [True, False])
def test_what_a_failed_handler_did_is_undone(cauce_db: Database, *, autocommit: bool) -> None:
    """An exception comes out as it is, and takes the handler's effects with it, but not the test's own."""

    async def half(evento: Evento[Pedido], tx: AsyncConnection[Any]) -> None:
        await tx.execute("insert into envios (numero) values (%s)", [evento.payload.numero])
        raise LookupError("half done")

    with cauce_db.connect(autocommit=autocommit) as conn:
        conn.execute("insert into envios (numero) values (0)")
        with pytest.raises(LookupError, match="half done"):
            call(half, Pedido(numero=1), tx=conn)
        assert conn.execute("select numero from envios").fetchall() == [(0,)]


def test_the_payload_travels_as_json_if_its_type_is_said(cauce_db: Database) -> None:
    """With `tipo` the handler gets a copy that has been JSON, and the event its names; columns may be given."""
    got: list[Evento[Pedido]] = []

    def noting(evento: Evento[Pedido]) -> None:
        got.append(evento)

    pedido = Pedido(numero=1)
    call(noting, pedido, tipo=PedidoEvents.creado, clave="1", id_externo="x", cabeceras={"a": 1})
    (evento,) = got
    assert evento.payload == pedido
    assert evento.payload is not pedido
    assert (evento.origen, evento.tipo, evento.clave, evento.id_externo) == ("pedido", "pedido.creado", "1", "x")
    assert evento.cabeceras == {"a": 1}
    with cauce_db.connect() as conn:
        assert eventos(conn) == []


async def test_a_call_refuses_what_a_worker_refuses(cauce_db: Database) -> None:
    """No connection for a handler that takes one, a swallowed SQL error, a loop that runs already."""
    with pytest.raises(TypeError, match="creado takes tx: pass tx="):
        call(creado, Pedido(numero=1))
    with cauce_db.connect() as conn, pytest.raises(RuntimeError, match="must not suppress an SQL error"):
        call(swallow, Pedido(numero=1), tx=conn)

    async def noting(evento: Evento[Pedido]) -> None:
        """Do nothing."""

    with pytest.raises(TypeError, match="pass tx=, an AsyncConnection"):
        await call_async(creado, Pedido(numero=1))
    with pytest.raises(RuntimeError, match="await call_async"):
        call(noting, Pedido(numero=1))


# -------------------------------------------------------------------------------------------------------------- waiting


def test_waiting_ends_with_the_fact() -> None:
    """What the fact returns is returned, as soon as it is true."""
    answers = iter([0, None, 42])
    assert wait_for(lambda: next(answers)) == 42


def test_waiting_in_vain_says_for_what() -> None:
    """The error names the fact, how long it was waited for, and the last answer."""
    with pytest.raises(TimeoutError, match=r"still not so after 0.01 s: the moon \(the last answer was \[\]\)"):
        wait_for(list, "the moon", seconds=0.01)


@pytest.mark.parametrize("is_async", [True, False])
def test_waiting_in_a_loop(*, is_async: bool) -> None:
    """The loop goes on meanwhile; the fact may be async."""

    async def test() -> None:
        happened = asyncio.Event()

        async def asked() -> bool:
            return happened.is_set()

        fact: Callable[[], Any] = asked if is_async else happened.is_set
        asyncio.get_running_loop().call_soon(happened.set)
        assert await wait_for_async(fact, seconds=5)
        with pytest.raises(TimeoutError, match="the moon"):
            await wait_for_async(lambda: False, "the moon", seconds=0.01)

    asyncio.run(test())


# ----------------------------------------------------------------------------------------------------------- the plugin


APP = """
from cauce import Bus, Catalog, EventHandlers, EventType, Evento


class Events(Catalog, origen="x"):
    uno = EventType("uno", dict[str, int])


async def uno(evento: Evento[dict[str, int]]) -> None: ...


bus = Bus(catalogs=[Events], event_handlers=EventHandlers(Events.uno.handled_by(uno)))
"""
CONFTEST = """
import pytest
from app import bus


@pytest.fixture(scope="session")
def cauce_bus():
    return bus
"""
TEST = """
from app import Events, bus
from cauce import publicar_evento
from cauce.testing import drain, eventos


def test_it(cauce_db):
    with cauce_db.connect() as conn:
        publicar_evento(conn, Events.uno, {"a": 1})
    assert drain(bus, cauce_db.settings).done == 1
    with cauce_db.connect() as conn:
        assert [evento.estado for evento in eventos(conn)] == ["procesado"]
"""


def pytest_in(folder: Path, *arguments: str, **environment: str) -> str:
    """Run pytest in a project's folder and return what it says."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout + run.stderr


def test_a_project_that_does_not_use_it_does_not_load_it(tmp_path: Path) -> None:
    """Installed and unused, the plugin costs one small module: no Cauce, no driver, and no warning."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n\ndef test_it():\n    assert 'pytest_cauce' in sys.modules\n"
        "    assert not {'cauce', 'psycopg', 'pydantic'} & set(sys.modules)\n"
    )
    assert "1 passed" in pytest_in(tmp_path)


def test_a_project_that_uses_it(tmp_path: Path, cauce_server: Server) -> None:
    """A conftest of one fixture and a test of five lines: that is all an application needs."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_app.py").write_text(TEST)
    assert "1 passed" in pytest_in(tmp_path, CAUCE_TEST_DATABASE_URL=cauce_server.dsn)
