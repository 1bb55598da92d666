"""The commands that run until stopped: signals, a database that goes and comes back, ports, `dev`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from cauce import EventType, publicar_evento
from cauce.database import schema
from cauce.embedded import EmbeddedPostgres
from cauce.testing import Database, wait_for
from tests.acceptance.cli_app import Cosa, PuertaEvents, bus

APP: Final = ["cli_app:bus", "--app-dir", str(Path(__file__).parent)]
SECONDS: Final = 30.0
"""How long a process may take to do what it must, on a machine that is busy with something else."""


@pytest.fixture(scope="module")
def cauce_bus() -> object:
    """The application in the database."""
    return bus


@pytest.fixture
def conn(cauce_db: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit."""
    with cauce_db.connect(autocommit=True) as conn:
        yield conn


class Processes:
    """The commands a test has started, with what they log in a file each."""

    def __init__(self, gate: Path, stack: ExitStack) -> None:
        self.gate, self._stack = gate, stack

    def start(self, *arguments: str, dsn: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start one; it is killed at the end of the test if it still runs."""
        quick = {"CAUCE_LEASE_SECONDS": "2", "CAUCE_POLL_SECONDS": "0.05", "GATE": str(self.gate)}
        log = self._stack.enter_context((self.gate / f"log-{arguments[0]}").open("ab"))
        process = subprocess.Popen(
            [Path(sys.executable).with_name("cauce"), *arguments],
            env={**os.environ, **quick, "DATABASE_URL": dsn, **environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def log(self, command: str) -> str:
        """What a command has said so far."""
        return (self.gate / f"log-{command}").read_text()

    def begun(self, evento: int) -> None:
        """Wait until an event's handler has begun."""
        wait_for((self.gate / f"begun-{evento}").exists, f"the handler of event {evento} begins", seconds=SECONDS)

    def says(self, command: str, pattern: str) -> re.Match[str]:
        """Wait until a command says something."""
        wait_for(lambda: re.search(pattern, self.log(command)), f"{command} says {pattern}", seconds=SECONDS)
        found = re.search(pattern, self.log(command))
        assert found
        return found

    def open(self) -> None:
        """Let all handlers go on."""
        (self.gate / "open").touch()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """What starts commands."""
    with ExitStack() as stack:
        yield Processes(tmp_path, stack)


def publish(conn: psycopg.Connection[Any], tipo: EventType[Cosa], count: int = 1) -> list[int]:
    """Publish some events in one transaction."""
    with conn.transaction():
        return [publicar_evento(conn, tipo, Cosa(n=n)) for n in range(count)]


def states(conn: psycopg.Connection[Any]) -> list[tuple[str, int]]:
    """State and attempts of every event."""
    return conn.execute("select estado::text, intentos from cauce.eventos order by id").fetchall()


def spent(conn: psycopg.Connection[Any]) -> tuple[int, int]:
    """Attempts counted on deliveries that wait, and failures on record."""
    found = conn.execute(
        "select (select coalesce(sum(intentos), 0)::int from cauce.entregas), (select count(*) from cauce.fallos)"
    ).fetchone()
    assert found
    return found[0], found[1]


def processed(conn: psycopg.Connection[Any], count: int) -> Callable[[], bool]:
    """Whether so many events are processed."""
    return lambda: states(conn).count(("procesado", 1)) == count


def test_sigterm_lets_what_runs_finish_and_gives_the_rest_back(
    conn: psycopg.Connection[Any], cauce_db: Database, processes: Processes
) -> None:
    """The handler that runs comes to its end; those that had not begun are another worker's, with no attempt spent."""
    first, *_ = publish(conn, PuertaEvents.asincrona, 5)
    worker = processes.start("worker", *APP, "--slots", "1", "--concurrency", "1", dsn=cauce_db.dsn)
    processes.begun(first)
    (claimed,) = conn.execute("select cardinality(ids) from cauce.lotes").fetchall()[0]
    assert claimed > 1, "some of the claim have not begun"
    worker.send_signal(signal.SIGTERM)
    processes.says("worker", "SIGTERM: stopping")
    processes.open()
    assert worker.wait(SECONDS) == 0
    given_back, unread = [("en_proceso", 0)] * (claimed - 1), [("pendiente", 0)] * (5 - claimed)
    assert states(conn) == [("procesado", 1), *given_back, *unread], "what came back is owed, each to its subscriber"
    assert spent(conn) == (0, 0)
    assert conn.execute("select count(*) from cauce.lotes").fetchone() == (0,)
    assert conn.execute("select count(*) from cauce.trabajadores").fetchone() == (0,)

    processes.start("worker", *APP, dsn=cauce_db.dsn)
    wait_for(processed(conn, 5), "another worker does the rest at once", seconds=SECONDS)


@pytest.mark.parametrize("tipo", [PuertaEvents.asincrona, PuertaEvents.sincrona], ids=lambda tipo: str(tipo.tipo))
def test_what_outlasts_the_grace_period_is_given_back(
    conn: psycopg.Connection[Any], cauce_db: Database, processes: Processes, tipo: EventType[Cosa]
) -> None:
    """A handler that does not end in time costs no attempt, and its thread does not keep the process."""
    (evento,) = publish(conn, tipo)
    worker = processes.start("worker", *APP, "--grace-seconds", "0.2", dsn=cauce_db.dsn)
    processes.begun(evento)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(SECONDS) == 0
    assert ("exiting while threads are stuck" in processes.log("worker")) == (tipo is PuertaEvents.sincrona)
    assert states(conn)[0][1] == 0
    assert spent(conn) == (0, 0)
    processes.open()
    processes.start("worker", *APP, dsn=cauce_db.dsn)
    wait_for(processed(conn, 1), "another worker does it", seconds=SECONDS)


@pytest.mark.parametrize("tipo", [PuertaEvents.asincrona, PuertaEvents.bloqueante], ids=lambda tipo: str(tipo.tipo))
def test_a_second_signal_stops_at_once(
    conn: psycopg.Connection[Any], cauce_db: Database, processes: Processes, tipo: EventType[Cosa]
) -> None:
    """Even if a handler blocks the event loop; what was in hand is done again when the lease has expired."""
    (evento,) = publish(conn, tipo)
    worker = processes.start("worker", *APP, dsn=cauce_db.dsn)
    processes.begun(evento)
    if tipo is PuertaEvents.asincrona:
        worker.send_signal(signal.SIGTERM)
        processes.says("worker", "SIGTERM: stopping")
    while worker.poll() is None:  # while the loop is blocked nothing tells that the first has arrived
        worker.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(0.2)
    assert worker.returncode == 128 + signal.SIGTERM
    assert "SIGTERM again: stopped at once" in processes.log("worker")
    processes.open()
    processes.start("worker", *APP, dsn=cauce_db.dsn)
    wait_for(lambda: states(conn) == [("procesado", 2)], "it is done again, as after a crash", seconds=SECONDS)


def test_a_worker_waits_a_restart_of_the_database_out(processes: Processes) -> None:
    """PostgreSQL goes and comes back, twice; the same process works on, and stops cleanly in the end."""
    processes.open()
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            schema.migrate(conn, bus)
        worker = processes.start("worker", *APP, dsn=server.dsn)
        for done, mode in ((1, "fast"), (2, "immediate"), (3, None)):
            with psycopg.connect(server.dsn, autocommit=True) as conn:
                publish(conn, PuertaEvents.asincrona)
                wait_for(processed(conn, done), "the event is processed", seconds=SECONDS)
            if mode is not None:
                server.restart(mode)  # type: ignore[arg-type] # one of the two, by its name
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SECONDS) == 0


