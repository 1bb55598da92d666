"""An idle worker: how often it polls, that it writes nothing, and how others know that it is alive."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from cauce import Subscriber
from cauce.database import claims, operations, schema
from cauce.embedded import EmbeddedPostgres
from cauce.engine import upkeep
from cauce.engine.doorbell import Doorbell
from cauce.engine.worker import Worker
from cauce.testing import Server
from tests.integration.engine.kit import Conn, quick, until_async, value, working
from tests.integration.engine.scenery import PruebaEvents, bus, quiet, settled, tell

ASLEEP = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1128355139 and granted"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The groups that were polled, and `-` for every ring that woke a runner."""
    seen: list[str] = []
    claim, wake = claims.claim, Doorbell.wake

    async def counted(conn: psycopg.AsyncConnection[object], wanted: claims.Claim) -> claims.Batch | None:
        seen.append(wanted.grupo)
        return await claim(conn, wanted)

    def woken(self: Doorbell, *, rung: bool = False, everybody: bool = False) -> None:
        seen.append("-")
        wake(self, rung=rung, everybody=everybody)

    monkeypatch.setattr("cauce.database.claims.claim", counted)
    monkeypatch.setattr(Doorbell, "wake", woken)
    return seen


def records(conn: Conn, since: str) -> list[tuple[object, ...]]:
    """Return what was written to the WAL since then, but for what the server notes by itself every 15 seconds."""
    end = value(conn, "select pg_current_wal_insert_lsn()::text")
    if end == since:
        return []
    conn.execute("checkpoint")  # only what has been flushed can be read
    return conn.execute(
        "select xid, resource_manager, record_type, block_ref from pg_get_wal_records_info(%s, %s)"
        " where resource_manager not in ('Standby', 'XLOG') limit 20",
        (since, end),
    ).fetchall()


def test_an_idle_group_is_looked_at_once_an_interval_whatever_the_slots(
    conn: Conn, database: str, looks: list[str]
) -> None:
    """Of three groups with four slots each, one slot polls at a time."""
    listeners = [Subscriber(f"s{n}", PruebaEvents.una.handled_by(quiet), grupo=f"g{n}") for n in range(2)]

    slots = 4

    async def scene() -> None:
        await until_async(lambda: value(conn, ASLEEP))
        looks.clear()
        await until_async(lambda: looks.count("-") > 40)
        ended = looks.count("-")
        for grupo in ("principal", "g0", "g1"):
            assert 1 <= looks.count(grupo) <= ended + slots  # each slot may have been looking when the counting began

    asyncio.run(working(bus(subscribers=listeners), quick(database, slots=slots, poll_seconds=0.02), scene))


def test_an_idle_worker_writes_nothing(cauce_server: Server, monkeypatch: pytest.MonkeyPatch, looks: list[str]) -> None:
    """Hundreds of polls, and every chore repeatedly: not a byte of WAL."""
    if cauce_server.embedded is None:
        pytest.skip("nobody else may write on that server, so it must be our own")
    monkeypatch.setattr(upkeep, "CHORES_SECONDS", 0.0)
    rounds: list[None] = []
    once = upkeep.Upkeep.once

    async def counted(self: upkeep.Upkeep) -> None:
        await once(self)
        rounds.append(None)

    monkeypatch.setattr(upkeep.Upkeep, "once", counted)
    with EmbeddedPostgres(settings={"autovacuum": "off", "checkpoint_timeout": "1h"}) as server:
        application = bus()
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            schema.migrate(conn, application)
            conn.execute("create extension pg_walinspect")

            async def scene() -> None:
                tell(conn, 30)
                await until_async(lambda: settled(conn) and value(conn, ASLEEP))
                quieted = len(rounds)
                await until_async(lambda: len(rounds) > quieted + 2)  # what is read for the first time gets hint bits
                conn.execute("checkpoint")
                began, looked, kept = value(conn, "select pg_current_wal_insert_lsn()::text"), len(looks), len(rounds)
                await until_async(lambda: len(looks) > looked + 300 and len(rounds) > kept + 10)
                assert records(conn, began) == []

            settings = quick(server.dsn, poll_seconds=0.005, lease_seconds=0.15, retention_days=1)
            asyncio.run(working(application, settings, scene))


