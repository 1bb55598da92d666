"""Operations: what people see of a bus and do to it, on a real database, without a worker in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel

from cauce import (
    Bus,
    Catalog,
    CauceError,
    Discard,
    EventHandlers,
    Evento,
    EventType,
    InvalidPayload,
    NotFound,
    SchemaError,
    Subscriber,
    UnknownEvent,
    publicar_evento,
)
from cauce.database import look, operations, quarantine, schema
from cauce.testing import Database, drain


class Cosa(BaseModel):
    """A payload; ``mal`` says what goes wrong with it, and for whom."""

    n: int
    mal: str = ""


class Cosas(Catalog, origen="prueba"):
    """The events of these tests."""

    buena = EventType("cosa.buena", Cosa, clave="n")
    urgente = EventType("cosa.urgente", Cosa, prioridad=0)


def handler(evento: Evento[Cosa]) -> None:
    """The dedicated handler."""
    if evento.payload.mal == "handler" and evento.intentos == 1:
        raise ValueError("the first time")


def correo(evento: Evento[Cosa]) -> None:
    """A subscriber that gives up."""
    if evento.payload.mal == "correo":
        raise Discard("no address")


def panel(evento: Evento[Cosa]) -> None:
    """A subscriber in a group of its own."""
    if evento.payload.mal == "panel":
        raise Discard("no panel")


HANDLERS = EventHandlers(Cosas.buena.handled_by(handler), Cosas.urgente.handled_by(handler))
BUS = Bus(catalogs=[Cosas], event_handlers=HANDLERS, subscribers=[Subscriber("correo", Cosas.buena.handled_by(correo))])
WIDER = Bus(
    catalogs=[Cosas],
    event_handlers=HANDLERS,
    subscribers=[
        Subscriber("correo", Cosas.buena.handled_by(correo)),
        Subscriber("panel", Cosas.buena.handled_by(panel), grupo="paneles"),
    ],
)


@pytest.fixture(scope="module")
def cauce_bus() -> Bus:
    """The application in the database."""
    return BUS


@pytest.fixture
def conn(cauce_db: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit."""
    with cauce_db.connect(autocommit=True) as conn:
        yield conn


def publish(conn: psycopg.Connection[Any], n: int = 1, mal: str = "", tipo: EventType[Cosa] = Cosas.buena) -> int:
    """Publish one event."""
    return publicar_evento(conn, tipo, Cosa(n=n, mal=mal), own_transaction=True)


def claim(conn: psycopg.Connection[Any], grupo: str = "principal") -> None:
    """Claim what is due, as a worker called ``otro`` would."""
    conn.execute("select from cauce.tomar(%s, 100, 'otro', interval '1 minute')", (grupo,))


def journey(conn: psycopg.Connection[Any], evento: int) -> dict[tuple[str, str], str]:
    """The state of an event, by group and subscriber."""
    return {(step.grupo, step.suscriptor): step.estado for step in operations.show(conn, evento).camino}


def test_status_of_a_new_bus(conn: psycopg.Connection[Any]) -> None:
    """Nothing waits, nothing is dead, no worker runs."""
    status = operations.status(conn)
    assert status.estados == operations.States(0, 0, 0, 0)
    assert (status.retraso, status.trabajadores, status.tope) == ([], [], 10_000)
    assert status.cuarentena == operations.Quarantined(0, None)
    assert status.grupos == [operations.GroupStatus("principal", 0, 0, 0, None, 0)]
    assert status.retiradas == []


def test_status_counts_lanes_leases_retries_and_the_dead(conn: psycopg.Connection[Any], cauce_db: Database) -> None:
    """What waits is told by lane, what is in hand by lease, and what is finished with is not read for it."""
    first = publish(conn, tipo=Cosas.urgente)
    publish(conn), publish(conn)
    status = operations.status(conn)
    assert [(lag.carril, lag.pendientes) for lag in status.retraso] == [(0, 1), (5, 2)]
    assert status.retraso[0].desde == operations.show(conn, first).evento.creado_en
    assert status.estados == operations.States(3, 0, 0, 0)

    claim(conn)
    (group,) = operations.status(conn).grupos
    assert (group.lotes, group.en_mano) == (1, 1), "the urgent one is claimed first, by itself"
    conn.execute("update cauce.lotes set arriendo_hasta = clock_timestamp() - interval '1 s'")
    publish(conn, mal="correo")
    drain(BUS, cauce_db.settings, check=False)
    status = operations.status(conn)
    assert (status.retraso, status.estados) == ([], operations.States(0, 0, 3, 1))
    assert [(group.en_mano, group.reintentos, group.muertas) for group in status.grupos] == [(0, 0, 1)]


