"""Rolling deploys: types and subscribers that this program does not know, payloads that no longer fit (DESIGN 5)."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel, model_validator

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, Subscriber
from cauce.database import schema
from cauce.engine.cron import procesar_lote
from cauce.engine.worker import Worker
from cauce.testing import wait_for
from tests.integration.engine.kit import (
    Conn,
    claim,
    column,
    outcome,
    quick,
    settle,
    states,
    until_async,
    value,
    work,
    working,
)
from tests.integration.engine.scenery import (
    Cosa,
    PruebaEvents,
    bus,
    effect,
    effects,
    make_effects,
    quiet,
    settled,
    tell,
)

WEBHOOK = '{"webhook": {}, "headers": {}}'


def insert(conn: Conn, tipo: str, payload: str = "{}", cabeceras: str | None = None) -> int:
    """Publish an event of whatever type, by SQL."""
    return int(value(conn, "select cauce.publicar_evento('prueba', %s, %s, cabeceras => %s)", tipo, payload, cabeceras))


def test_an_event_that_only_a_newer_deploy_knows_is_given_back(conn: Conn, database: str) -> None:
    """In `catalogo`, but not in this process: back without an attempt, and the newer worker gets it."""
    conn.execute("insert into cauce.catalogo (origen, tipo, prioridad) values ('prueba', 'nueva', 5)")
    insert(conn, "nueva")
    back = "select estado = 'pendiente' and not exists (select from cauce.lotes) from cauce.entregas"
    work(bus(), quick(database), lambda: column(conn, back) == [True])
    assert conn.execute("select estado::text, intentos from cauce.eventos").fetchone() == ("pendiente", 0)
    assert conn.execute("select suscriptor, intentos, proximo_en > now() from cauce.entregas").fetchone() == (
        "*",
        0,
        True,
    )

    class NuevaEvents(Catalog, origen="prueba"):
        nueva = EventType("nueva", dict[str, Any])

    newer = Bus(catalogs=[NuevaEvents], event_handlers=EventHandlers(NuevaEvents.nueva.handled_by(quiet)))
    conn.execute("update cauce.entregas set proximo_en = now()")
    work(newer, quick(database), lambda: settled(conn))
    assert conn.execute("select estado::text, intentos from cauce.eventos").fetchone() == ("procesado", 1)


def test_a_webhook_that_nobody_knows_is_ignored_and_says_so(conn: Conn, database: str) -> None:
    """In no catalog: `procesado`, `ignorado`."""
    insert(conn, "quien sabe", cabeceras=WEBHOOK)
    work(bus(), quick(database), lambda: settled(conn))
    row = conn.execute("select estado::text, ignorado, ultimo_error from cauce.eventos").fetchone()
    assert row == ("procesado", True, "nobody handles prueba/quien sabe")


@pytest.mark.parametrize("cabeceras", [None, "{}", "[]", "5", "null", '"webhook"'])
def test_an_internal_event_that_nobody_knows_is_an_error_and_says_so(
    conn: Conn, database: str, cabeceras: str | None
) -> None:
    """In no catalog, and not a webhook: `error`, whatever its headers."""
    insert(conn, "quien sabe", cabeceras=cabeceras)
    work(bus(), quick(database), lambda: settled(conn))
    row = conn.execute("select estado::text, ignorado, ultimo_error from cauce.eventos").fetchone()
    assert row == ("error", False, "no handler for prueba/quien sabe in this application nor in any catalog")


@pytest.mark.parametrize("cabeceras", ["[]", "5", "null"])
def test_headers_of_any_json_do_no_harm(conn: Conn, database: str, cabeceras: str) -> None:
    """A publisher in SQL may store any JSON as headers."""
    insert(conn, "una", cabeceras=cabeceras)
    work(bus(), quick(database), lambda: settled(conn))
    assert states(conn) == {"procesado": 1}


@pytest.mark.parametrize("tipo", ["una", "quien sabe"])
def test_a_webhook_kept_raw_stays_an_error(conn: Conn, database: str, tipo: str) -> None:
    """No handler gets a body that is not JSON, whether its type is known or not."""
    conn.execute(
        "insert into cauce.eventos (origen, tipo, cuerpo, cabeceras, estado, ultimo_error)"
        " values ('prueba', %s, 'raw', %s, 'error', 'not JSON')",
        (tipo, WEBHOOK),
    )
    work(bus(), quick(database), lambda: value(conn, "select count(*) from cauce.entregas where estado = 'error'"))
    assert conn.execute("select estado::text, ignorado from cauce.eventos").fetchone() == ("error", False)


class Estricta(BaseModel):
    """A payload whose validator may fail."""

    n: int

    @model_validator(mode="after")
    def _crash(self) -> Estricta:
        """Raise an error that pydantic does not expect."""
        if self.n == 13:
            raise KeyError("thirteen")
        return self


class EstrictaEvents(Catalog, origen="estricta"):
    """Events whose payloads may not fit."""

    nueva = EventType("nueva", Estricta)


@pytest.mark.parametrize(
    ("payload", "said"), [('{"n": "x"}', "valid integer"), ("[]", "Estricta"), ('{"n": 13}', "thirteen"), ("null", "")]
)
def test_a_payload_that_no_longer_fits_is_an_error_at_once(conn: Conn, database: str, payload: str, said: str) -> None:
    """With the validator's message, whatever it raises, and without an attempt of any handler; the others go on."""
    calls: list[int] = []

    async def handler(evento: Evento[Estricta]) -> None:
        calls.append(evento.payload.n)

    strict = Bus(catalogs=[EstrictaEvents], event_handlers=EventHandlers(EstrictaEvents.nueva.handled_by(handler)))
    for each in ('{"n": 1}', payload, '{"n": 2}'):
        conn.execute("select cauce.publicar_evento('estricta', 'nueva', %s)", (each,))
    work(strict, quick(database), lambda: settled(conn))
    assert sorted(calls) == [1, 2]
    rows = conn.execute("select estado::text, ultimo_error from cauce.eventos order by id").fetchall()
    assert [row[0] for row in rows] == ["procesado", "error", "procesado"]
    assert said in rows[1][1]


