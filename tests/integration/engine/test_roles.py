"""Least privilege: what the roles of a worker and of a looker can do, to the last statement, and what they cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection

from cauce import Discard, Evento, NuevoEvento, Subscriber, publicar_evento, publicar_eventos
from cauce.database import claims, operations, schema
from cauce.database.claims import Claim
from cauce.engine.connections import connect as connect_async
from cauce.engine.cron import procesar_lote
from tests.integration.engine.kit import Conn, claim, column, quick, role, state, until_async, value, work
from tests.integration.engine.scenery import (
    Cosa,
    PruebaEvents,
    bus,
    effect,
    effects,
    make_effects,
    quiet,
    settled,
    tell,
)


@pytest.fixture
def worker(database: str) -> Iterator[str]:
    """The address of a role that may work."""
    with role(database, "permitir_trabajar") as dsn:
        yield dsn


@pytest.fixture
def looker(database: str) -> Iterator[str]:
    """The address of a role that may look."""
    with role(database, "permitir_mirar") as dsn:
        yield dsn


def let_handlers_write(conn: Conn) -> None:
    """Give everybody the business's own table: its privileges are the business's."""
    make_effects(conn)
    conn.execute("grant select, insert on efectos to public")


def test_a_worker_works(conn: Conn, database: str, worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliveries of every outcome, in two groups, long ones, misfits; retention; the batch of a dead worker."""
    monkeypatch.setattr("cauce.engine.upkeep.CHORES_SECONDS", 0.0)
    let_handlers_write(conn)

    async def handler(evento: Evento[Cosa], tx: AsyncConnection) -> None:
        await effect(evento, tx)
        if evento.payload.n == 1 and evento.intentos == 1:
            raise ValueError("once")
        if evento.payload.n == 2:
            raise Discard("never")

    async def slow(evento: Evento[Cosa]) -> None:
        if evento.payload.n == 0:
            await until_async(lambda: state(conn, evento.id) == "en_proceso", "the heartbeat renews and shows")
        if evento.payload.n == 3:
            raise ValueError("never")

    subscribers = [
        Subscriber("slow", PruebaEvents.una.handled_by(slow)),
        Subscriber("apart", PruebaEvents.una.handled_by(quiet), grupo="apart"),
    ]
    application = bus(handler, subscribers=subscribers)
    with psycopg.connect(database, autocommit=True) as owner:
        schema.migrate(owner, application)
    tell(conn, 6)
    conn.execute("select cauce.publicar_evento('prueba', 'una', '{\"n\": \"x\"}')")
    conn.execute("select cauce.publicar_evento('prueba', 'unknown', '{}')")
    conn.execute("""select cauce.publicar_evento('prueba', 'unknown', '{}', cabeceras => '{"webhook": {}}')""")
    value(conn, "select count(*) from cauce.tomar('principal', 2, 'dead', interval '0 s')")
    conn.execute(
        "insert into cauce.rechazados (origen, razon, detalle, url, cabeceras, tamano, recibido_en)"
        " values ('stripe', 'stale', '', '', '[]', 0, now() - interval '90 days')"
    )
    settings = quick(worker, lease_seconds=0.9, retention_days=0.0)

    def over() -> bool:
        if not settled(conn):
            return False
        kept = column(conn, "select id from cauce.eventos where estado = 'procesado' and tipo <> 'otra'")
        if kept or value(conn, "select count(*) from cauce.rechazados"):
            tell(conn, tipo=PruebaEvents.otra)  # positions must move on before retention may delete
            return False
        return True

    work(application, settings, over)
    assert effects(conn) == [1, 2, 4, 5, 6]
    failed = column(conn, "select tipo from cauce.eventos where estado = 'error' order by id")
    assert failed == ["una"] * 3 + ["unknown"]
    assert "permission denied" not in "".join(column(conn, "select error from cauce.fallos"))
    assert value(conn, "select count(*) from cauce.trabajadores") == 0


def test_a_batch_that_runs_alone_is_noted(conn: Conn, database: str, worker: str) -> None:
    """What only a worker with a poisoned event does; and what only cron does."""
    with psycopg.connect(database, autocommit=True) as owner:
        schema.migrate(owner, bus())
    tell(conn, 2)

    async def scene() -> None:
        async with await connect_async(quick(worker)) as mine:
            batch = await claims.claim(mine, Claim("principal", 1, "w", 30.0))
            assert batch is not None
            await claims.run_alone(mine, batch)
            await claims.settle(mine, batch, [])

    asyncio.run(scene())
    assert asyncio.run(procesar_lote(bus(), quick(worker)))["procesados"] == 1
    assert settled(conn)


def test_a_worker_publishes_looks_and_mends(conn: Conn, worker: str) -> None:
    """As handlers and people with its role do."""
    with psycopg.connect(worker, autocommit=True) as mine:
        one = publicar_evento(mine, PruebaEvents.una, PruebaEvents.una.payload(n=1), own_transaction=True)
        publicar_eventos(mine, [NuevoEvento(PruebaEvents.una, PruebaEvents.una.payload(n=2))] * 3, own_transaction=True)
        dead = "insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en)"
        for evento in (one, one + 1):
            conn.execute(f"{dead} values (%s, 'principal', 'manejador', 5, 'error', 3, now())".encode(), (evento,))
        assert operations.retry(mine, one) == 1
        assert operations.dismiss(mine, one + 1) == 1
        assert operations.show(mine, one).evento.id == one
        look_at_everything(mine)


def look_at_everything(conn: Conn) -> None:
    """Do what `status`, `events` and `show` do, and read every table."""
    operations.status(conn)
    for page in (operations.events(conn), operations.dead(conn)):
        for event in page.eventos:
            operations.show(conn, event.id)
    for table in tables(conn):
        conn.execute(f"table {table}".encode())


