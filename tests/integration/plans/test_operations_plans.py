"""EXPLAIN guards for what people ask of a running bus: the same is read, however much has happened (`LARGE`).

Two databases: one with a million events that wait; one with a year behind it, where they are nearly all done and much
has failed. Each as PostgreSQL knows it, and as it does when nobody has ever analyzed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from typing import Final, NamedTuple

import psycopg
import pytest

from cauce import sql
from cauce.database import inbox, operations, quarantine, retained
from cauce.database.operations import COUNT_CAP, FAILURES_SHOWN, REACH
from cauce.errors import NotFound
from cauce.testing import Server
from tests.integration.engine.kit import Claimed, Conn, claim, outcome, settle, value
from tests.integration.plans.conftest import fresh
from tests.integration.plans.explained import Listener, Ran, know

LANES: Final = 10
GROUPS: Final = 3
SUBSCRIBERS: Final = 2
"""Of a group, at most."""
FAILURES: Final = 500
"""Failed attempts of the event that failed most."""
ROWS: Final = 1_000
"""Deliveries in each of the quarantine's forty buckets, ten origins with four reasons."""
BATCH: Final = 500
HELD: Final = 20
"""Batches that workers hold, of a thousand retries each."""
KEPT: Final = 40 * ROWS
CATALOGS: Final = 2_000
"""Pages of the system's catalogs that a new connection reads, at most."""
FAILED, DEAD, LEASED, EXPLAINED, WAITING, IGNORED = 200_000, 300_000, 600_000, 700_000, 900_000, 950_000
"""Events to which that has happened; much has happened to older and to newer ones."""

DONE: Final = """
    insert into cauce.eventos (origen, tipo, payload, carril, prioridad, estado, procesado_en, intentos)
    select 'prueba', 'prueba.hecha', '{"n": 1}', 5, 5, 'procesado', now(), 1 from generate_series(1, 1000000)"""