def test_a_delivery_of_a_subscriber_that_only_a_newer_deploy_has_waits(conn: Conn, database: str) -> None:
    """The older program gives it back; the newer one runs it."""
    calls: list[int] = []

    async def listener(evento: Evento[Cosa]) -> None:
        calls.append(evento.id)

    newer = bus(subscribers=[Subscriber("nuevo", PruebaEvents.una.handled_by(listener))])
    schema.migrate(conn, newer)
    (evento,) = tell(conn)
    settle(conn, claim(conn), [outcome(evento, "nuevo", "reintentar", espera=0)])
    work(bus(), quick(database), lambda: value(conn, "select proximo_en > now() + '1 s' from cauce.entregas"))
    assert value(conn, "select intentos from cauce.entregas") == 1
    conn.execute("update cauce.entregas set proximo_en = now()")
    work(newer, quick(database), lambda: settled(conn))
    assert calls == [evento]
    assert states(conn) == {"procesado": 1}


def test_a_delivery_of_a_subscriber_that_is_gone_ends_in_error(conn: Conn, database: str) -> None:
    """A deploy removed the subscriber: its waiting delivery ends in error, with a message that names it."""
    schema.migrate(conn, bus(subscribers=[Subscriber("viejo", PruebaEvents.una.handled_by(quiet))]))
    (evento,) = tell(conn)
    settle(conn, claim(conn), [outcome(evento, "viejo", "reintentar", espera=0)])
    schema.migrate(conn, bus())
    work(bus(), quick(database), lambda: settled(conn))
    assert states(conn) == {"error": 1}
    assert "'viejo'" in value(conn, "select ultimo_error from cauce.eventos")


def test_a_group_of_its_own_gets_only_what_it_listens_to(conn: Conn, database: str) -> None:
    """A subscriber with a group reads the log apart, passes over the rest, and fails apart."""
    make_effects(conn)
    calls: Counter[int] = Counter()

    async def aside(evento: Evento[Cosa]) -> None:
        calls[evento.id] += 1
        raise ValueError("aside")

    apart = bus(
        effect, other=effect, subscribers=[Subscriber("s", PruebaEvents.otra.handled_by(aside), grupo="aparte")]
    )
    schema.migrate(conn, apart)
    events, (heard,) = tell(conn, 5), tell(conn, tipo=PruebaEvents.otra)
    dead = "select count(*) = 1 from cauce.entregas where estado = 'error' and grupo = 'aparte'"
    work(apart, quick(database), lambda: value(conn, dead) and settled(conn))
    assert calls == {heard: 3}
    assert effects(conn) == [*events, heard]
    assert states(conn) == {"procesado": 6}


def test_what_a_group_does_not_listen_to_is_nothing_to_it_after_a_crash_either(conn: Conn, database: str) -> None:
    """A worker of a side group died with events in hand that the group passes over: they leave no dead deliveries."""
    apart = bus(subscribers=[Subscriber("s", PruebaEvents.otra.handled_by(quiet), grupo="aparte")])
    schema.migrate(conn, apart)
    tell(conn, 3)
    claim(conn, grupo="aparte", lease=-1)
    over = "select not exists (select from cauce.lotes) and not exists (select from cauce.entregas)"
    died = "select count(*) = 3 from cauce.fallos"
    work(apart, quick(database), lambda: value(conn, died) and value(conn, over), groups=["aparte"])
    assert states(conn) == {"pendiente": 3}


def test_a_worker_of_one_group_leaves_the_others_alone(conn: Conn, database: str) -> None:
    """`--grupo`."""
    apart = bus(subscribers=[Subscriber("s", PruebaEvents.una.handled_by(quiet), grupo="aparte")])
    schema.migrate(conn, apart)
    tell(conn, 3)
    read = "select sum(pendientes) = 0 from cauce.retraso('aparte', 10)"
    work(apart, quick(database), lambda: value(conn, read), groups=["aparte"])
    assert states(conn) == {"pendiente": 3}


