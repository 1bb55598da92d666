"""What every test may ask for beside the fixtures of the package; where tests keep files; which PostgreSQL runs."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from cauce.embedded import EmbeddedPostgres
from cauce.embedded import place as embedded_place
from cauce.embedded import server as embedded_server
from cauce.testing import Database, Server

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a directory of our own in it
ROOM_BYTES: Final = 4 * 2**30
"""What must be free there; two servers at once have used a quarter of it at their most."""

PROGRAMS_VARIABLE: Final = "CAUCE_TEST_POSTGRES_BIN"
"""Names the folder of an installed PostgreSQL's programs, which embedded servers then run instead of the wheel's."""

DAYS_VARIABLE: Final = "CAUCE_TEST_DAYS"
"""The days by which the wall clock is moved; the preloaded ``tests/clock.c`` reads it."""

_place = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def server(cauce_server: Server) -> EmbeddedPostgres:
    """The embedded server of the whole run, for tests of what only our own server can do."""
    if cauce_server.embedded is None:
        pytest.skip("the tests run on another PostgreSQL")
    return cauce_server.embedded


@pytest.fixture
def dsn(cauce_server: Server) -> Iterator[str]:
    """The address of a fresh, empty database."""
    with cauce_server.empty() as database:
        yield database.dsn


@pytest.fixture
def db(cauce_db: Database) -> Database:
    """A fresh database with Cauce's tables in it, and no application's catalog."""
    return cauce_db


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, those of clients too."""
    return Path(os.environ.get(PROGRAMS_VARIABLE) or embedded_place.find_wheel() / "pginstall" / "bin")


def pytest_configure(config: pytest.Config) -> None:
    """Have embedded servers run the programs and the clock asked for; keep temporary files in memory, if there is room.

    TMPDIR may say where instead. The tests make and drop hundreds of databases, each of them three hundred files. On a
    disk that was half of what they cost: ext4 without a journal looks at every inode freed in the last minutes before
    it gives one out.
    """
    if PROGRAMS_VARIABLE in os.environ:
        for module in (embedded_place, embedded_server):
            pytest.MonkeyPatch().setattr(module, "binary", lambda name, *_: str(programs() / name))
    if DAYS_VARIABLE in os.environ:
        environment = embedded_place.environment() | {name: os.environ[name] for name in (DAYS_VARIABLE, "LD_PRELOAD")}
        pytest.MonkeyPatch().setattr(embedded_server, "environment", lambda: environment)
    if "TMPDIR" in os.environ or not _has_room():
        return
    place = config.stash[_place] = tempfile.mkdtemp(prefix="cauce-tests-", dir=MEMORY)
    Path(place).chmod(0o1777)  # as /tmp has it: a server that root starts runs as somebody else
    os.environ["TMPDIR"] = tempfile.tempdir = place


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the memory back."""
    if place := config.stash.get(_place, None):
        shutil.rmtree(place, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let one process tell another what a test has logged, even characters that no encoding has."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


def _has_room() -> bool:
    """Whether there is a file system in memory that is large enough, and that programs may be started from."""
    if not MEMORY.is_dir():
        return False
    status = os.statvfs(MEMORY)
    return not status.f_flag & os.ST_NOEXEC and status.f_bavail * status.f_frsize >= ROOM_BYTES


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in given}))
    return True