YEAR: Final = """
    insert into cauce.catalogo (origen, tipo, prioridad) values ('prueba', 'prueba.hecha', 5);
    insert into cauce.suscripciones values
        ('principal', 'manejador', 'prueba', 'prueba.hecha'), ('principal', 'avisos', 'prueba', 'prueba.hecha'),
        ('paneles', 'panel', 'prueba', 'prueba.hecha'), ('cartas', 'carta', 'prueba', 'prueba.hecha');
    delete from cauce.eventos where id <= 150000;  -- taken by retention
    select cauce.crear_grupo('paneles'), cauce.crear_grupo('cartas');
    delete from cauce.posiciones where grupo = 'principal';
    insert into cauce.posiciones
        select 'principal', carril, n, desde, hasta, orden, id from cauce.posiciones where grupo = 'cartas';
    insert into cauce.lotes (id, grupo, ids, reintentos, suscriptores, trabajador, arriendo_hasta)
        select nextval('cauce.lotes_id'), 'principal', array[600000 - n],
               array(select * from generate_series(480001 + n * 1000, 481000 + n * 1000)),
               array(select 'avisos' from generate_series(1, 1000)), 'w', now()
          from generate_series(0, 19) n;

    -- in the order in which nothing is found before all else was looked through
    insert into cauce.entregas (evento, grupo, suscriptor, prioridad, intentos, proximo_en)
        select n, g, s, 5, 1, now()
          from generate_series(400001, 450000) n, (values ('principal', 'manejador'), ('paneles', 'panel')) v(g, s);
    insert into cauce.entregas (evento, grupo, suscriptor, prioridad, intentos, proximo_en)
        select n, 'principal', 'avisos', 5, 1, now() from generate_series(480001, 500000) n;
    insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en)
        select n, 'principal', s, 5, 'error', 12, now()
          from generate_series(200000, 260000) n, unnest(array['manejador', 'avisos']) s;
    insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en)
        select n, 'cartas', 'carta', 5, 'error', 12, now() from generate_series(300000, 300001) n;
    update cauce.eventos set estado = 'error', procesado_en = null where id between 200000 and 260000;

    insert into cauce.fallos (evento, grupo, suscriptor, intento, error, trabajador)
        select 200000, 'principal', s, n, 'no', 'w'
          from generate_series(1, 250) n, unnest(array['manejador', 'avisos']) s;
    insert into cauce.fallos (evento, grupo, suscriptor, intento, error, trabajador)
        select n, 'principal', 'manejador', i, 'no', 'w'
          from generate_series(200001, 260000) n, generate_series(1, 2) i;
    update cauce.eventos set ignorado = true where id between 950000 and 951000;  -- the newer half was given up
    insert into cauce.fallos (evento, grupo, suscriptor, intento, error, descartada)
        select n, 'principal', 'manejador', 1, 'dismissed by hand', true from generate_series(950501, 951000) n;

    -- done at last, after failures whose causes are known; and where other applications and groups have got to
    insert into cauce.fallos (evento, grupo, suscriptor, intento, error, huella, trabajador)
        select 700000 + n, 'principal', 'manejador', 1, 'no', n, 'w' from generate_series(1, 20000) n;
    insert into cauce.causas (huella, tipo, mensaje, traza) select n, 'E', 'no', '...' from generate_series(1, 20000) n;
    insert into cauce.marcas (grupo, aplicacion, sospechosas, prioridad, n, proximo_en, evento, suscriptor)
        select 'g' || n, '', s, p, 1, now(), 1, 'x'
          from generate_series(1, 1000) n, generate_series(0, 9) p, unnest('{false,true}'::boolean[]) s;

    insert into cauce.rechazados (origen, razon, detalle, url, cabeceras, tamano)
        select 'o' || n % 10, 'r' || n / 10 % 4, 'no', 'https://example.com/' || repeat('x', 300), '[]', 300000
          from generate_series(1, 40000) n;
"""
QUERIES: Final = sorted(
    {file.name.removesuffix(".sql") for file in (files("cauce.sql") / "queries").iterdir()}
    - {"testing", "look", "settle_begin"}
)
"""Those for tests of applications read what there is, and `look` and `settle_begin` are settings."""


@pytest.fixture(scope="session")
def year(cauce_server: Server) -> Iterator[str]:
    """The address of a database with a year behind it."""
    for dsn in fresh(cauce_server):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(DONE)
            conn.execute(YEAR)
            conn.execute("vacuum cauce.eventos")  # retention has left empty pages, and nothing dead in the indexes
        yield dsn


class Look(NamedTuple):
    """What somebody asks of a bus, and how many rows of large tables that may read, however many there are."""

    ask: Callable[[Conn], object]
    rows: int
    others: int = CATALOGS
    """Pages that it touches at most beside four a row."""


def events(**asked: str | int) -> Look:
    """List events that match; it goes through `REACH` of them, and again to see whether there are more."""
    return Look(partial(operations.events, **asked), 2 * REACH + 1)  # type: ignore[arg-type]  # keywords of several types


def in_vain(ask: Callable[[Conn], object]) -> Callable[[Conn], object]:
    """Ask for what is not there."""

    def asking(conn: Conn) -> None:
        with pytest.raises(NotFound):
            ask(conn)

    return asking


def undone(ask: Callable[[Conn], object], rows: int = 20, others: int = CATALOGS) -> Look:
    """Do something, by default to one event or a few, and undo it."""

    def doing(conn: Conn) -> None:
        with conn.transaction(force_rollback=True):
            ask(conn)

    return Look(doing, rows, others)