def test_stopping_gives_back_what_has_not_begun_and_spends_no_attempt(conn: Conn, database: str) -> None:
    """What runs may finish within the grace period; the rest goes back, and is done by the next worker at attempt 1."""
    make_effects(conn)
    release = threading.Event()
    began: list[int] = []

    def handler(evento: Evento[Cosa]) -> None:
        began.append(evento.id)
        release.wait(30)

    events = tell(conn, 10)

    async def scene() -> None:
        settings = quick(database, slots=1, concurrency=2, grace_seconds=20)
        worker = Worker(bus(handler), settings)
        running = asyncio.create_task(worker.run())
        await until_async(lambda: len(began) == 2)
        worker.stop()
        release.set()
        await running

    asyncio.run(scene())
    assert len(began) == 2
    assert sorted(column(conn, "select id from cauce.eventos where estado = 'procesado'")) == sorted(began)
    assert value(conn, "select count(*) from cauce.lotes") == 0
    seen: list[int] = []

    async def next_handler(evento: Evento[Cosa]) -> None:
        seen.append(evento.intentos)

    work(bus(next_handler), quick(database), lambda: settled(conn))
    assert seen == [1] * 8
    assert states(conn) == {"procesado": len(events)}


@pytest.mark.parametrize("inside", [False, True], ids=["plain", "tx"])
def test_when_the_grace_is_over_what_still_runs_is_given_back(conn: Conn, database: str, *, inside: bool) -> None:
    """A handler that does not end is stopped; its delivery goes back without an attempt, its effects undone."""
    make_effects(conn)
    began: list[int] = []

    async def plain(evento: Evento[Cosa]) -> None:
        began.append(evento.id)
        await asyncio.Event().wait()

    async def transactional(evento: Evento[Cosa], tx: psycopg.AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        began.append(evento.id)
        await asyncio.Event().wait()

    tell(conn, 3)

    async def scene() -> None:
        worker = Worker(bus(transactional if inside else plain), quick(database, grace_seconds=0.1))
        running = asyncio.create_task(worker.run())
        await until_async(lambda: began)
        worker.stop()
        await running

    asyncio.run(scene())
    assert value(conn, "select count(*) from cauce.lotes") == 0
    assert effects(conn) == []
    assert value(conn, "select count(*) from cauce.fallos") == 0
    work(bus(effect), quick(database), lambda: settled(conn))
    assert column(conn, "select distinct intentos from cauce.eventos") == [1]
    assert len(effects(conn)) == 3


RETRIES_ARE_DUE = "select coalesce(bool_and(proximo_en <= clock_timestamp()), true) from cauce.entregas"


def test_the_cron_does_the_same_work(conn: Conn, database: str) -> None:
    """`procesar_lote`: expired leases, due retries, new events, every group; and it counts."""
    make_effects(conn)

    async def once(evento: Evento[Cosa], tx: psycopg.AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        if evento.intentos == 1:
            raise ValueError("once")

    events = tell(conn, 3) + tell(conn, 4, PruebaEvents.otra)
    settings = quick(database, backoff_base_seconds=0.0)
    first = asyncio.run(procesar_lote(bus(once, other=effect), settings))
    wait_for(lambda: value(conn, RETRIES_ARE_DUE), "the retries are due: none is before a moment has passed")
    second = asyncio.run(procesar_lote(bus(once, other=effect), settings))
    assert first["procesados"] + second["procesados"] == 7
    assert (first["reintentos"], second["reintentos"]) == (3, 0)
    assert [call[name] for call in (first, second) for name in ("errores", "pendientes")] == [0, 0, 0, 0]
    assert effects(conn) == events
    limited = tell(conn, 5)
    some = asyncio.run(procesar_lote(bus(effect), quick(database), limite=2))
    assert (some["procesados"], some["pendientes"]) == (2, 3)
    assert len(limited) == 5
    assert value(conn, "select count(*) from cauce.trabajadores") == 0


def test_sixteen_publishers_while_workers_listen(conn: Conn, database: str) -> None:
    """Everything that sixteen connections publish at once is processed once, by workers that slept before."""
    calls: Counter[int] = Counter()

    async def handler(evento: Evento[Cosa]) -> None:
        calls[evento.id] += 1

    def publisher() -> None:
        with psycopg.connect(database, autocommit=True) as mine:
            for _ in range(25):
                tell(mine)

    async def scene() -> None:
        asleep = "select count(*) > 0 from pg_locks where locktype = 'advisory' and classid = 1128355139 and granted"
        await until_async(lambda: value(conn, asleep))
        await asyncio.gather(*(asyncio.to_thread(publisher) for _ in range(16)))
        await until_async(lambda: len(calls) == 400 and settled(conn))

    asyncio.run(working(bus(handler), quick(database), scene, workers=2))
    assert set(calls.values()) == {1}
    assert states(conn) == {"procesado": 400}