def test_nothing_is_counted_beyond_the_cap(
    conn: psycopg.Connection[Any], cauce_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number stops at the cap, which the answer names, whatever state the events are in."""
    monkeypatch.setattr(operations, "COUNT_CAP", 3)
    for _ in range(5):
        publish(conn)
    status = operations.status(conn)
    assert (status.tope, status.estados, status.retraso[0].pendientes) == (3, operations.States(3, 0, None, 0), 3)
    drain(BUS, cauce_db.settings, check=False)
    assert operations.status(conn).estados == operations.States(0, 0, 3, 0)


def test_status_counts_what_waits_in_the_quarantine(
    conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused webhooks of every origin, as far as the cap, and when the newest came."""
    monkeypatch.setattr(operations, "COUNT_CAP", 3)
    for n, origen in enumerate(("stripe", "github", "stripe", "github"), start=1):
        conn.execute(
            "insert into cauce.rechazados (origen, razon, detalle, url, cabeceras, tamano)"
            " values (%s, 'stale', '', '', '[]', 0)",
            (origen,),
        )
        (newest,) = conn.execute("select max(recibido_en) from cauce.rechazados").fetchone() or (None,)
        assert operations.status(conn).cuarentena == operations.Quarantined(min(n, 3), newest)


def test_status_tells_the_silent_worker_from_the_live_one(conn: psycopg.Connection[Any]) -> None:
    """A worker that has not spoken for half a minute is shown, as silent."""
    for name in ("vivo", "callado"):
        conn.execute("select cauce.presentar_trabajador(%s, '{principal}', 'host', 1)", (name,))
    conn.execute("update cauce.trabajadores set visto_en = visto_en - interval '31 s' where trabajador = 'callado'")
    assert {worker.trabajador: worker.vivo for worker in operations.status(conn).trabajadores} == {
        "vivo": True,
        "callado": False,
    }


def test_events_are_listed_newest_first_page_by_page(conn: psycopg.Connection[Any]) -> None:
    """A page says where the next begins, and the last one that there is none."""
    ids = [publish(conn, n) for n in range(5)]
    page = operations.events(conn, limit=2)
    assert ([evento.id for evento in page.eventos], page.siguiente) == ([ids[4], ids[3]], ids[3])
    page = operations.events(conn, limit=3, before=page.siguiente)
    assert ([evento.id for evento in page.eventos], page.siguiente) == ([ids[2], ids[1], ids[0]], None)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"estado": "pendiente"}, [1, 2]),
        ({"estado": "error"}, []),
        ({"origen": "prueba"}, [1, 2]),
        ({"origen": "otro"}, []),
        ({"tipo": "cosa.urgente"}, [2]),
        ({"clave": "1"}, [1]),
        ({"clave": "1", "tipo": "cosa.urgente"}, []),
    ],
)
def test_events_can_be_asked_for(conn: psycopg.Connection[Any], asked: dict[str, str], expected: list[int]) -> None:
    """Each filter leaves only what matches it, and together they all count."""
    publish(conn, 1)
    publish(conn, 2, tipo=Cosas.urgente)
    found = operations.events(
        conn, estado=asked.get("estado"), origen=asked.get("origen"), tipo=asked.get("tipo"), clave=asked.get("clave")
    )
    assert sorted(evento.id for evento in found.eventos) == expected


def test_ignored_events_are_those_that_nobody_handled(conn: psycopg.Connection[Any]) -> None:
    """Not those that a person gave up, though they are `ignorado` too; a column says so, and no error's words."""
    conn.execute(
        "insert into cauce.eventos (origen, tipo, payload)"
        " select 'prueba', 'cosa.' || n, '{}' from generate_series(1, 4) n"
    )
    conn.execute(
        "select cauce.terminar(t.lote, t.ficha, null)"
        " from (select distinct lote, ficha from cauce.tomar('principal', 9, 'otro', interval '1 minute')) t"
    )
    conn.execute(
        "update cauce.eventos set ignorado = true where id > 1;"
        "insert into cauce.fallos (evento, grupo, suscriptor, intento, error, descartada) values"
        " (2, 'principal', 'correo', 1, 'no more', true), (3, 'principal', '*', 1, 'dismissed by hand', false),"
        " (4, 'paneles', 'panel', 1, 'no more', true)"
    )
    assert [evento.id for evento in operations.events(conn, ignorado=True).eventos] == [4, 3]
    assert [evento.id for evento in operations.events(conn, ignorado=True, tipo="cosa.3").eventos] == [3]
    journeys = [journey(conn, evento) for evento in range(1, 5)]
    assert [steps["principal", "*"] for steps in journeys] == ["procesado", "procesado", "ignorado", "ignorado"]
    assert journeys[1]["principal", "correo"] == journeys[3]["paneles", "panel"] == "descartado"


