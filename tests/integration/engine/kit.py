"""What the tests of the engine share: to publish, claim and settle by hand, and to await facts of the database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple, TypeAlias

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cauce.bus import Bus
from cauce.config import Settings
from cauce.database.claims import Row
from cauce.engine.worker import Worker

PATIENCE = 30.0
"""Seconds after which something awaited is held to be lost."""

Conn: TypeAlias = psycopg.Connection[Any]


def publish(conn: Conn, count: int = 1, *, tipo: str = "prueba.hecha", prioridad: int | None = None) -> list[int]:
    """Publish events of the origin `prueba`, one statement each, in the transaction the connection is in."""
    return [
        value(conn, "select cauce.publicar_evento('prueba', %s, '{}', null, %s::smallint)", tipo, prioridad)
        for _ in range(count)
    ]


@contextmanager
def role(dsn: str, permission: LiteralString | None) -> Iterator[str]:
    """Make a role that has one permission of the bus or none, and nothing else; yield its address of the database."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        name = f"{permission or 'nothing'}_{owner.info.dbname}"
        owner.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        try:
            if permission is not None:
                owner.execute(sql.SQL("select cauce.{}(%s)").format(sql.Identifier(permission)), (name,))
            yield make_conninfo(dsn, user=name)
        finally:
            owner.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
            owner.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def value(conn: Conn, statement: LiteralString, *parameters: object) -> Any:
    """Return the first column of the first row."""
    row = conn.execute(statement, parameters or None).fetchone()
    assert row is not None
    return row[0]


def column(conn: Conn, statement: LiteralString, *parameters: object) -> list[Any]:
    """Return the first column of every row."""
    return [row[0] for row in conn.execute(statement, parameters or None)]


class Claimed(NamedTuple):
    """A batch as it came from the database."""

    rows: list[Row]

    @property
    def lote(self) -> int:
        """The lease."""
        return self.rows[0].lote

    @property
    def ficha(self) -> int:
        """Its fencing token."""
        return self.rows[0].ficha

    @property
    def ids(self) -> list[int]:
        """The events, in the order they came, whatever delivery it is."""
        return [row.id for row in self.rows]

    @property
    def new(self) -> list[int]:
        """The events that come for the first time."""
        return [row.id for row in self.rows if row.suscriptor is None]

    def __bool__(self) -> bool:
        """Whether the claim got anything."""
        return bool(self.rows)


def claim(
    conn: Conn,
    size: int = 100,
    *,
    grupo: str = "principal",
    worker: str = "w",
    lease: float | str = 30,
    aplicacion: str = "",
    rung: bool = False,
) -> Claimed:
    """Claim a batch."""
    cursor = conn.execute(
        sql.SQL("select * from {}(%s, %s, %s, %s::interval, aplicacion => %s)").format(
            sql.Identifier("cauce", "tomar_al_timbre" if rung else "tomar")
        ),
        (grupo, size, worker, lease if isinstance(lease, str) else f"{lease} s", aplicacion),
    )
    return Claimed([Row._make(row) for row in cursor])


def settle(
    conn: Conn, batch: Claimed, entregas: Iterable[dict[str, Any]] = (), *, ids: Sequence[int] | None = None
) -> None:
    """Settle a batch; whole, or the events `ids` of it."""
    report = list(entregas)
    conn.execute(
        "select cauce.terminar(%s, %s, %s::bigint[], %s::jsonb)",
        (batch.lote, batch.ficha, batch.new if ids is None else list(ids), json.dumps(report) if report else None),
    )


def outcome(evento: int, suscriptor: str, resultado: str, intento: int = 1, **more: object) -> dict[str, Any]:
    """Return the result of a delivery, as `cauce.terminar` reads it."""
    if resultado in ("reintentar", "muerta"):
        more = {"error": "ValueError: no", "traza": "...", **more}
    return {"evento": evento, "suscriptor": suscriptor, "resultado": resultado, "intento": intento, **more}


def drain(conn: Conn, *, grupo: str = "principal", size: int = 100) -> list[int]:
    """Claim and settle until nothing is due; return the events in the order they came."""
    ids: list[int] = []
    while batch := claim(conn, size, grupo=grupo):
        ids += batch.ids
        settle(conn, batch, [outcome(r.id, r.suscriptor, "hecha", r.intento) for r in batch.rows if r.suscriptor])
    return ids


def state(conn: Conn, evento: int) -> str:
    """Return an event's state."""
    return str(value(conn, "select estado from cauce.eventos where id = %s", evento))


def states(conn: Conn) -> dict[str, int]:
    """Count the events by state."""
    return dict(conn.execute("select estado::text, count(*) from cauce.eventos group by 1").fetchall())


def until(fact: Callable[[], object], what: str = "what was awaited") -> None:
    """Wait until a condition holds."""
    ends = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < ends, f"{what} did not happen within {PATIENCE:g} s"
        time.sleep(0.005)  # between looks at the fact


async def until_async(fact: Callable[[], object], what: str = "what was awaited") -> None:
    """Wait until a condition holds, while the loop runs."""
    ends = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < ends, f"{what} did not happen within {PATIENCE:g} s"
        await asyncio.sleep(0.005)  # between looks at the fact


def until_blocked(observer: Conn, pid: int) -> None:
    """Wait until that backend waits for a lock."""
    until(
        lambda: value(observer, "select cardinality(pg_blocking_pids(%s)) > 0", pid),
        f"backend {pid} waiting for a lock",
    )


def quick(dsn: str, **changes: object) -> Settings:
    """Return settings that lose no time: short leases, polls and delays."""
    settings: dict[str, object] = {
        "database_url": dsn,
        "lease_seconds": 2.0,
        "poll_seconds": 0.05,
        "backoff_base_seconds": 0.02,
        "backoff_cap_seconds": 0.02,
        "grace_seconds": 5.0,
        "max_attempts": 3,
    }
    return Settings.model_validate(settings | changes)


def work(
    bus: Bus, settings: Settings, fact: Callable[[], object], *, workers: int = 1, groups: Sequence[str] = ()
) -> None:
    """Run real workers until a condition holds; then stop them."""
    asyncio.run(working(bus, settings, lambda: until_async(fact), workers=workers, groups=groups))


async def working(
    bus: Bus,
    settings: Settings,
    scene: Callable[[], Awaitable[object]],
    *,
    workers: int = 1,
    groups: Sequence[str] = (),
) -> None:
    """Run real workers while a scene is played; then stop them."""
    crew = [Worker(bus, settings, groups) for _ in range(workers)]
    running = asyncio.gather(*(worker.run() for worker in crew))
    playing = asyncio.ensure_future(scene())
    both: list[asyncio.Future[Any]] = [running, playing]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    for worker in crew:
        worker.stop()
    await running
    await playing
