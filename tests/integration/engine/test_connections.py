"""The connections of a worker: as many as are used at the same moment, three at rest, and back after every loss."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from cauce import Evento, Subscriber
from cauce.engine import connections, heartbeat
from cauce.engine.connections import Connections
from tests.integration.engine.kit import Conn, column, quick, until_async, value, working
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

MINE = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
TERMINATE = f"select pg_terminate_backend(pid) from ({MINE}) other"  # noqa: S608 - a constant


async def pid(conn: AsyncConnection[Any]) -> int:
    """Ask a connection for its server process."""
    row = await (await conn.execute("select pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def test_many_that_need_one_for_a_moment_take_turns(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty looks at the same moment are made on one connection."""
    monkeypatch.setattr(connections, "PATIENCE", 30.0)

    pool = Connections(quick(database))
    used: set[int] = set()

    async def look() -> None:
        async with pool.lend() as conn:
            used.add(await pid(conn))

    async with pool.lend() as conn:
        used.add(await pid(conn))
        looks = asyncio.gather(*(look() for _ in range(20)))
        await asyncio.sleep(0)  # they begin to wait
    await looks
    await pool.close()
    assert len(used) == 1


async def test_whoever_finds_none_for_a_while_gets_a_new_one(database: str) -> None:
    """While one is lent for long; given back, both are used again."""
    pool = Connections(quick(database))
    async with pool.lend() as long, pool.lend() as other:
        pids = {await pid(long), await pid(other)}
    assert len(pids) == 2
    async with pool.lend() as one, pool.lend() as two:
        assert {await pid(one), await pid(two)} == pids
    await pool.close()


async def test_one_that_comes_back_broken_takes_the_idle_ones_along(database: str, conn: Conn) -> None:
    """The server has most likely restarted, so all idle connections are dropped at once."""
    pool = Connections(quick(database))
    async with pool.lend(), pool.lend():
        pass
    assert len(column(conn, MINE)) == 2
    conn.execute(TERMINATE)
    with pytest.raises(psycopg.OperationalError):
        async with pool.lend() as lost:
            await lost.execute("select 1")
    assert pool.losses == 1
    async with pool.lend() as mended, pool.lend() as other:
        await mended.execute("select 1")
        await other.execute("select 1")
    assert pool.losses == 1
    await pool.close()


async def test_one_that_comes_back_in_a_transaction_is_closed(database: str) -> None:
    """The next one to use it would find itself inside."""
    pool = Connections(quick(database))
    async with pool.lend() as conn:
        await conn.execute("begin")
    assert conn.closed
    assert pool.losses == 0
    await pool.close()


@pytest.fixture
def limited(conn: Conn, database: str) -> Iterator[str]:
    """The database's address for a role that may have two connections."""
    role = sql.Identifier("limited_" + str(value(conn, "select pg_backend_pid()")))
    conn.execute(sql.SQL("create role {} login connection limit 2").format(role))
    yield make_conninfo(database, user=role.as_string(conn).strip('"'))
    conn.execute(sql.SQL("drop role {}").format(role))


async def test_a_server_that_has_none_left_is_asked_again(limited: str) -> None:
    """Until it has one, or until one of ours comes back, whichever is first."""
    pool = Connections(quick(limited))
    with psycopg.connect(limited):
        async with pool.lend() as ours:
            waiting = asyncio.create_task(pool.lend().__aenter__())
            await asyncio.wait([waiting], timeout=0.2)  # it has been refused a few times by then
            assert not waiting.done()
        assert await waiting is ours
    await ours.close()
    with psycopg.connect(limited), psycopg.connect(limited):
        waiting = asyncio.create_task(pool.lend().__aenter__())
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
    await (await waiting).close()
    await pool.close()


def test_three_connections_at_rest_whatever_slots_and_groups(
    conn: Conn, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More while there is work for them, given back afterwards."""
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(heartbeat, "IDLE_SECONDS", 0.2)
    make_effects(conn)
    together = asyncio.Barrier(4)

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        if evento.payload.n == 0:
            async with asyncio.timeout(20):
                await together.wait()

    async def alone(evento: Evento[Cosa]) -> None:
        """Make batches of one."""

    listeners = [Subscriber(f"s{n}", PruebaEvents.una.handled_by(handler), grupo=f"g{n}") for n in range(3)]
    apart = bus(handler, other=alone, subscribers=listeners)

    async def scene() -> None:
        await until_async(lambda: value(conn, "select count(*) = 4 from cauce.grupos"))
        tell(conn, 50)
        await until_async(lambda: len(effects(conn)) == 200 and settled(conn), "all effects")
        await until_async(lambda: len(column(conn, MINE)) <= 3, "three connections")

    asyncio.run(working(apart, quick(database, slots=4, lease_seconds=30), scene))


def test_a_worker_recovers_from_the_loss_of_all_its_connections(conn: Conn, database: str) -> None:
    """While it idles and while it works, more than once; it says again that it is alive, and hears the bell."""
    asleep = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1128355139 and granted"
    alive = "select count(*) = 1 from cauce.presencia where con_cerrojo"

    async def scene() -> None:
        for _ in range(3):
            await until_async(lambda: value(conn, asleep) and value(conn, alive))
            conn.execute(TERMINATE)
            tell(conn, 20)
            await until_async(lambda: settled(conn))

    asyncio.run(working(bus(quiet), quick(database, poll_seconds=0.1, lease_seconds=0.6), scene))
    assert value(conn, "select count(*) from cauce.trabajadores") == 0