def test_a_look_for_rare_events_has_an_end(conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through so many events and no more, and says where to go on."""
    monkeypatch.setattr(operations, "REACH", 3)
    rare, *others = [publish(conn, n, tipo=Cosas.buena if n else Cosas.urgente) for n in range(5)]
    page = operations.events(conn, tipo="cosa.urgente")
    assert (page.eventos, page.siguiente) == ([], others[1])
    page = operations.events(conn, tipo="cosa.urgente", before=page.siguiente)
    assert ([evento.id for evento in page.eventos], page.siguiente) == ([rare], None)


@pytest.mark.parametrize(
    "ask",
    [
        operations.status,
        operations.events,
        operations.dead,
        partial(operations.show, evento=1),
        quarantine.page,
        partial(quarantine.find, number=1),
        quarantine.select,
    ],
    ids=["status", "events", "dead", "show", "rejected", "one rejected", "some rejected"],
)
def test_a_look_ends_although_somebody_holds_a_lock(
    ask: Callable[[psycopg.Connection[Any]], object],
    conn: psycopg.Connection[Any],
    cauce_db: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After so many seconds it is stopped, and says for how long it went on and what to look at."""
    monkeypatch.setattr(look, "LOOK_SECONDS", 0.05)
    publish(conn)
    with cauce_db.connect() as other:
        other.execute("lock table cauce.eventos, cauce.rechazados")
        with pytest.raises(CauceError, match=r"longer than 0\.05 s and was stopped: .* pg_stat_activity"):
            ask(conn)
        other.rollback()
        assert conn.execute("show statement_timeout").fetchone() == ("0",), "only of the look"


def test_dead_deliveries_are_found_in_every_group(conn: psycopg.Connection[Any], cauce_db: Database) -> None:
    """An event may be processed in ``principal`` and dead elsewhere: `dead` finds it, by group if asked."""
    schema.migrate(conn, WIDER)
    ours, theirs = publish(conn, mal="correo"), publish(conn, mal="panel")
    publish(conn)
    drain(WIDER, cauce_db.settings, check=False)
    assert [(evento.id, evento.estado) for evento in operations.dead(conn).eventos] == [
        (theirs, "procesado"),
        (ours, "error"),
    ]
    assert [evento.id for evento in operations.dead(conn, grupo="paneles").eventos] == [theirs]
    assert operations.dead(conn, limit=1).siguiente == theirs
    assert [evento.id for evento in operations.dead(conn, before=theirs).eventos] == [ours]


def test_show_follows_an_event_from_subscriber_to_subscriber(conn: psycopg.Connection[Any], cauce_db: Database) -> None:
    """Waiting, in hand, done and dead are told apart, for each subscriber, with who holds it and why it failed."""
    evento = publish(conn, 7, mal="correo")
    handled, mailed = ("principal", "manejador"), ("principal", "correo")
    assert journey(conn, evento) == {handled: "pendiente", mailed: "pendiente"}
    claim(conn)
    detail = operations.show(conn, evento)
    assert {step.estado for step in detail.camino} == {"en_proceso"}
    assert {step.trabajador for step in detail.camino} == {"otro"}
    assert [(entrega.suscriptor, entrega.trabajador) for entrega in detail.entregas] == [("*", "otro")]

    conn.execute("update cauce.lotes set arriendo_hasta = clock_timestamp() - interval '1 s'")
    drain(BUS, cauce_db.settings, check=False)
    detail = operations.show(conn, evento)
    assert {(step.suscriptor, step.estado) for step in detail.camino} == {
        ("manejador", "procesado"),
        ("correo", "error"),
    }
    assert detail.evento.payload == {"n": 7, "mal": "correo"}
    assert detail.entregas[0].error == "Discard: no address"
    assert "no address" in str(detail.fallos[-1].traza)


def test_show_counts_the_failures_before_a_success(conn: psycopg.Connection[Any], cauce_db: Database) -> None:
    """A subscriber that made it in the end is done, and its failed attempts are counted."""
    evento = publish(conn, mal="handler")
    drain(BUS, cauce_db.settings, check=False)
    assert [(step.suscriptor, step.estado, step.fallos) for step in operations.show(conn, evento).camino] == [
        ("manejador", "procesado", 1),
        ("correo", "procesado", 0),
    ]


def test_show_tells_what_a_younger_group_never_had(conn: psycopg.Connection[Any]) -> None:
    """A group begins at the present: earlier events are not due to it."""
    evento = publish(conn)
    schema.migrate(conn, WIDER)
    assert journey(conn, evento)["paneles", "panel"] == "anterior"
    assert journey(conn, publish(conn))["paneles", "panel"] == "pendiente"


def test_retry_makes_the_dead_due_again(conn: psycopg.Connection[Any], cauce_db: Database) -> None:
    """Only what failed is retried, only as asked, and a second time there is nothing left to retry."""
    evento = publish(conn, mal="correo")
    drain(BUS, cauce_db.settings, check=False)
    assert operations.retry(conn, evento, suscriptor="manejador") == 0
    assert operations.retry(conn, evento, grupo="principal", suscriptor="correo") == 1
    assert operations.show(conn, evento).evento.estado == "en_proceso"
    claim(conn)
    assert operations.retry(conn, evento) == 0, "a worker holds it"


def test_dismiss_gives_up_and_says_so(conn: psycopg.Connection[Any], cauce_db: Database) -> None:
    """The event is `procesado` and `ignorado`; its failures are kept, with a row for the dismissal."""
    evento = publish(conn, mal="correo")
    drain(BUS, cauce_db.settings, check=False)
    assert operations.dismiss(conn, evento) == 1
    detail = operations.show(conn, evento)
    assert (detail.evento.estado, detail.evento.ignorado, detail.entregas) == ("procesado", True, [])
    assert journey(conn, evento)["principal", "correo"] == "descartado"
    assert [(failed.error, failed.descartada) for failed in detail.fallos] == [
        ("Discard: no address", False), ("dismissed by hand", True),
    ]  # fmt: skip
    assert operations.dismiss(conn, evento) == 0


def test_all_that_a_removed_subscriber_left_is_shown_and_given_up_at_once(
    conn: psycopg.Connection[Any], cauce_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some a transaction; what waits and what is dead, in any group or in one; what others have is left alone."""
    monkeypatch.setattr(operations, "DISMISS_BATCH", 2)
    schema.migrate(conn, WIDER)
    dead = [publish(conn, mal="correo") for _ in range(5)]
    other = publish(conn, mal="panel")
    drain(WIDER, cauce_db.settings, check=False)
    assert operations.status(conn).retiradas == []
    schema.migrate(conn, Bus(catalogs=[Cosas], event_handlers=HANDLERS))
    assert operations.retry(conn, dead[0]) == 1
    assert operations.status(conn).retiradas == [
        operations.Removed("principal", "correo", 1, 4),
        operations.Removed("paneles", "panel", 0, 1),
    ]
    assert operations.dismiss_subscriber(conn, "correo", grupo="paneles") == 0
    assert operations.dismiss_subscriber(conn, "correo") == 5
    assert operations.dismiss_subscriber(conn, "correo") == 0
    assert {operations.show(conn, evento).evento.estado for evento in dead} == {"procesado"}
    assert journey(conn, other)["paneles", "panel"] == "error"
    assert operations.status(conn).retiradas == [operations.Removed("paneles", "panel", 0, 1)]


def test_publish_by_name(conn: psycopg.Connection[Any]) -> None:
    """An event of the catalog gets its key and priority from there, and the stored id if its own is known."""
    evento = operations.publish(conn, "prueba", "cosa.buena", '{"n": 7}', id_externo="a")
    stored = operations.show(conn, evento).evento
    assert (stored.clave, stored.prioridad, stored.payload) == ("7", 5, {"n": 7})
    assert operations.publish(conn, "prueba", "cosa.buena", '{"n": 7}', id_externo="a") == evento


@pytest.mark.parametrize("payload", ['{"n": ', '{"n": "\\u0000"}'])
def test_publish_refuses_what_cannot_be_stored(conn: psycopg.Connection[Any], payload: str) -> None:
    """Text that is no JSON, or not such as PostgreSQL can store, is refused in the publisher's words."""
    with pytest.raises(InvalidPayload, match=r"prueba/cosa\.buena was not published"):
        operations.publish(conn, "prueba", "cosa.buena", payload)


def test_publish_refuses_what_nobody_would_handle(conn: psycopg.Connection[Any]) -> None:
    """A name that is in no catalog is a mistake, and so is the row that stands for a whole origin."""
    for tipo in ("cosa.mala", "*"):
        with pytest.raises(UnknownEvent, match="no catalog in this database has it"):
            operations.publish(conn, "stripe", tipo, "{}")


def test_an_event_that_is_not_there(conn: psycopg.Connection[Any]) -> None:
    """Looking at it, retrying and dismissing it say so."""
    for operation in (operations.show, operations.retry, operations.dismiss):
        with pytest.raises(NotFound, match="there is no event 99"):
            operation(conn, 99)


def test_a_database_without_tables(dsn: str) -> None:
    """Every operation raises an error that says what to run."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for operation in (
            lambda: operations.status(conn),
            lambda: operations.events(conn),
            lambda: operations.dead(conn),
            lambda: operations.show(conn, 1),
            lambda: operations.retry(conn, 1),
            lambda: operations.dismiss(conn, 1),
            lambda: operations.publish(conn, "a", "b", "{}"),
        ):
            with pytest.raises(SchemaError, match="run: cauce migrate"):
                operation()
