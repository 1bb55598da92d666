"""The server of a folder, and its users.

There are three file locks in the folder; the kernel releases them when their holder dies:

- `users.lock` is shared by the users. The last to release it stops the server (`stop`); if it died, the watcher does
- `start.lock` is held by the user who starts the server
- `watch.lock` is held by the watcher until the server has ended and its files are removed
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeVar
from urllib.parse import quote

from cauce.embedded import watch
from cauce.embedded.errors import EmbeddedError
from cauce.embedded.place import User, binary, environment, find_wheel, make_data, make_folder

T = TypeVar("T")

START_SECONDS = 60.0
"""Seconds that a start may take, including crash recovery and the wait for an earlier server to end."""
STOP_SECONDS = 60.0
"""Seconds that a server may take to stop."""
SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket on Linux (unix(7): `sun_path` has 108 bytes, the last of them zero)."""

_POLL_SECONDS = 0.005
_LOG_LINES = 15
_UNIX_PORT = 5432
_NO_PROCESS = 2**22 + 1
"""A process id above the highest on Linux (PID_MAX_LIMIT, 2**22), so no process ever has it."""
_STILL_IN_USE = "is still in use"
"""PostgreSQL's message while processes of a killed server are still running."""
_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class _Postmaster(NamedTuple):
    """The content of the file `postmaster.pid` in the data of a running server."""

    pid: int
    port: int
    sockets: str
    tcp: bool
    ready: bool


