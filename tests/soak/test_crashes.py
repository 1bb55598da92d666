"""Crashes, more of them: workers killed at random moments while others freeze, and the server with them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial

import psycopg
import pytest

from cauce.database import schema
from tests.acceptance.crash_app import bus
from tests.acceptance.test_crashes import IDLE, Workers, effects, tell
from tests.integration.engine.kit import Conn, states, until, value

pytestmark = pytest.mark.soak


@pytest.fixture
def conn(dsn: str) -> Iterator[Conn]:
    """A connection to a fresh migrated database with a table for effects."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.migrate(conn, bus)
        conn.execute("create table efectos (evento bigint, pid integer)")
        yield conn


def until_done(conn: Conn, what: str) -> None:
    """Wait until all is processed, as long as something is: workers that die while they start leave most to the end."""

    def left() -> int:
        return int(value(conn, "select count(*) from cauce.eventos where estado <> 'procesado'"))

    while before := left():
        until(partial(lambda most: left() < most, before), what)
    until(lambda: value(conn, IDLE, "procesado"), what)


def test_kills_freezes_and_cuts_at_random_moments(conn: Conn) -> None:
    """Two hundred blows to three workers, at any moment: every event processed, every effect once."""
    seed = int(os.environ.get("CAUCE_SOAK_SEED") or random.randrange(10**6))  # noqa: S311 - a scene; told if it fails
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    workers = Workers(conn.info.dsn)
    alive = [workers.start(CAUCE_CRASH_LIMIT="1000") for _ in range(3)]
    frozen: list[subprocess.Popen[bytes]] = []
    published: list[int] = []
    try:
        for _ in range(200):
            published += tell(conn, dice.randrange(60))
            time.sleep(dice.random() * 0.4)  # a random moment is the point
            blow = dice.choice(["kill", "freeze", "cut"])
            victim = dice.randrange(len(alive))
            if blow == "kill":
                alive[victim].kill()
                alive[victim].wait()
                alive[victim] = workers.start(CAUCE_CRASH_LIMIT="1000")
            elif blow == "freeze":
                os.kill(alive[victim].pid, signal.SIGSTOP)
                frozen.append(alive[victim])
                alive[victim] = workers.start(CAUCE_CRASH_LIMIT="1000")
            else:
                conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid() and random() < 0.3"
                )
            if len(frozen) > 2:
                awake = frozen.pop(0)
                os.kill(awake.pid, signal.SIGCONT)
                awake.terminate()
        for process in frozen:
            os.kill(process.pid, signal.SIGCONT)
        until_done(conn, f"progress, or the end of the work (seed {seed})")
    finally:
        workers.end()
    assert effects(conn) == published, f"seed {seed}"
    assert states(conn) == {"procesado": len(published)}