def test_a_worker_is_seen_to_be_alive_without_writing(conn: Conn, database: str) -> None:
    """By its session: it is seen again and again though its row stays; ended by force, it is gone at once."""
    seen = "select max(visto_en)::text from cauce.presencia"
    row = "select max(visto_en)::text from cauce.trabajadores"

    async def scene() -> None:
        await until_async(lambda: value(conn, "select count(*) = 1 from cauce.presencia where con_cerrojo"))
        written, first = value(conn, row), value(conn, seen)
        await until_async(lambda: value(conn, seen) > first)
        assert value(conn, row) == written
        (worker,) = operations.status(conn).trabajadores
        assert worker.vivo

    asyncio.run(working(bus(), quick(database, lease_seconds=0.3), scene))


def test_a_frozen_worker_is_silent_though_its_session_lives(conn: Conn, database: str) -> None:
    """It keeps its lock and does nothing: what counts is when its session last did something."""
    with psycopg.connect(database, autocommit=True) as worker:
        worker.execute("select cauce.presentar_trabajador('helado', '{principal}', 'host', 1, true)")
        conn.execute("update cauce.trabajadores set visto_en = visto_en - interval '1 hour'")
        first = value(conn, "select visto_en from cauce.presencia")
        assert value(conn, "select con_cerrojo from cauce.presencia")
        assert value(conn, "select visto_en from cauce.presencia") == first
        worker.execute("select 1")
        assert value(conn, "select visto_en from cauce.presencia") > first


def test_a_worker_that_is_gone_is_remembered_for_an_hour(conn: Conn) -> None:
    """From when somebody noticed, however long ago it began; its return is noticed as well."""
    roll_call = "select cauce.pasar_lista()"
    conn.execute("select cauce.presentar_trabajador('ido', '{principal}', 'host', 1)")
    conn.execute(roll_call)
    assert value(conn, "select perdido_en is null from cauce.presencia")
    conn.execute("update cauce.trabajadores set visto_en = visto_en - interval '3 days'")
    conn.execute(roll_call)
    assert value(conn, "select perdido_en > clock_timestamp() - interval '1 minute' from cauce.presencia")
    conn.execute("update cauce.trabajadores set perdido_en = perdido_en - interval '59 minutes'")
    conn.execute(roll_call)
    assert value(conn, "select count(*) from cauce.presencia") == 1
    conn.execute("select cauce.presentar_trabajador('ido', '{principal}', 'host', 1)")
    assert value(conn, "select perdido_en is null from cauce.presencia")
    conn.execute("update cauce.trabajadores set perdido_en = clock_timestamp() - interval '61 minutes'")
    conn.execute(roll_call)
    assert value(conn, "select count(*) from cauce.presencia") == 0


async def test_behind_a_pooler_a_worker_writes_that_it_is_alive(
    conn: Conn, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seldom; and it holds no lock, which behind a pooler another client's session would keep."""
    monkeypatch.setattr(upkeep, "PRESENT_SECONDS", 0.0)
    seen = "select max(visto_en)::text from cauce.trabajadores"

    async def scene() -> None:
        await until_async(lambda: value(conn, seen))
        first = value(conn, seen)
        tell(conn, 5)
        await until_async(lambda: value(conn, seen) > first and settled(conn))
        assert value(conn, ASLEEP) == 0
        assert not value(conn, "select bool_or(con_cerrojo) from cauce.presencia")

    worker = Worker(bus(), quick(database, pooler=True, lease_seconds=0.3))
    running = asyncio.create_task(worker.run())
    await scene()
    worker.stop()
    await running