LOOKS: Final = {
    # what waits, by group and once more; four kinds of deliveries, and their events; others beside all these; two kinds
    # by group, twice; what was refused
    "status": Look(operations.status, (GROUPS + 1 + 4 + 4 + 6 + 4 * GROUPS + 1) * COUNT_CAP),
    "events": Look(operations.events, 21),
    "events from an id on": Look(partial(operations.events, before=DEAD), 21),
    "events of a state": events(estado="error"),
    "events of an origin": events(origen="otro"),
    "events of a type": events(tipo="otra"),
    "events of a key": events(clave="7"),
    "ignored events": events(ignorado=True),
    "ignored events of a type": events(ignorado=True, tipo="otra"),
    "events of everything": events(origen="prueba", tipo="prueba.hecha", estado="error", clave="7", before=DEAD),
    "the dead": Look(operations.dead, 21 * (GROUPS * SUBSCRIBERS + 1)),
    "the dead from an id on": Look(partial(operations.dead, before=DEAD), 21 * (GROUPS * SUBSCRIBERS + 1)),
    "the dead of a group": Look(partial(operations.dead, grupo="cartas"), 21 * (SUBSCRIBERS + 1)),
    "the dead of a group without": Look(partial(operations.dead, grupo="paneles"), 0),
    "many dead": Look(partial(operations.dead, limit=10_000), 10_001 * (GROUPS * SUBSCRIBERS + 1)),
    # the journey reads the failures of the event once for all, and once for each of its subscribers
    "an event": Look(partial(operations.show, evento=WAITING), 10),
    "an event that a worker holds": Look(partial(operations.show, evento=LEASED), 10),
    "an event that failed": Look(partial(operations.show, evento=FAILED), FAILURES_SHOWN + 5 * FAILURES + 20),
    "no event": Look(in_vain(partial(operations.show, evento=5_000_000)), 0),
    "retry": undone(partial(operations.retry, evento=DEAD)),
    "retry one": undone(partial(operations.retry, evento=FAILED, grupo="principal", suscriptor="avisos")),
    "retry an ignored one": undone(partial(operations.retry, evento=IGNORED)),
    "retry nothing": undone(partial(operations.retry, evento=WAITING)),
    "retry many": undone(lambda conn: list(operations.retry_many(conn, [DEAD, FAILED, 5_000_000]))),
    "dismiss many": undone(lambda conn: list(operations.dismiss_many(conn, [DEAD, FAILED, 5_000_000]))),
    "dismiss": undone(partial(operations.dismiss, evento=DEAD)),
    "dismiss one": undone(partial(operations.dismiss, evento=FAILED, grupo="principal", suscriptor="avisos")),
    "dismiss all of a subscriber": undone(
        lambda conn: conn.execute(
            sql.query("dismiss_subscriber"), {"suscriptor": "nadie", "grupo": None, "desde": LEASED, "maximo": 10}
        )
    ),
    "begin to settle": undone(
        lambda conn: conn.execute(sql.query("settle_begin"), {"asiento": "0", "causa": "?", "correlacion": ""})
    ),
    "a family": Look(partial(operations.why, evento=WAITING), 20),
    "the events of a family": Look(partial(operations.family, evento=WAITING), 21),
    "settle with effects": undone(
        lambda conn: conn.execute(
            sql.query("settle_effects"),
            {"lote": 0, "ficha": 0, "ids": [], "entregas": None, "asiento": "0", "ultimo_hijo": ""},
        )
    ),
    "settle what is held": undone(
        lambda conn: conn.execute(sql.query("settle_held"), {"lote": 0, "ficha": 0, "entregas": None})
    ),
    "the subscriptions": undone(lambda conn: conn.execute(sql.query("subscriptions"), {"grupo": "principal"})),
    "an event's content": undone(lambda conn: conn.execute(sql.query("event_content"), {"id": WAITING})),
    "a worker leaves": undone(lambda conn: conn.execute(sql.query("worker_leave"), {"trabajador": "w"})),
    "rescue when nothing has expired": undone(
        lambda conn: (
            conn.execute("update cauce.lotes set arriendo_hasta = now() + interval '1 hour'"),
            conn.execute(sql.query("rescue"), {"limite_caidas": 3}),
        )
    ),
    "the lag of groups": Look(
        lambda conn: conn.execute(sql.query("groups_lag"), {"grupos": ["principal"], "tope": 10}), LANES * 10
    ),
    "receive": undone(
        lambda conn: psycopg.RawCursor(conn).execute(
            inbox.insert_of(1), ("prueba", "prueba.hecha", "a", "{}", None, "{}", None)
        )
    ),
    "what was received": undone(lambda conn: psycopg.RawCursor(conn).execute(inbox.select_of(1), ("prueba", "a"))),
    "the ends of what is stored": Look(retained.ends, 2),
    "a page of what is stored": undone(
        lambda conn: conn.execute(
            sql.query("retained"),
            {"despues": 0, "limite": retained.PAGE, "origen": None, "tipo": None, "desde": None},
        ),
        retained.PAGE,
    ),
    "health": Look(lambda conn: conn.execute(sql.query("health")), 0),
    "a destination": undone(lambda conn: conn.execute(sql.query("destination"), {"destino": "d"})),
    "publish": undone(lambda conn: operations.publish(conn, "prueba", "prueba.hecha", "{}", id_externo="a")),
    "the quarantine": Look(quarantine.page, 21),
    "the quarantine of an origin": Look(partial(quarantine.page, origen="o1"), KEPT),
    "the quarantine of a reason": Look(partial(quarantine.page, razon="r1", before=1000), KEPT),
    "the quarantine of both": Look(partial(quarantine.page, origen="o1", razon="r1"), 21),
    "a refused delivery": Look(partial(quarantine.find, number=7), 1),
    "refused deliveries": Look(partial(quarantine.select, numbers=[7, 8]), 2),
    "refused deliveries of an origin": Look(partial(quarantine.select, origen="o1"), 4 * ROWS),
    "forget refused deliveries": undone(partial(quarantine.dismiss, numbers=[7, 8])),
}


