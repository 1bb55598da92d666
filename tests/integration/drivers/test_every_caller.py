"""Publishing in the caller's transaction, whatever library holds it: one contract for all of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pydantic import BaseModel

from cauce import (
    Catalog,
    ConfigError,
    EventType,
    ForeignRestore,
    InvalidPayload,
    NotInTransaction,
    NuevoEvento,
    PublishError,
    SchemaError,
)
from tests.integration.drivers.callers import CALLERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from cauce.testing import Server
    from tests.integration.drivers.callers import Caller

NASTY = 'a"b\\c\td\n\u20ac\U0001f600%s $1'
CONCURRENT = 1000
"""Transactions of all callers at once."""
TABLES = """
create table pedidos (nombre text not null);
create function public.fallar() returns trigger language plpgsql as $$
begin
    if new.payload ->> 'fallo' <> '' then
        raise exception 'schema cauce says no'
            using errcode = new.payload ->> 'fallo', hint = 'a hint', detail = 'a detail';
    end if;
    return new;
end $$;
"""


class Nota(BaseModel):
    """A payload."""

    n: int = 0
    texto: str = NASTY
    fallo: str = ""


class Notas(Catalog, origen="prueba", prioridad=3):
    """A catalog."""

    una = EventType("nota.una", Nota)
    otra = EventType("nota.otra", Nota)


class Stop(Exception):  # noqa: N818 - it rolls back, and is no error
    """Rolls a transaction back."""


@contextmanager
def undone(block: AbstractContextManager[object]) -> Iterator[None]:
    """Be in a transaction or savepoint that rolls back at its end."""
    with suppress(Stop), block:
        yield
        raise Stop


@pytest.fixture(scope="module")
def dsn(cauce_server: Server) -> Iterator[str]:
    """A database for all tests here."""

    def tables(address: str) -> None:
        with psycopg.connect(address) as conn:
            conn.execute(TABLES.encode())
            conn.execute("create trigger fallar before insert on cauce.eventos for each row execute function fallar()")

    with cauce_server.migrated(tables=tables) as database:
        yield database.dsn


@pytest.fixture
def observer(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Another connection, to an empty log."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("delete from cauce.eventos")
        conn.execute("truncate pedidos")
        yield conn


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest, dsn: str) -> Iterator[Caller]:
    """An application of each kind."""
    made = CALLERS[request.param](dsn)
    yield made
    made.close()


def stored(observer: psycopg.Connection[Any], columns: str = "id") -> list[Any]:
    """What another connection sees of the log."""
    rows = observer.execute(f"select {columns} from cauce.eventos order by id".encode()).fetchall()  # noqa: S608 - ours
    return [row[0] for row in rows] if columns == "id" else rows


def many(count: int) -> list[NuevoEvento[Nota]]:
    """Events of two types in turns."""
    return [NuevoEvento((Notas.una, Notas.otra)[n // 100 % 2], Nota(n=n)) for n in range(count)]


def test_an_event_shares_the_fate_of_its_transaction(caller: Caller, observer: psycopg.Connection[Any]) -> None:
    """It commits with the business's own write, rolls back with it, and with the savepoint it is in."""
    with caller.transaction():
        caller.execute("insert into pedidos values ('a')")
        kept = [caller.publish(Notas.una, Nota(n=1))]
        with undone(caller.savepoint()):
            caller.publish(Notas.una, Nota(n=2))
            caller.publish_all(many(3))
        kept += caller.publish_all(many(3))
        with caller.savepoint():
            kept.append(caller.publish(Notas.una, Nota(n=3)))
        assert stored(observer) == []
    with undone(caller.transaction()):
        caller.execute("insert into pedidos values ('b')")
        caller.publish(Notas.una, Nota())
        caller.publish_all(many(3))
    assert stored(observer) == kept
    assert observer.execute("select nombre from pedidos").fetchall() == [("a",)]


def test_the_first_statement_of_a_transaction_may_be_a_publish(
    caller: Caller, observer: psycopg.Connection[Any]
) -> None:
    """Libraries that begin late begin for it, too."""
    with undone(caller.transaction()):
        caller.publish(Notas.una, Nota())
    with undone(caller.transaction()):
        caller.publish_all(many(3))
    assert stored(observer) == []


