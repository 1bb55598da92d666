"""Workers killed while their handlers write with an ORM: the effects of each come exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from cauce import publicar_evento
from cauce.database import schema
from tests.acceptance.orm_crash_app import CaidaEvents, Cosa, bus
from tests.acceptance.test_crashes import IDLE, Workers, holding
from tests.integration.engine.kit import states, until, value

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.integration.engine.kit import Conn

APP = Path(__file__).with_name("orm_crash_app.py")


@pytest.fixture
def conn(dsn: str) -> Iterator[Conn]:
    """A connection to a fresh migrated database with a table for effects."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.migrate(conn, bus)
        conn.execute("create table efectos (evento bigint, quien text)")
        yield conn


@pytest.fixture
def workers(conn: Conn) -> Iterator[Workers]:
    """Start workers on that database; none survives the test."""
    workers = Workers(conn.info.dsn, APP)
    yield workers
    workers.end()


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.soak)])
def test_effects_come_once_under_kills(conn: Conn, workers: Workers, kills: int) -> None:
    """SIGKILL, each time while the worker has leases: sessions, sync and async, and Django in one batch."""
    published = 0
    alive = [workers.start(CAUCE_CRASH_LIMIT="1000") for _ in range(2)]

    def with_leases() -> list[subprocess.Popen[bytes]]:
        nonlocal published
        if value(conn, IDLE, "procesado"):
            with conn.transaction():
                for n in range(20):
                    publicar_evento(conn, CaidaEvents.ocurrida, Cosa(n=n))
            published += 20
        return [worker for worker in alive if holding(conn, worker.pid)]

    for _ in range(kills):
        until(with_leases, "a worker with a lease")
        for victim in with_leases()[:1]:
            victim.kill()
            victim.wait()
            alive[alive.index(victim)] = workers.start(CAUCE_CRASH_LIMIT="1000")
    until(lambda: value(conn, IDLE, "procesado"), "the end of the work")
    assert states(conn) == {"procesado": published}
    each = conn.execute("select quien, count(*), count(distinct evento) from efectos group by 1 order by 1").fetchall()
    assert each == [(who, published, published) for who in ("async session", "django", "session")]