def tables(conn: Conn) -> list[str]:
    """Return every table of the bus."""
    return column(conn, "select format('cauce.%I', tablename) from pg_tables where schemaname = 'cauce' order by 1")


def test_a_looker_sees_everything(conn: Conn, looker: str) -> None:
    """Also what a later migration adds."""
    tell(conn, 2)
    conn.execute("create table cauce.later (n integer)")
    with psycopg.connect(looker, autocommit=True) as mine:
        look_at_everything(mine)
        assert "cauce.later" in tables(mine)


def test_a_worker_writes_tables_of_later_migrations(conn: Conn, worker: str) -> None:
    """Migrating does not stop the old workers' role."""
    conn.execute("create table cauce.later (n integer generated always as identity)")
    conn.execute("create sequence cauce.later_ids")
    with psycopg.connect(worker, autocommit=True) as mine:
        mine.execute("insert into cauce.later default values")
        mine.execute("delete from cauce.later where n = nextval('cauce.later_ids')")


FORGERIES = [
    "update cauce.eventos set payload = '{}'",
    "update cauce.eventos set tx = tx",
    "update cauce.eventos set orden = orden",
    "insert into cauce.eventos (origen, tipo, payload, tx) values ('p', 'x', '{}', '5')",
    "insert into cauce.eventos (origen, tipo, payload, orden) values ('p', 'x', '{}', '5')",
    "insert into cauce.eventos (id, origen, tipo, payload) overriding system value values (99, 'p', 'x', '{}')",
    "delete from cauce.migraciones",
    "create table cauce.mine (n integer)",
    "drop table cauce.eventos",
    "truncate cauce.eventos",
    "alter table cauce.eventos disable trigger user",
    "create or replace function cauce.foto() returns pg_snapshot language sql as 'select pg_current_snapshot()'",
    "select setval('cauce.eventos_id_seq', 1)",
    "select setval('cauce.lotes_id', 1)",
]


CALLS = [
    *FORGERIES,
    "select cauce.publicar_evento('prueba', 'una', '{}')",
    "select cauce.publicar_eventos('[]')",
    "select * from cauce.tomar('principal', 1, 'me', interval '1 minute')",
    "select cauce.rescatar(3)",
    "select cauce.reintentar(1)",
    "select cauce.descartar(1)",
    "select * from cauce.purgar(interval '0', 10)",
    "select cauce.crear_grupo('mine')",
    "select cauce.comprobar_restauracion()",
    "select nextval('cauce.lotes_id')",
]


@pytest.mark.parametrize(
    ("who", "statement"),
    [*(("worker", forgery) for forgery in FORGERIES), *(("looker", call) for call in CALLS)],
)
def test_a_worker_cannot_forge_the_log_and_a_looker_changes_nothing(
    conn: Conn, request: pytest.FixtureRequest, who: str, statement: Any
) -> None:
    """Neither the tables, nor what was published; a looker by no function of the bus."""
    tell(conn)
    with (
        psycopg.connect(request.getfixturevalue(who), autocommit=True) as mine,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        mine.execute(statement)


HOLDS = [
    "select cauce.tomar_turno('principal')",
    "lock table cauce.turno_principal in share update exclusive mode",
    "lock table cauce.turno_principal in row share mode",
    "lock table cauce.catalogo in row exclusive mode",
    "lock table cauce.lotes in row exclusive mode",
    "lock table cauce.eventos in row exclusive mode",
    "select from cauce.grupos for share",
]


@pytest.mark.parametrize("permission", [None, "permitir_publicar", "permitir_mirar"])
def test_whoever_does_not_work_holds_up_no_worker(conn: Conn, database: str, permission: LiteralString | None) -> None:
    """Neither claims nor starts: he gets none of their locks, and of those that anybody may have they need none."""
    (evento,) = tell(conn)
    conn.execute("set lock_timeout = '2s'")
    with role(database, permission) as dsn, psycopg.connect(dsn) as stranger:
        for hold in HOLDS:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), stranger.transaction():
                stranger.execute(hold)
        stranger.execute(
            "select pg_advisory_lock(1128355140, hashtext('principal')), pg_advisory_lock(1128355141, 0),"
            " pg_advisory_lock(1128355139, 0)"
        )
        assert claim(conn).ids == [evento]
        schema.save_catalog(conn, bus(), replace=False)


def test_a_worker_makes_the_groups_of_its_bus_and_claims_for_them(conn: Conn, worker: str) -> None:
    """Each with its lock, under any name; it may not make anything else in the schema."""
    published = tell(conn)
    names = ["uno", 'x"; drop table cauce.eventos; --', "\u00f1" * 255, "A" * 100, "A" * 101]
    with psycopg.connect(worker, autocommit=True) as mine:
        for name in names:
            mine.execute("select cauce.crear_grupo(%s, true)", (name,))
            assert claim(mine, grupo=name).ids == published


def test_a_looker_may_write_no_table(conn: Conn, looker: str) -> None:
    """Whatever tables there are."""
    with psycopg.connect(looker, autocommit=True) as mine:
        allowed = column(
            mine,
            "select format('%s on %s', p, c.oid::regclass) from pg_class c"
            " cross join unnest('{insert,update,delete,truncate,references,trigger}'::text[]) p"
            " where c.relnamespace = 'cauce'::regnamespace and c.relkind in ('r', 'p')"
            " and (has_table_privilege(c.oid, p)"
            "      or p in ('insert', 'update', 'references') and has_any_column_privilege(c.oid, p))",
        )
    assert tables(conn)
    assert allowed == []