class EmbeddedPostgres:
    """A PostgreSQL 18 server in a folder of its own.

    It listens on a Unix socket in a private directory. Its own user and root may connect there as the superuser
    `postgres` without a password. Several objects and processes may use the server of one folder: the first starts it,
    the last stops it. However they end, the server ends after them, and a temporary folder is removed.

    Args:
        folder: the folder of the data, as a path or text; it is created if it is missing. By default a temporary
            folder, which is removed by `close`, by leaving the `with` block, or at the end of the process.
        settings: PostgreSQL's settings for a server started here. A running server keeps its own.
        tcp: also listen on 127.0.0.1, on a free port, with a random password; `dsn` then has that address.

    Raises:
        EmbeddedError: the wheel is not installed, this is not Linux, or the folder is empty text.
        TypeError: the folder is not a path.
    """

    def __init__(
        self, folder: Path | str | None = None, *, settings: Mapping[str, str] | None = None, tcp: bool = False
    ) -> None:
        if sys.platform != "linux":
            raise EmbeddedError(f"the embedded PostgreSQL runs on Linux, not on {sys.platform}: set DATABASE_URL")
        find_wheel()
        if folder == "":
            raise EmbeddedError("the folder of the embedded PostgreSQL is empty text; leave it out for a temporary one")
        self._temporary = folder is None
        self._settings = dict(settings or {})
        self._tcp = tcp
        self._port = _UNIX_PORT
        self._sockets: str | None = None
        self._lock: int | None = None
        self._removal: weakref.finalize[[Path, int], EmbeddedPostgres] | None = None
        self.folder = (Path(tempfile.mkdtemp(prefix="cauce-")) if folder is None else Path(folder)).resolve()

    def start(self) -> None:
        """Start the server and wait until it accepts connections, or join the one that runs in this folder.

        Raises:
            EmbeddedError: it does not start within `START_SECONDS`; the message ends with the last lines of its log.
        """
        if self._lock is not None:
            raise EmbeddedError(f"this object already uses the server of {self.folder}: stop it first")
        try:
            self._lock = self._join_or_launch(time.monotonic() + START_SECONDS)
        except OSError as error:
            raise EmbeddedError(f"cannot run PostgreSQL in {self.folder}: {error}") from error
        if self._removal is not None:
            self._removal.detach()

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop using the server, and stop it unless others use it. A temporary folder stays, for another `start`.

        Args:
            mode: "fast" ends the transactions and writes a checkpoint; "immediate" is like a crash.

        Raises:
            EmbeddedError: the server still runs after `STOP_SECONDS`.
        """
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            if _try_lock(lock, fcntl.LOCK_EX):
                self._end(_SIGNALS[mode])
        finally:
            _release(lock)
        if self._temporary:
            self._removal = weakref.finalize(self, _remove, self.folder, os.getpid())

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start the server; `dsn` stays the same. A server with other users keeps running.

        Args:
            mode: as for `stop`: "fast" writes a checkpoint, "immediate" is like a crash.
        """
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server unless others use it, and remove a temporary folder."""
        self.stop("immediate" if self._temporary else "fast")
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def dsn(self) -> str:
        """The address of the database `postgres`, as the superuser."""
        return self.database("postgres")

    def database(self, name: str) -> str:
        """The address of a database, whether it exists or not.

        Args:
            name: the database's name.

        Raises:
            EmbeddedError: the server was never started.
        """
        if self._sockets is None:
            raise EmbeddedError("the embedded PostgreSQL has no address yet: call start() first")
        name = quote(name, safe="")
        if self._tcp:
            password = (self.folder / "password").read_text()
            return f"postgresql://postgres:{password}@127.0.0.1:{self._port}/{name}"
        return f"postgresql://postgres@/{name}?host={quote(self._sockets)}&port={self._port}"

    @property
    def pid(self) -> int:
        """The id of the server's first process, the postmaster.

        Raises:
            EmbeddedError: no server runs in the folder.
        """
        running = self._postmaster()
        if running is None:
            raise EmbeddedError(f"no server runs in {self.folder}")
        return running.pid

    @property
    def log(self) -> Path:
        """The server's log file; the name of the previous run's ends in `.1`."""
        return self.folder / "postgres.log"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    # ---------------------------------------------------------------------------------------------- starting, stopping

    def _join_or_launch(self, deadline: float) -> int:
        """Start or join the server, and return the lock that keeps it running."""
        user = make_folder(self.folder)
        with ExitStack() as undo:
            lock = _lock(self.folder / "users.lock", fcntl.LOCK_SH, deadline)
            undo.callback(_release, lock)
            starting = _lock(self.folder / "start.lock", fcntl.LOCK_EX, deadline)
            try:
                if self._postmaster() is None:
                    make_data(self.folder, user, durable=not self._temporary)
                    self._launch(user, deadline)
                running = _await(self._ready, deadline, lambda: f"PostgreSQL was not ready in time{self._tail()}")
            finally:
                _release(starting)
            if self._tcp and not running.tcp:
                raise EmbeddedError(f"the server of {self.folder} was started without tcp=True: stop it first")
            self._port, self._sockets = running.port, running.sockets
            undo.pop_all()
        return lock

    def _launch(self, user: User, deadline: float) -> None:
        """Start a server; try again while processes of a killed one are still running."""
        while True:
            self._spawn(user, deadline)
            _await(
                lambda: self._ready() is not None or not self._watched(),
                deadline,
                lambda: f"PostgreSQL did not start within {START_SECONDS:g} s in {self.folder}{self._tail()}",
            )
            if self._ready() is not None:
                return
            if _STILL_IN_USE not in self._tail() or time.monotonic() > deadline:
                raise EmbeddedError(f"PostgreSQL did not start in {self.folder}{self._tail()}")

    def _spawn(self, user: User, deadline: float) -> None:
        """Start the watcher, which starts the server, once the previous watcher has removed its files."""
        guard = _lock(self.folder / "watch.lock", fcntl.LOCK_EX, deadline)
        try:
            self._forget_reused_pid()
            if self.log.exists():
                self.log.replace(self.log.with_suffix(".log.1"))
            if self._tcp and self._port == _UNIX_PORT:
                self._port = _free_port()
            sockets = self._make_sockets(user)
            settings = {
                "listen_addresses": "127.0.0.1" if self._tcp else "",
                "port": str(self._port),
                "unix_socket_directories": '"' + sockets.replace('"', '""') + '"',
                **self._settings,
            }
            command = [sys.executable, "-I", "-S", watch.__file__]
            command += [str(self.folder), str(user.uid), str(user.gid), sockets]
            command += ["temporary" if self._temporary else "kept"]
            command += [binary("postgres", self.folder, user), "-D", str(self._data)]
            for name, value in settings.items():
                command += ["-c", f"{name}={value}"]
            with self.log.open("ab") as log:
                subprocess.run(
                    command,
                    check=False,  # a watcher that failed holds no lock, and has logged why
                    cwd="/",
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in a terminal must not reach the server
                    pass_fds=[guard],
                )
        finally:
            os.close(guard)  # not unlocked: the watcher inherited it

    def _make_sockets(self, user: User) -> str:
        """Create the directory of the server's socket: a short path, the same after a restart, so that `dsn` lasts."""
        if self._sockets is None:
            sockets = Path(tempfile.mkdtemp(prefix="cauce-"))
        else:
            sockets = Path(self._sockets)
            sockets.mkdir(mode=0o700)
        if len(os.fsencode(sockets / f".s.PGSQL.{self._port}")) > SOCKET_PATH_BYTES:
            sockets.rmdir()
            raise EmbeddedError(f"{sockets} is too long for a socket ({SOCKET_PATH_BYTES} bytes): set a shorter TMPDIR")
        os.chown(sockets, *user)
        return str(sockets)

    def _end(self, how: signal.Signals) -> None:
        running = self._postmaster()
        if running is not None:
            os.kill(running.pid, how)
        _await(
            lambda: self._postmaster() is None and not self._watched(),
            time.monotonic() + STOP_SECONDS,
            lambda: f"PostgreSQL did not stop within {STOP_SECONDS:g} s in {self.folder}{self._tail()}",
        )

    # ------------------------------------------------------------------------------------------------- what is running

    def _watched(self) -> bool:
        """Whether a watcher runs."""
        probe = os.open(self.folder / "watch.lock", os.O_RDWR)
        try:
            return not _try_lock(probe, fcntl.LOCK_SH)
        finally:
            os.close(probe)

    def _ready(self) -> _Postmaster | None:
        running = self._postmaster()
        return running if running is not None and running.ready else None

    def _postmaster(self) -> _Postmaster | None:
        """The server that runs in this folder, if one does."""
        try:
            lines = (self._data / "postmaster.pid").read_text(errors="surrogateescape").splitlines()
            pid = int(lines[0])
        except (FileNotFoundError, IndexError, ValueError):  # not there, or not written yet
            return None
        if not self._is_postmaster(pid):
            return None
        # the server writes the file line by line
        _, _data, _time, port, sockets, tcp, _memory, status = (*lines, *[""] * 8)[:8]
        # the file of a crashed server says "ready" too, so look for the socket, which a server creates after its file
        ready = status.strip() == "ready" and Path(sockets, f".s.PGSQL.{port}").exists()
        return _Postmaster(pid, int(port or 0), sockets, bool(tcp.strip()), ready)

    def _is_postmaster(self, pid: int) -> bool:
        """Whether that process is this folder's server; another process may have its id by now."""
        try:
            program, *arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return program.endswith(b"/postgres") and os.fsencode(self._data) in arguments

    def _forget_reused_pid(self) -> None:
        """Overwrite the process id in the file of a crashed server: PostgreSQL would take its new owner for a server.

        The file stays, because it also names the shared memory by which PostgreSQL finds processes still running.
        """
        file = self._data / "postmaster.pid"
        if file.exists():
            _, _, rest = file.read_bytes().partition(b"\n")
            file.write_bytes(b"%d\n" % _NO_PROCESS + rest)

    def _tail(self) -> str:
        """The end of the log, for the end of an error message."""
        if not self.log.exists():
            return "; it wrote no log"
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "; the end of its log:\n" + "\n".join(lines)


def _lock(file: Path, kind: int, deadline: float) -> int:
    """Open the file and lock it; release the returned descriptor with `_release`."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _await(lambda: _try_lock(descriptor, kind), deadline, lambda: f"{file} stays locked by another process")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(descriptor: int) -> None:
    """Unlock and close; without unlocking, a forked process with the same descriptor would keep the lock."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _await(condition: Callable[[], T | None], deadline: float, failure: Callable[[], str]) -> T:
    """Wait until the condition returns a true value, and return it; after the deadline, raise the failure."""
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise EmbeddedError(failure())
        time.sleep(_POLL_SECONDS)
    return result


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _remove(folder: Path, process: int) -> None:
    """Remove a temporary folder at the end of the process that created it, not of a forked one."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