def claim_retries(conn: Conn, grupo: str = "principal", *, lease: float = 30) -> Claimed:
    """Claim as many retries as a batch may hold, half of it; what others hold does not expire meanwhile."""
    conn.execute("update cauce.lotes set arriendo_hasta = now() + interval '1 hour'")
    batch = claim(conn, BATCH, grupo=grupo, lease=lease)
    assert len(batch.rows) == BATCH // 2
    return batch


def fail(conn: Conn, grupo: str) -> None:
    """Claim retries, settle them as failures that bring their causes, and claim the next."""
    batch = claim_retries(conn, grupo)
    settle(
        conn,
        batch,
        [
            outcome(r.id, r.suscriptor or "", "reintentar", r.intento, huella=10**6 + n, traza="...", espera=60)
            for n, r in enumerate(batch.rows)
        ],
    )
    claim_retries(conn, grupo)


def look_again(conn: Conn) -> None:
    """Claim and give back retries, so that they lie before the mark, and look for them."""
    batch = claim_retries(conn)
    conn.execute("delete from cauce.lotes where id = %s", (batch.lote,))
    assert value(conn, "select cauce.repasar_reintentos('principal')") == len(batch.rows)


def look_after_the_clock_was_set_back(conn: Conn) -> None:
    """Put what is in hand out of the way of the claims that begin again."""
    claim_retries(conn)
    conn.execute("update cauce.marcas set proximo_en = now() + interval '1 hour' where grupo = 'principal'")
    conn.execute("select cauce.repasar_reintentos('principal')")


def purge(conn: Conn) -> None:
    """Delete a batch of events, and with them their failures and the causes of these."""
    conn.execute("update cauce.poda set hasta = %s", (EXPLAINED,))
    assert value(conn, "select borrados from cauce.purgar('0', %s)", BATCH) == BATCH
    assert value(conn, "select min(huella) from cauce.causas") == BATCH + 1