def test_autocommit_is_refused_unless_it_is_meant(caller: Caller, observer: psycopg.Connection[Any]) -> None:
    """The error says how a transaction begins with this library; many events are then one transaction."""
    with caller.loose():
        with pytest.raises(NotInTransaction, match=f"prueba/nota.una was not published: .* {caller.words}"):
            caller.publish(Notas.una, Nota())
        with pytest.raises(NotInTransaction, match=f"the events were not published: .* {caller.words}"):
            caller.publish_all(many(2))
        wrong = NuevoEvento(Notas.una, Nota(fallo="22000"))
        with pytest.raises(PublishError):
            caller.publish_all([*many(100), wrong], own_transaction=True)
        assert stored(observer) == []
        ids = [caller.publish(Notas.una, Nota(), own_transaction=True)]
        ids += caller.publish_all([*many(50), wrong._replace(payload=Nota(), id_externo="x")], own_transaction=True)
    assert stored(observer) == ids
    assert len({tx for (tx,) in stored(observer, "tx::text")}) == 2


def test_every_column_arrives(caller: Caller, observer: psycopg.Connection[Any]) -> None:
    """By one statement or among many, byte for byte; a known id stores nothing and returns the stored event's."""
    columns: dict[str, Any] = {"clave": NASTY, "prioridad": 7, "cabeceras": {"h": NASTY, "n": [1, None]}}
    with caller.transaction():
        one = caller.publish(Notas.una, Nota(n=1), id_externo="x", **columns)
        again = caller.publish(Notas.otra, Nota(n=2), id_externo="x")
        bulk = caller.publish_all([
            NuevoEvento(Notas.una, Nota(n=1), **columns),
            NuevoEvento(Notas.una, Nota(n=3), id_externo="x"),
            NuevoEvento(Notas.una, Nota(n=1), id_externo="y", **columns),
        ])  # fmt: skip
        plain = caller.publish(Notas.una, Nota(n=1))
    assert (again, bulk[1]) == (one, one)
    assert stored(observer) == [one, bulk[0], bulk[2], plain]
    full = ("nota.una", {"n": 1, "texto": NASTY, "fallo": ""}, NASTY, 7, 7, {"h": NASTY, "n": [1, None]})
    bare = (*full[:2], None, 3, 3, None)
    rows = stored(observer, "tipo, payload, clave, prioridad, carril, cabeceras")
    assert rows == [full, full, full, bare]
    assert stored(observer, "id_externo") == [("x",), (None,), ("y",), (None,)]


def test_many_come_back_in_order(caller: Caller, observer: psycopg.Connection[Any]) -> None:
    """2,500 in one transaction, some of them with an id of their own: none is lost, and the ids fit."""
    eventos = [evento._replace(id_externo=str(n)) if 700 <= n < 1800 else evento for n, evento in enumerate(many(2500))]
    with caller.transaction():
        ids = caller.publish_all(iter(eventos))
    rows = stored(observer, "id, (payload ->> 'n')::int, id_externo")
    assert rows == [(evento, n, eventos[n].id_externo) for n, evento in enumerate(ids)]
    assert len(ids) == 2500
    assert len({tx for (tx,) in stored(observer, "tx::text")}) == 1


ERRORS: dict[str, tuple[type[Exception] | None, str]] = {
    "22000": (PublishError, "schema cauce says no"),
    "22P02": (InvalidPayload, r"PostgreSQL cannot store its payload: schema cauce says no \(a detail\)"),
    "23514": (PublishError, "schema cauce says no"),
    "26000": (ConfigError, "behind a pooler in transaction mode"),
    "40001": (None, "schema cauce says no"),
    "42P01": (SchemaError, "run: cauce migrate"),
    "42703": (SchemaError, "run: cauce migrate"),
    "CA002": (ForeignRestore, r"schema cauce says no\. a hint"),
}


