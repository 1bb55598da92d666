"""The floor: a SKIP LOCKED queue in hand-written SQL, with the fastest driver and nothing around it.

asyncpg on uvloop, for all phases but one: latency is measured against psycopg, which the bus uses too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, LiteralString, Self

import asyncpg
import psycopg
from psycopg.types.json import Jsonb

from benchmarks.application import CHUNK, DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BATCH: Final = 500
"""Jobs claimed at once: the best of 100, 500 and 1000."""
LOOK: Final = 0.2
"""The polling interval in seconds while no NOTIFY arrives."""
FAN: Final = 3
"""Jobs for an event with three recipients: a queue needs a job for each."""

PENDING: Final = "select count(*) from trabajos where estado <> 'hecho'"

INSERT: LiteralString = "insert into trabajos (tipo, payload) values ($1, $2)"
INSERT_AND_RING: LiteralString = (
    "with nuevo as (insert into trabajos (tipo, payload) values (%s, %s)) select pg_notify('trabajos', '')"
)
CLAIM: LiteralString = """
with elegidos as (
    select id from trabajos where estado = 'listo' and disponible_en <= now()
     order by prioridad, id limit {} for update skip locked)
update trabajos t set estado = 'en_curso', intentos = intentos + 1, arriendo_hasta = now() + interval '1 minute'
  from elegidos e where t.id = e.id returning t.id, t.tipo, t.payload, t.intentos"""
FINISH: LiteralString = (
    "update trabajos set estado = 'hecho', hecho_en = now() where id = any ({}::bigint[]) and estado = 'en_curso'"
)


def payload(number: int, padding: str) -> dict[str, Any]:
    """Return the same payload as ours, as a dictionary."""
    return {**ENVELOPE, "seq": number, "padding": padding}


ENVELOPE: Final[dict[str, Any]] = {
    "id": "evt_1NG8Du2eZvKYlo2CUI79vXWy",
    "object": "event",
    "data": DATA.model_dump(),
    "livemode": False,
}


class Publisher:
    """Publishes into the queue with asyncpg."""

    def __init__(self, conn: asyncpg.Connection) -> None:
        self._conn = conn

    @classmethod
    async def open(cls, dsn: str) -> Self:
        """Connect."""
        return cls(await asyncpg.connect(dsn))

    async def close(self) -> None:
        """Close the connection."""
        await self._conn.close()

    async def publish(self, numbers: Iterable[int]) -> None:
        """Insert jobs, one a transaction."""
        for number in numbers:
            await self._conn.execute(INSERT, "listo", json.dumps(payload(number, "")))

    async def publish_with_business(self, numbers: Iterable[int]) -> None:
        """Write a business row and insert its job, one pair a transaction."""
        for number in numbers:
            async with self._conn.transaction():
                await self._conn.execute("insert into reservas (referencia, importe) values ($1, $2)", "r", number)
                await self._conn.execute(INSERT, "listo", json.dumps(payload(number, "")))

    async def bulk(self, numbers: Iterable[int], *, fan: bool = False, padding: str = "") -> None:
        """COPY many jobs, a thousand events a call."""
        rest = iter(numbers)
        while chunk := list(islice(rest, CHUNK)):
            records = [
                (f"listo{copy}", json.dumps(payload(number, padding)))
                for number in chunk
                for copy in range(FAN if fan else 1)
            ]
            await self._conn.copy_records_to_table("trabajos", records=records, columns=["tipo", "payload"])


async def handle(body: dict[str, Any], tell: Callable[[int], None]) -> None:
    """Do nothing, but say so."""
    tell(body["seq"])


async def drain(dsn: str, tell: Callable[[int], None], stop: asyncio.Event) -> None:
    """Work with asyncpg until stopped; while nothing is ready, look again and again."""
    conn = await asyncpg.connect(dsn)
    claim, finish = CLAIM.format("$1"), FINISH.format("$1")
    while not stop.is_set():
        rows = await conn.fetch(claim, BATCH)
        for row in rows:
            await handle(json.loads(row["payload"]), tell)
        if rows:
            await conn.execute(finish, [row["id"] for row in rows])
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK)
    await conn.close()


async def listen(dsn: str, tell: Callable[[int], None], stop: asyncio.Event) -> None:
    """Work with psycopg, woken by a notification."""
    conn: psycopg.AsyncConnection[Any]
    bell: psycopg.AsyncConnection[Any]
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=0) as conn,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as bell,
    ):
        await bell.execute("listen trabajos")
        claim, finish = CLAIM.format("%s"), FINISH.format("%s")
        while not stop.is_set():
            cursor = await conn.cursor(binary=True).execute(claim, (BATCH,))
            rows = await cursor.fetchall()
            for row in rows:
                await handle(row[2], tell)
            if rows:
                await conn.execute(finish, ([row[0] for row in rows],))
            else:
                async for _ in bell.notifies(timeout=LOOK, stop_after=1):
                    pass


class RingingPublisher:
    """Inserts jobs and rings, with psycopg."""

    def __init__(self, dsn: str) -> None:
        self._conn: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    async def publish(self, numbers: Iterable[int]) -> None:
        """Insert jobs and ring, one a transaction."""
        for number in numbers:
            self._conn.execute(INSERT_AND_RING, ("listo", Jsonb(payload(number, ""))))