def test_a_worker_gets_over_the_loss_of_all_its_connections(
    conn: psycopg.Connection[Any], cauce_db: Database, processes: Processes
) -> None:
    """pg_terminate_backend in the middle of a handler: it is settled on another connection, once."""
    (evento,) = publish(conn, PuertaEvents.asincrona)
    worker = processes.start("worker", *APP, dsn=cauce_db.dsn)
    processes.begun(evento)
    cut = conn.execute(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
    ).fetchone()
    assert cut
    assert cut[0] > 0
    processes.open()
    wait_for(processed(conn, 1), "the event is processed", seconds=SECONDS)
    publish(conn, PuertaEvents.asincrona)
    wait_for(processed(conn, 2), "and the next", seconds=SECONDS)
    assert spent(conn) == (0, 0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(SECONDS) == 0


def test_a_worker_works_for_the_groups_it_is_told(cauce_db: Database, processes: Processes) -> None:
    """A group that the bus has not is one line, and exit code 1."""
    worker = processes.start("worker", *APP, "--grupo", "otros", dsn=cauce_db.dsn)
    assert worker.wait(SECONDS) == 1
    assert processes.log("worker") == "cauce: the bus has no group otros; it has principal\n"


def test_a_taken_port_is_told_in_one_line(cauce_db: Database, processes: Processes) -> None:
    """`serve` does not start half: the address is taken before anything else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = processes.start("serve", *APP, "--port", port, dsn=cauce_db.dsn)
        assert server.wait(SECONDS) == 1
    assert processes.log("serve").startswith(f"cauce: cannot listen on 127.0.0.1 port {port}: ")
    assert processes.log("serve").count("\n") == 1


@pytest.mark.parametrize("command", [("worker",), ("serve", "--port", "0"), ("serve", "--port", "0", "--worker")])
def test_uvloop_is_used_where_it_is_installed(
    cauce_db: Database, processes: Processes, command: tuple[str, ...]
) -> None:
    """The log says at the start whose event loop it is; a SIGTERM ends it as any other."""
    name, *options = command
    process = processes.start(name, *APP, *options, dsn=cauce_db.dsn)
    processes.says(name, "on the event loop of uvloop")
    process.terminate()
    assert process.wait(SECONDS) == 0


def test_serve_with_a_worker_stops_both(
    conn: psycopg.Connection[Any], cauce_db: Database, processes: Processes
) -> None:
    """A client that keeps its connection open does not keep the server, and the handler that runs is let finish."""
    server = processes.start("serve", *APP, "--port", "0", "--worker", dsn=cauce_db.dsn)
    port = int(processes.says("serve", r"listening on http://127\.0\.0\.1:(\d+)")[1])
    (evento,) = publish(conn, PuertaEvents.sincrona)
    processes.begun(evento)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /api/salud HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        server.send_signal(signal.SIGTERM)
        processes.says("serve", "SIGTERM: stopping")
        processes.open()
        assert server.wait(SECONDS) == 0
    assert states(conn) == [("procesado", 1)]


def test_dev_brings_all_that_it_takes(processes: Processes) -> None:
    """A server and a database of its own, tables, HTTP and a worker; the data are there the next time."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)  # root's PostgreSQL runs as somebody else
        for run in (1, 2):
            dev = processes.start("dev", *APP, "--port", "0", dsn="", XDG_DATA_HOME=home)
            processes.says("dev", rf"(?s)(serving: listening on.*){{{run}}}")
            said = processes.log("dev").split("SIGTERM: stopping")[-1]
            health = re.findall(r"GET +(http\S+)", said)[0]
            with urllib.request.urlopen(health, timeout=SECONDS) as answer:  # noqa: S310 - our own address
                assert json.load(answer)["estado"] == "bien"
            dsn = re.findall(r"psql '(\S+)'", said)[0]
            assert f"export DATABASE_URL='{dsn}'" in said
            with psycopg.connect(dsn, autocommit=True) as conn:
                publish(conn, PuertaEvents.asincrona)
                processes.open()
                wait_for(processed(conn, run), "the event is processed", seconds=SECONDS)
            dev.send_signal(signal.SIGTERM)
            assert dev.wait(SECONDS) == 0