def test_every_error_is_the_same(caller: Caller, observer: psycopg.Connection[Any]) -> None:
    """By SQLSTATE, whichever driver raised it and whatever wraps it; what says enough stays the library's own."""
    ways: list[Callable[[NuevoEvento[Nota]], object]] = [
        lambda evento: caller.publish(evento.tipo, evento.payload),
        lambda evento: caller.publish(evento.tipo, evento.payload, clave="k"),
        lambda evento: caller.publish_all([evento]),
        lambda evento: caller.publish_all([evento._replace(id_externo="x")]),
    ]
    for code, (kind, said) in ERRORS.items():
        for publish in ways:
            with pytest.raises(Exception, match=said) as caught, caller.transaction():
                publish(NuevoEvento(Notas.una, Nota(fallo=code)))
            if kind is None:
                assert not type(caught.value).__module__.startswith("cauce")
            else:
                assert type(caught.value) is kind
                assert caught.value.__cause__ is not None
    with pytest.raises(InvalidPayload, match="cannot store"), caller.transaction():
        caller.publish(Notas.una, Nota(texto="\0"))
    with pytest.raises(InvalidPayload, match="cannot store"), caller.transaction():
        caller.publish_all([NuevoEvento(Notas.una, Nota(texto="\0"))])
    with pytest.raises(PublishError, match="clave contains a NUL character"), caller.transaction():
        caller.publish(Notas.una, Nota(), clave="\0")
    assert stored(observer) == []


def test_an_aborted_transaction_takes_no_event(caller: Caller, observer: psycopg.Connection[Any]) -> None:
    """The library says so in its own words, and the connection is usable after the rollback."""
    for publish in (lambda: caller.publish(Notas.una, Nota()), lambda: caller.publish_all(many(2))):
        with undone(caller.transaction()):
            with pytest.raises(Exception, match="division by zero"):
                caller.execute("select 1 / 0")
            with pytest.raises(Exception, match=r"transaction|rolled back") as caught:
                publish()
            assert not type(caught.value).__module__.startswith("cauce")
    with caller.transaction():
        ids = [caller.publish(Notas.una, Nota()), *caller.publish_all(many(2))]
    assert stored(observer) == ids


def test_an_error_of_the_callers_generator_stays_its_own(caller: Caller, observer: psycopg.Connection[Any]) -> None:
    """It comes through the driver's COPY as it was raised, and nothing is stored."""

    def failing() -> Iterator[NuevoEvento[Nota]]:
        yield from many(100)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), caller.transaction():
        caller.publish_all(failing())
    with caller.transaction():
        ids = caller.publish_all(many(1))
    assert stored(observer) == ids


def test_concurrent_transactions_do_not_mix(dsn: str, observer: psycopg.Connection[Any]) -> None:
    """All callers at once, a thousand transactions together, of which every third rolls back."""
    share = -(-CONCURRENT // len(CALLERS))

    def run(name: str) -> list[int]:
        caller, kept = CALLERS[name](dsn), list[int]()
        for n in range(share):
            with caller.transaction() if n % 3 else undone(caller.transaction()):
                caller.execute(f"insert into pedidos values ('{name} {n}')")  # noqa: S608 - of names that are ours
                mine = [caller.publish(Notas.una, Nota(n=n, texto=f"{name} {n}"))]
                if n % 10 == 0:
                    mine += caller.publish_all([NuevoEvento(Notas.una, Nota(n=n, texto=f"{name} {n}"))])
            kept += mine if n % 3 else []
        caller.close()
        return kept

    with ThreadPoolExecutor(len(CALLERS)) as pool:
        kept = [one for ids in pool.map(run, CALLERS) for one in ids]
    assert stored(observer) == sorted(kept)
    wrong = (
        "select 1 from pedidos full join (select distinct payload ->> 'texto' as t from cauce.eventos) e on t = nombre"
    )
    assert observer.execute(f"{wrong} where t is null or nombre is null".encode()).fetchall() == []
    assert len(kept) == len(CALLERS) * sum(2 if n % 10 == 0 else 1 for n in range(share) if n % 3)


FAMILIES = [name for name in CALLERS if " over " not in name or name.startswith(("Session", "AsyncSession", "Django"))]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_killed_process_leaves_neither_write_nor_event(
    name: str, dsn: str, observer: psycopg.Connection[Any]
) -> None:
    """Killed after the business's write and the publish, before the commit."""
    program = (sys.executable, "-m", "tests.integration.drivers.killed", name, dsn)
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "published\n"
        process.send_signal(signal.SIGKILL)
    others = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'killed'"
    while observer.execute(others).fetchone() != (0,):
        pass  # until the server has noticed
    assert stored(observer) == []
    assert observer.execute("select count(*) from pedidos").fetchone() == (0,)
