"""Crashes, with real processes: workers killed, frozen and poisoned, servers crashed and restarted under load."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

from cauce import publicar_evento
from cauce.database import schema
from cauce.embedded import EmbeddedPostgres
from tests.acceptance.crash_app import GATE, POISON, CaidaEvents, Cosa, bus
from tests.integration.engine.kit import (
    Conn,
    claim,
    column,
    quick,
    settle,
    states,
    until,
    until_async,
    until_blocked,
    value,
    work,
    working,
)

APP = Path(__file__).with_name("crash_app.py")
IDLE = "select not exists (select from cauce.lotes) and not exists (select from cauce.eventos where estado <> %s)"
OVER = "select bool_and(estado in ('procesado', 'error')) from cauce.eventos"


class Workers:
    """Workers as processes of their own."""

    def __init__(self, dsn: str, app: Path = APP) -> None:
        self._dsn, self._app = dsn, app
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start one; leases and polls are short."""
        settings = {
            "DATABASE_URL": self._dsn,
            "CAUCE_LEASE_SECONDS": "1.0",
            "CAUCE_POLL_SECONDS": "0.05",
            "CAUCE_BATCH_SIZE": "20",
        }
        process = subprocess.Popen(
            [sys.executable, self._app],
            env={**os.environ, **settings, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Kill what is left."""
        for process in self._started:
            process.kill()
            process.wait()


@pytest.fixture
def conn(dsn: str) -> Iterator[Conn]:
    """A connection to a fresh migrated database with a table for effects."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.migrate(conn, bus)
        conn.execute("create table efectos (evento bigint, pid integer)")
        yield conn


@pytest.fixture
def workers(conn: Conn) -> Iterator[Workers]:
    """Start workers on that database; none survives the test."""
    workers = Workers(conn.info.dsn)
    yield workers
    workers.end()


def tell(conn: Conn, count: int, first: int = 100) -> list[int]:
    """Publish."""
    with conn.transaction():
        return [publicar_evento(conn, CaidaEvents.ocurrida, Cosa(n=first + n)) for n in range(count)]


def effects(conn: Conn) -> list[int]:
    """Return the events of which there are effects, once for each."""
    return column(conn, "select evento from efectos order by evento")


def dead_or_done(worker: subprocess.Popen[bytes], conn: Conn) -> bool:
    """Whether the worker has died, or there is nothing left to do."""
    return worker.poll() is not None or bool(value(conn, OVER))


def holding(conn: Conn, pid: int) -> int:
    """Count the leases of a process."""
    return int(value(conn, "select count(*) from cauce.lotes where trabajador like %s", f"%-{pid}-%"))


def test_twenty_kills_in_the_middle_of_batches_lose_and_double_nothing(conn: Conn, workers: Workers) -> None:
    """SIGKILL, twenty times, each time while the worker has leases: every event processed, every effect once."""
    published: list[int] = []
    alive = [workers.start(CAUCE_CRASH_LIMIT="100") for _ in range(2)]

    def with_leases() -> list[subprocess.Popen[bytes]]:
        if value(conn, IDLE, "procesado"):
            published.extend(tell(conn, 40))
        return [worker for worker in alive if holding(conn, worker.pid)]

    kills = 0
    while kills < 20:
        until(with_leases, "a worker with a lease")
        for victim in with_leases()[:1]:
            kills += 1
            victim.kill()
            victim.wait()
            alive[alive.index(victim)] = workers.start(CAUCE_CRASH_LIMIT="100")
    until(lambda: value(conn, IDLE, "procesado"), "the end of the work")
    assert effects(conn) == published
    assert states(conn) == {"procesado": len(published)}
    assert value(conn, "select count(*) from cauce.fallos where error like '%died or lost its lease%'") > 0


def test_a_frozen_worker_that_wakes_after_takeover_settles_nothing(conn: Conn, workers: Workers) -> None:
    """SIGSTOP in the middle of a handler, past the lease; another does the work; SIGCONT: its effects are undone."""
    published = tell(conn, 3)
    with psycopg.connect(conn.info.dsn, autocommit=True) as gate:
        gate.execute("select pg_advisory_lock(%s)", (GATE,))
        frozen = workers.start(GATED="1")
        waiting = "select pid from pg_locks where locktype = 'advisory' and not granted and objid = %s"
        until(lambda: column(conn, waiting, GATE), "the handler at the gate")
        (backend,) = column(conn, waiting, GATE)
        frozen.send_signal(signal.SIGSTOP)
        workers.start()
        until(lambda: len(effects(conn)) == 3 and value(conn, IDLE, "procesado"), "the takeover")
        gate.execute("select pg_advisory_unlock(%s)", (GATE,))
    frozen.send_signal(signal.SIGCONT)
    over = "select coalesce((select xact_start is null from pg_stat_activity where pid = %s), true)"
    until(lambda: value(conn, over, backend), "the end of the frozen worker's transaction")
    more = tell(conn, 1)
    until(lambda: value(conn, IDLE, "procesado"), "the next event")
    assert effects(conn) == published + more
    assert frozen.pid not in column(conn, "select pid from efectos where evento = any(%s)", published)
    assert column(conn, "select intentos from cauce.eventos order by id") == [2, 2, 2, 1]


def test_a_handler_that_kills_its_process_ends_alone_in_error(conn: Conn, workers: Workers) -> None:
    """`os._exit` in a handler: three processes die of it, it ends in `error`, and all its neighbours are processed."""
    before = tell(conn, 30)
    poison = tell(conn, 1, POISON)
    after = tell(conn, 30)
    deaths = 0
    while not value(conn, OVER):
        worker = workers.start(POISONOUS="1")
        until(functools.partial(dead_or_done, worker, conn), "a death or the end")
        deaths += worker.poll() is not None
    assert deaths == 3
    assert column(conn, "select id from cauce.eventos where estado = 'error'") == poison
    assert effects(conn) == before + after
    assert "3 workers died" in value(conn, "select ultimo_error from cauce.eventos where estado = 'error'")


def test_several_events_that_kill_their_process_take_no_neighbour_along(conn: Conn, workers: Workers) -> None:
    """Five of them among others, two batches in hand at once: those five end in `error`, all else is processed."""
    good: list[int] = []
    poison: list[int] = []
    for _ in range(5):
        good += tell(conn, 8)
        poison += tell(conn, 1, POISON)
    deaths = 0
    while not value(conn, OVER):
        worker = workers.start(POISONOUS="1", CAUCE_BATCH_SIZE="4", CAUCE_LEASE_SECONDS="0.3")
        until(functools.partial(dead_or_done, worker, conn), "a death or the end")
        deaths += worker.poll() is not None
        assert deaths <= 3 * len(poison)
    assert column(conn, "select id from cauce.eventos where estado = 'error' order by id") == poison
    assert effects(conn) == good


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that the test may crash."""
    settings = {"shared_buffers": "16MB", "synchronous_commit": "on", "fsync": "off", "max_connections": "50"}
    with EmbeddedPostgres(settings=settings) as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            schema.migrate(conn, bus)
            conn.execute("create table efectos (evento bigint, pid integer)")
        yield server


def test_a_server_crash_right_after_a_claim_loses_no_event(own_server: EmbeddedPostgres) -> None:
    """Claims may be undone by a crash, for they do not wait for the disk; their holders then settle nothing (A4).

    Those that survived settle with their token. Either way every event is processed, once.
    """
    with psycopg.connect(own_server.dsn, autocommit=True) as conn:
        published = tell(conn, 12)
        old = [claim(conn, 3) for _ in range(3)]
        own_server.restart("immediate")
    with psycopg.connect(own_server.dsn, autocommit=True) as conn:
        new = claim(conn, 2, worker="another")
        by_hand: list[int] = []
        refusals: set[str | None] = set()
        for batch in old:
            try:
                settle(conn, batch)
                by_hand += batch.ids
            except psycopg.DatabaseError as lost:
                refusals.add(lost.sqlstate)
        assert refusals <= {"CA001"}
        assert not set(new.ids) & set(by_hand)
        conn.execute("update cauce.lotes set arriendo_hasta = now()")
        work(bus, quick(own_server.dsn), lambda: value(conn, IDLE, "procesado"))
        assert sorted(effects(conn) + by_hand) == published


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_restarted_under_load_loses_and_doubles_nothing(
    own_server: EmbeddedPostgres, mode: Literal["fast", "immediate"]
) -> None:
    """Publishers and workers are in full swing when PostgreSQL goes and comes back, twice; the workers live on."""
    stop = threading.Event()

    def publisher(name: int) -> None:
        n = 0
        while not stop.is_set():
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(own_server.dsn) as mine:
                while not stop.is_set():
                    publicar_evento(mine, CaidaEvents.ocurrida, Cosa(n=1000 + n), id_externo=f"{name}-{n}")
                    mine.commit()
                    n += 1

    def ask(statement: Any, *parameters: object) -> Any:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(own_server.dsn, autocommit=True) as mine:
            return value(mine, statement, *parameters)
        return None

    async def scene() -> None:
        publishing = [asyncio.create_task(asyncio.to_thread(publisher, name)) for name in range(2)]
        try:
            for _ in range(2):
                done = ask("select count(*) from cauce.eventos where estado = 'procesado'") or 0
                grown = "select count(*) > %s from cauce.eventos where estado = 'procesado'"
                await until_async(functools.partial(ask, grown, done + 50), "progress")
                await asyncio.to_thread(own_server.restart, mode)
        finally:
            stop.set()
        await asyncio.gather(*publishing)
        await until_async(lambda: ask(IDLE, "procesado"), "the end of the work")

    asyncio.run(working(bus, quick(own_server.dsn, lease_seconds=1.0), scene, workers=2))
    with psycopg.connect(own_server.dsn, autocommit=True) as conn:
        assert effects(conn) == column(conn, "select id from cauce.eventos order by id")
        assert value(conn, "select count(*) from cauce.eventos where estado <> 'procesado'") == 0
        names = Counter(column(conn, "select split_part(id_externo, '-', 1) from cauce.eventos"))
        assert len(names) == 2


def test_a_process_killed_while_it_waits_for_the_database_leaves_nothing(conn: Conn, workers: Workers) -> None:
    """A worker killed in the middle of its settlement: its backend ends with it, and its events come again."""
    published = tell(conn, 5)
    with psycopg.connect(conn.info.dsn) as blocker:
        blocker.execute("select from cauce.eventos for update")
        victim = workers.start()
        settling = (
            "select pid from pg_stat_activity where datname = current_database() and query like '%%terminar%%'"
            " and wait_event_type = %s"
        )
        until(lambda: column(conn, settling, "Lock"), "a settlement that waits")
        (backend,) = column(conn, settling, "Lock")
        until_blocked(conn, backend)
        victim.kill()
        victim.wait()
    workers.start()
    until(lambda: value(conn, IDLE, "procesado"), "the end of the work")
    assert sorted(set(effects(conn))) == published
    assert len(effects(conn)) == 5


def test_helpers_are_what_they_seem(conn: Conn) -> None:
    """The facts that these tests await are false while there is work."""
    assert value(conn, IDLE, "procesado") is True
    tell(conn, 1)
    assert value(conn, IDLE, "procesado") is False
