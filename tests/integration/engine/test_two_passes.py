"""The two passes over handlers with `tx`: what the first one came to counts only if its transaction was committed."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg import AsyncConnection

from cauce import Attempt, Evento, RetryAfter
from cauce.database import schema
from cauce.engine.cron import procesar_lote
from tests.integration.engine.kit import Conn, claim, column, outcome, quick, settle, states, value, work
from tests.integration.engine.scenery import Cosa, bus, effect, effects, make_effects, settled, tell


def test_a_retry_that_succeeds_beside_one_that_fails_is_done_once(conn: Conn, database: str) -> None:
    """Two stored deliveries in one batch: the failure of the second undoes the first, which is not reported before."""
    make_effects(conn)
    calls: list[int] = []

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        calls.append(evento.id)
        await effect(evento, tx)
        if len(calls) > 1 and evento.id == calls[1]:
            raise RetryAfter(3600)

    application = bus(handler)
    schema.migrate(conn, application)
    events = tell(conn, 2)
    settle(conn, claim(conn), [outcome(evento, "manejador", "reintentar", espera=0) for evento in events])
    tally = asyncio.run(procesar_lote(application, quick(database)))
    good, bad = calls[:2]
    assert calls == [good, bad, good, bad]
    assert effects(conn) == [good]
    assert column(conn, "select evento from cauce.entregas") == [bad]
    assert (tally["procesados"], tally["reintentos"], tally["lotes"]) == (1, 1, 1)


def test_a_lost_lease_is_no_failure_of_the_handler(conn: Conn, database: str) -> None:
    """While it ran its batch was taken over: its effects are undone, the hook hears nothing, another run does it."""
    make_effects(conn)
    heard: list[BaseException] = []
    calls: list[int] = []

    def hook(error: BaseException, _: Evento[Any], __: Attempt) -> None:
        heard.append(error)

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        calls.append(evento.id)
        if len(calls) == 1:
            conn.execute("update cauce.lotes set arriendo_hasta = '-infinity'; select cauce.rescatar(9)")

    (evento,) = tell(conn)
    work(bus(handler, on_error=hook), quick(database), lambda: settled(conn))
    assert calls == [evento, evento]
    assert heard == []
    assert effects(conn) == [evento]
    assert states(conn) == {"procesado": 1}
    assert "died or lost its lease" in value(conn, "select string_agg(error, '; ') from cauce.fallos")
    assert value(conn, "select count(*) from cauce.fallos") == 1
