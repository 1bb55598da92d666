"""Upkeep: each chore is done whatever becomes of the others, and the log says which one failed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any, Final, LiteralString, NamedTuple

import pytest
from psycopg import AsyncConnection

from cauce import Settings
from cauce.engine import connections
from cauce.engine.upkeep import Upkeep
from tests.integration.engine.kit import Conn, claim, publish, quick, until_async, value, working
from tests.integration.engine.scenery import bus, settled, tell


class Chore(NamedTuple):
    """One of upkeep's: how the log names it, the function that it calls, and how its work shows."""

    said: str
    function: LiteralString
    done: LiteralString


CHORES: Final = [
    Chore("say that this worker is alive", "presentar_trabajador", "select count(*) = 2 from cauce.trabajadores"),
    Chore("take expired batches over", "rescatar", "select count(*) = 0 from cauce.lotes"),
    Chore(
        "look for retries that claims have passed by",
        "repasar_reintentos",
        "select d.proximo_en > m.proximo_en from cauce.entregas d, cauce.marcas m where d.suscriptor = 's'",
    ),
    Chore(
        "take over deliveries that wait for applications that have left their group",
        "adoptar_entregas",
        "select count(*) = 0 from cauce.entregas where aplicacion = 'gone'",
    ),
    Chore("delete old events", "purgar", "select hasta = 0 from cauce.poda"),
    Chore("delete old refused webhooks", "purgar_rechazados", "select count(*) = 0 from cauce.rechazados"),
    Chore("note which workers are gone", "pasar_lista", "select count(perdido_en) = 1 from cauce.trabajadores"),
    Chore("record the cluster's transaction id", "comprobar_restauracion", "select xid > '1' from cauce.instancia"),
]

OLD_REFUSED: Final = (
    "insert into cauce.rechazados (origen, razon, detalle, url, cabeceras, tamano, recibido_en)"
    " values ('o', 'r', 'd', 'u', '[]', 0, now() - interval '1 year')"
)


def do_all(settings: Settings) -> None:
    """Do every chore once."""

    async def once() -> None:
        async with aclosing(Upkeep(settings, "w", ["principal"])) as upkeep:
            await upkeep.once()

    asyncio.run(once())


@pytest.mark.parametrize("spoilt", CHORES, ids=[chore.function for chore in CHORES])
def test_a_chore_that_fails_stops_no_other(
    conn: Conn, database: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, spoilt: Chore
) -> None:
    """All others are done, and one line of the log names the one that was not."""
    monkeypatch.setattr("cauce.engine.upkeep.NOTE_EVERY", 0)
    conn.execute("select cauce.presentar_trabajador('gone', '{principal}', 'host', 1)")
    conn.execute("update cauce.trabajadores set visto_en = visto_en - interval '1 day'")
    publish(conn)
    assert claim(conn, lease=-1)
    conn.execute("update cauce.poda set hasta = 1000; update cauce.instancia set xid = '1'")
    conn.execute("insert into cauce.marcas values ('principal', '', false, 5, 1, now(), 1, 's')")
    conn.execute(
        "insert into cauce.entregas (evento, grupo, suscriptor, prioridad, intentos, proximo_en)"
        " values (1, 'principal', 's', 5, 1, now() - interval '1 s')"
    )
    conn.execute("insert into cauce.suscripciones values ('principal', 's', 'prueba', 'hecha')")
    conn.execute(
        "insert into cauce.entregas (evento, grupo, suscriptor, aplicacion, prioridad, intentos, proximo_en)"
        " values (1, 'principal', 't', 'gone', 5, 1, 'infinity')"
    )
    conn.execute(OLD_REFUSED)
    conn.execute(f"alter function cauce.{spoilt.function} rename to apartada")
    with caplog.at_level(logging.WARNING, "cauce.upkeep"):
        do_all(quick(database, retention_days=1))
    failures = [line for line in caplog.messages if line.startswith("upkeep failed to ")]
    assert [line.removeprefix("upkeep failed to ").partition(";")[0] for line in failures] == [spoilt.said]
    assert "\n" not in failures[0]
    for chore in CHORES:
        if chore is not spoilt:
            assert value(conn, chore.done), chore.said


def test_what_the_database_warns_of_is_in_the_log(conn: Conn, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """A batch that cannot be taken over is named there."""
    publish(conn)
    lote = claim(conn, lease=-1).lote
    conn.execute("alter table cauce.entregas add check (grupo <> 'principal')")
    do_all(quick(database))
    assert any(
        f"lote {lote} of group principal expired and could not be taken over" in said for said in caplog.messages
    )


def test_an_error_nobody_thought_of_stops_no_other_chore(
    conn: Conn, database: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of a chore's own code is logged with its traceback, and what follows is done."""

    async def broken(_: Upkeep, __: object) -> float:
        """Take expired batches over."""
        raise LookupError("no such batch")

    monkeypatch.setattr(Upkeep, "_rescue", broken)
    conn.execute(OLD_REFUSED)
    do_all(quick(database))
    assert value(conn, "select count(*) = 0 from cauce.rechazados")
    (record,) = [record for record in caplog.records if "failed to take expired batches over" in record.message]
    assert record.exc_info


def test_upkeep_and_doorbell_go_on_after_an_error_nobody_thought_of(
    conn: Conn, database: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever raises in them is logged; in the next round the worker is known, listens and works."""
    broken: list[str] = []

    def breaking_once(name: str) -> None:
        async def connect(settings: Settings) -> AsyncConnection[Any]:
            if name not in broken:
                broken.append(name)
                raise LookupError(f"{name} is broken")
            return await connections.connect(settings)

        monkeypatch.setattr(f"cauce.engine.{name}.connect", connect)

    breaking_once("upkeep")
    breaking_once("doorbell")
    asleep = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1128355139 and granted"

    async def scene() -> None:
        await until_async(lambda: value(conn, "select count(*) from cauce.trabajadores") and value(conn, asleep))
        tell(conn, 3)
        await until_async(lambda: settled(conn))

    asyncio.run(working(bus(), quick(database, lease_seconds=0.3), scene))
    for name in ("upkeep", "doorbell"):
        (record,) = [record for record in caplog.records if f"{name} is broken" in record.message]
        assert record.exc_info