RETRIES: Final = {
    # a retry is looked for, locked, read for the worker, and so is its event
    "claim retries": undone(claim_retries, 4 * BATCH // 2, 4 * CATALOGS),
    "claim where nothing is due": undone(partial(claim, grupo="cartas"), others=2 * CATALOGS),
    # ... and locked, changed; its event too, whose state is told by all its deliveries; its cause is looked up
    "settle failures": undone(partial(fail, grupo="principal"), 20 * BATCH // 2),
    "settle failures of another group": undone(partial(fail, grupo="paneles"), 20 * BATCH // 2),
    "look for retries that were passed by": undone(look_again, 8 * BATCH // 2, 2 * CATALOGS),
    "look after the clock was set back": undone(
        look_after_the_clock_was_set_back,
        12 * 1_000 * (HELD + 1),  # PostgreSQL 15 reads ten times what 18 does
        15 * 1_000 * (HELD + 1),
    ),
    "rescue": undone(
        lambda conn: (
            claim_retries(conn, lease=-1),
            conn.execute("update cauce.lotes set arriendo_hasta = 'infinity' where arriendo_hasta > now()"),
            conn.execute(sql.query("rescue"), {"limite_caidas": 3}),
        ),
        20 * BATCH // 2,
    ),
    "purge": undone(purge, 8 * BATCH, 12 * BATCH),
}
"""What workers and retention do to the deliveries, marks and causes of a bus with a year behind it."""


def hear(dsn: str, look: Look) -> list[Ran]:
    """Ask, in a connection that has asked nothing yet."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        listener = Listener(conn, measure=True)
        look.ask(conn)
        return listener.ran


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed"])
@pytest.mark.parametrize("scene", ["million", "year"])
def test_a_look_reads_no_more_where_much_has_happened(
    scene: str, request: pytest.FixtureRequest, *, analyzed: bool
) -> None:
    """Each reads large tables by an index, no more rows than its limits say, and no pages for nothing."""
    dsn = str(request.getfixturevalue(scene))
    know(dsn, analyzed=analyzed)
    wrong: list[str] = []
    for name, look in (LOOKS | (RETRIES if scene == "year" else {})).items():
        if scene == "million" and "refused" in name:
            continue  # nothing was
        ran = hear(dsn, look)
        rows, pages = sum(one.rows for one in ran), max(one.pages for one in ran)
        wrong += [f"{name}: {fault}: {one.text[:300]}" for one in ran for fault in one.faults + one.scans]
        wrong += [f"{name}: {rows} rows, of {look.rows} that it may read"] * (rows > look.rows)
        wrong += [f"{name}: {pages} pages for {rows} rows"] * (pages > 4 * rows + look.others)
    assert not wrong, "\n".join(wrong)


AVISOS: Final = {"suscriptor": "avisos", "grupo": None, "desde": FAILED - 1, "maximo": 10}


@pytest.mark.parametrize(
    "look",
    [
        LOOKS["retry many"],
        LOOKS["dismiss many"],
        undone(lambda conn: conn.execute(sql.query("dismiss_subscriber"), AVISOS)),
    ],
    ids=["retry", "dismiss", "dismiss all of a subscriber"],
)
def test_what_workers_hold_is_read_once_for_all_events(year: str, look: Look) -> None:
    """A statement that retries five hundred events does not scan all leases five hundred times."""
    nodes = [node for ran in hear(year, look) for node in ran.nodes if node.get("Relation Name") == "lotes"]
    assert sum(node["Actual Loops"] for node in nodes) == 1


def test_every_query_is_guarded(year: str) -> None:
    """Each file of queries is asked by one of the looks above."""
    heard = [ran.text for look in LOOKS.values() for ran in hear(year, look)]
    asked = {
        name: re.split(r"%\(|/\*", sql.query(name).decode())[0] for name in QUERIES
    }  # as far as the first parameter
    assert [name for name, text in asked.items() if not any(one.startswith(text) for one in heard)] == []
