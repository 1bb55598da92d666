"""Behind PgBouncer in transaction mode: with CAUCE_POOLER all of it works; without, the first error says so."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cauce import ConfigError, Settings, publicar_evento, publicar_eventos
from cauce.catalog import NuevoEvento
from cauce.engine.cron import procesar_lote
from cauce.engine.worker import Worker
from cauce.testing import Database, wait_for
from tests.acceptance.crash_app import CaidaEvents, Cosa, bus
from tests.integration.engine.kit import Conn, quick, until_async, value, work, working

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
EVENTS = 1_000

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no pgbouncer; apt-get install pgbouncer")


class PgBouncer:
    """A PgBouncer on loopback, in front of the server of a database."""

    def __init__(self, database: Database, folder: Path, mode: str) -> None:
        to = conninfo_to_dict(database.dsn)
        host = str(to["host"])
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self._port = taken.getsockname()[1]
        self.dsn = make_conninfo("", host="127.0.0.1", port=self._port, user=to["user"], dbname=to["dbname"])
        # it refuses to run as root; the owner of the server's sockets may use them
        owner = Path(host).stat() if os.geteuid() == 0 and host.startswith("/") else None
        self._user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if owner else {}
        login = " ".join(f"{name}={to[name]}" for name in ("host", "port", "user", "password") if name in to)
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(
            f"[databases]\n* = {login}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self._port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 5\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(PROGRAM), "-q", str(self._config)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **self._user)  # type: ignore[call-overload]  # the user's three
        wait_for(self._answers, "PgBouncer answers", seconds=30)

    def kill(self) -> None:
        """Kill it: every client and every server connection is cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False


@pytest.fixture
def db(db: Database) -> Database:
    """A database with the table that handlers write."""
    with db.connect() as conn:
        conn.execute("create table efectos (evento bigint primary key, pid int)")
    return db


@pytest.fixture
def mode() -> str:
    """When it gives a connection to another client."""
    return "transaction"


@pytest.fixture
def pgbouncer(db: Database, tmp_path_factory: pytest.TempPathFactory, mode: str) -> Iterator[PgBouncer]:
    """A PgBouncer in front of the test's database."""
    folder = tmp_path_factory.mktemp("pgbouncer")
    # pytest keeps its folders to itself, one more of them where several processes share the tests out
    for entered in (folder, *(parent for parent in folder.parents if Path(gettempdir()) in parent.parents)):
        entered.chmod(0o711)
    running = PgBouncer(db, folder, mode)
    try:
        running.start()
        yield running
    finally:
        running.kill()


def pooled(pgbouncer: PgBouncer) -> Settings:
    """Settings that know of the pooler."""
    return quick(pgbouncer.dsn).model_copy(update={"pooler": True})


def publish_through(pgbouncer: PgBouncer, count: int) -> None:
    """Publish so many, one a transaction; what a lost connection leaves open is published again, and stored once."""
    conn: Conn | None = None
    for n in range(count):
        while True:
            try:
                if conn is None or conn.closed:
                    conn = psycopg.connect(pgbouncer.dsn, prepare_threshold=None, connect_timeout=5)
                publicar_evento(conn, CaidaEvents.ocurrida, Cosa(n=n + 1_000), id_externo=str(n))
                conn.commit()
                break
            except psycopg.OperationalError:
                if conn is not None:
                    conn.close()
    if conn is not None:
        conn.close()


def test_a_restart_of_pgbouncer_under_load_loses_and_doubles_nothing(db: Database, pgbouncer: PgBouncer) -> None:
    """A thousand events are published and processed through it; it is killed in the middle, and started again."""
    with db.connect(autocommit=True) as conn:

        async def scene() -> None:
            publishing = asyncio.create_task(asyncio.to_thread(publish_through, pgbouncer, EVENTS))
            await until_async(lambda: value(conn, "select count(*) >= 200 from efectos"), "the first are processed")
            await asyncio.to_thread(pgbouncer.kill)
            await asyncio.to_thread(pgbouncer.start)
            await publishing
            await until_async(
                lambda: value(conn, "select count(*) = %s from cauce.eventos where estado = 'procesado'", EVENTS),
                "all are processed",
            )

        asyncio.run(working(bus, pooled(pgbouncer), scene, workers=2))
        assert value(conn, "select count(*) from efectos") == EVENTS
        assert value(conn, "select count(*) from cauce.eventos") == EVENTS
        assert value(conn, "select count(*) from cauce.eventos where intentos > 3") == 0


def test_many_at_once_and_a_cron_work_through_pgbouncer(db: Database, pgbouncer: PgBouncer) -> None:
    """COPY, and procesar_lote."""
    with psycopg.connect(pgbouncer.dsn, prepare_threshold=None) as conn:
        publicar_eventos(conn, (NuevoEvento(CaidaEvents.ocurrida, Cosa(n=n + 1_000)) for n in range(50)))
    done = asyncio.run(procesar_lote(bus, pooled(pgbouncer)))
    assert (done["procesados"], done["pendientes"]) == (50, 0)
    with db.connect() as conn:
        assert value(conn, "select count(*) from efectos") == 50


def start_worker(pgbouncer: PgBouncer) -> None:
    """Start a worker that knows nothing of the pooler."""
    asyncio.run(Worker(bus, quick(pgbouncer.dsn)).run())


def publish_prepared(pgbouncer: PgBouncer) -> None:
    """Publish on two connections that prepare statements, until one meets a statement of the other's."""
    connections: list[psycopg.Connection[Any]] = [psycopg.connect(pgbouncer.dsn) for _ in range(2)]
    try:
        for n in range(20):
            for conn in connections:
                publicar_evento(conn, CaidaEvents.ocurrida, Cosa(n=n))
                conn.commit()
    finally:
        for conn in connections:
            conn.close()


@pytest.mark.parametrize("doing", [start_worker, publish_prepared])
def test_without_the_setting_the_error_names_it(pgbouncer: PgBouncer, doing: Callable[[PgBouncer], None]) -> None:
    """At the worker's start, before anything is claimed; for a publisher, when it meets a prepared statement."""
    with pytest.raises(ConfigError, match=r"PgBouncer.* Set CAUCE_POOLER=true .* prepare_threshold=None"):
        doing(pgbouncer)


@pytest.mark.parametrize("mode", ["session"])
def test_in_session_mode_nothing_is_to_be_set(db: Database, pgbouncer: PgBouncer) -> None:
    """A worker that knows nothing of it starts, and works."""
    with db.connect(autocommit=True) as conn:
        publicar_evento(conn, CaidaEvents.ocurrida, Cosa(n=1), own_transaction=True)
        work(bus, quick(pgbouncer.dsn), lambda: value(conn, "select count(*) from efectos") == 1)
