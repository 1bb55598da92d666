"""Several applications on one bus: each runs what it owns, and loses nothing to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cauce import Bus, Catalog, CatalogError, EventHandlers, Evento, EventType, Subscriber, publicar_evento
from cauce.database import schema
from cauce.engine.cron import procesar_lote
from cauce.engine.worker import Worker
from tests.integration.engine.kit import (
    PATIENCE,
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
)
from tests.integration.engine.scenery import Cosa, PruebaEvents, quiet, settled, tell


class CorreoEvents(Catalog, origen="correo"):
    """The events of another service."""

    enviado = EventType("enviado", Cosa)


class Note:
    """A handler that notes the events it gets."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def __call__(self, evento: Evento[Cosa]) -> None:
        """Note it."""
        self.calls.append(evento.id)


def owner(handler: Callable[..., Any] = quiet, *, application: str = "tienda", **more: Any) -> Bus:
    """Make the bus of the application whose events `prueba` are."""
    handlers = EventHandlers(PruebaEvents.una.handled_by(handler), PruebaEvents.otra.handled_by(handler))
    return Bus(catalogs=[PruebaEvents], event_handlers=handlers, application=application, **more)


def mailer(handler: Callable[..., Any], grupo: str = "principal") -> Bus:
    """Make the bus of an application with events of its own, which subscribes to `una` of the other."""
    return Bus(
        catalogs=[CorreoEvents],
        event_handlers=EventHandlers(CorreoEvents.enviado.handled_by(quiet)),
        imports=[PruebaEvents],
        subscribers=[Subscriber("correo", PruebaEvents.una.handled_by(handler), grupo=grupo)],
        application="correo",
    )


def work_together(database: str, fact: Callable[[], object], *buses: Bus) -> None:
    """Run a worker of each bus until a condition holds."""

    async def scene() -> None:
        workers = [Worker(each, quick(database)) for each in buses]
        running = asyncio.gather(*(worker.run() for worker in workers))
        await until_async(lambda: running.done() or fact())
        for worker in workers:
            worker.stop()
        await running

    asyncio.run(scene())


def test_a_service_that_only_listens_takes_nothing_from_the_owner(conn: Conn, database: str) -> None:
    """Its worker has its own group and does not join `principal`: the owner's handler gets every event."""
    handled, heard = Note(), Note()
    listener = Bus(
        imports=[PruebaEvents],
        subscribers=[Subscriber("oyente", PruebaEvents.una.handled_by(heard), grupo="oyente")],
        application="oyente",
    )
    for each in (owner(handled), listener):
        schema.migrate(conn, each)
    events = tell(conn, 200)
    work_together(database, lambda: len(heard.calls) == len(handled.calls) == 200, owner(handled), listener)
    assert sorted(handled.calls) == sorted(heard.calls) == events
    tell(conn, 3)
    work(listener, quick(database), lambda: len(heard.calls) == 203)
    assert states(conn) == {"procesado": 200, "pendiente": 3}


def test_importing_a_catalog_leaves_the_owner_s_rows_alone(conn: Conn) -> None:
    """The importing program may have an older copy of the catalog: priority and key are the owner's to say."""

    class Copia(Catalog, origen="prueba", prioridad=9):
        una = EventType("una", Cosa)

    schema.migrate(conn, owner())
    before = conn.execute("select * from cauce.catalogo order by 1, 2").fetchall()
    schema.migrate(conn, Bus(imports=[Copia], application="otra"))
    assert conn.execute("select * from cauce.catalogo order by 1, 2").fetchall() == before
    with conn.transaction():
        evento = publicar_evento(conn, Copia.una, Cosa(n=1))
    assert value(conn, "select tipo from cauce.eventos where id = %s", evento) == "una"


def test_two_services_in_principal_both_get_every_event(conn: Conn, database: str) -> None:
    """Whichever claims an event leaves the other's part to it; it is `procesado` when all are done."""
    handled, heard = Note(), Note()
    shop, mail = owner(handled), mailer(heard)
    for each in (shop, mail):
        schema.migrate(conn, each)
    events = tell(conn, 100)
    work_together(database, lambda: settled(conn), shop, mail)
    assert sorted(handled.calls) == sorted(heard.calls) == events
    assert states(conn) == {"procesado": 100}
    assert value(conn, "select count(*) from cauce.fallos") == 0


@pytest.mark.parametrize("first", ["tienda", "correo"])
def test_what_another_application_owns_is_due_to_it_at_once_and_to_nobody_else(
    conn: Conn, database: str, first: str
) -> None:
    """No attempt is spent, nothing waits, and the one that gave it back is not offered it again."""
    handled, heard = Note(), Note()
    buses = {"tienda": owner(handled), "correo": mailer(heard)}
    for each in buses.values():
        schema.migrate(conn, each)
    (evento,) = tell(conn)
    second = "correo" if first == "tienda" else "tienda"
    work(
        buses[first],
        quick(database),
        lambda: value(conn, "select count(*) from cauce.entregas where not exists (select from cauce.lotes)"),
    )
    assert len(handled.calls) + len(heard.calls) == 1
    left = "select aplicacion, intentos, estado::text, proximo_en <= clock_timestamp() from cauce.entregas"
    assert conn.execute(left).fetchall() == [(second, 0, "pendiente", True)]
    assert states(conn) == {"en_proceso": 1}
    assert not any(claim(conn, aplicacion=first) for _ in range(5))
    work(buses[second], quick(database), lambda: settled(conn))
    assert (handled.calls, heard.calls) == ([evento], [evento])
    assert conn.execute("select estado::text, intentos from cauce.eventos").fetchone() == ("procesado", 1)


def test_a_deploy_of_one_application_leaves_the_other_s_retries_alive(conn: Conn, database: str) -> None:
    """Neither its subscriptions nor its pending retries, though the deploying one's worker runs meanwhile."""
    heard = Note()
    shop, mail = owner(), mailer(heard)
    for each in (shop, mail):
        schema.migrate(conn, each)
    events = tell(conn, 20)
    report = [outcome(evento, "correo", "reintentar", espera=0) for evento in events]
    settle(conn, claim(conn, aplicacion="correo"), report)
    schema.migrate(conn, shop)
    more = tell(conn, 5, PruebaEvents.otra)
    work(shop, quick(database), lambda: states(conn) == {"procesado": len(more), "en_proceso": len(events)})
    assert column(conn, "select distinct estado::text from cauce.entregas") == ["pendiente"]
    work(mail, quick(database), lambda: settled(conn))
    assert sorted(heard.calls) == events
    assert states(conn) == {"procesado": 25}


def test_a_delivery_that_reached_the_wrong_application_goes_on_to_the_owner(conn: Conn, database: str) -> None:
    """Its subscriber has moved to another application since: the worker that claims it looks up the new owner."""
    heard = Note()
    shop, mail = owner(), mailer(heard)
    for each in (shop, mail):
        schema.migrate(conn, each)
    (evento,) = tell(conn)
    settle(conn, claim(conn, aplicacion="tienda"), [outcome(evento, "correo", "reintentar", espera=0)])
    moved = "select count(*) = 1 from cauce.entregas where aplicacion = 'correo' and intentos = 1"
    work(shop, quick(database), lambda: value(conn, moved))
    work(mail, quick(database), lambda: settled(conn))
    assert heard.calls == [evento]


def test_after_a_crash_an_event_is_handed_out_whole_to_every_application(conn: Conn, database: str) -> None:
    """The worker that died had it for all: the others' parts are theirs again."""
    handled, heard = Note(), Note()
    shop, mail = owner(handled), mailer(heard)
    for each in (shop, mail):
        schema.migrate(conn, each)
    (evento,) = tell(conn)
    claim(conn, aplicacion="correo", lease=-1)
    work_together(database, lambda: settled(conn), shop, mail)
    assert (handled.calls, heard.calls) == ([evento], [evento])
    assert states(conn) == {"procesado": 1}


def test_a_payload_that_one_application_cannot_read_is_still_the_other_s(conn: Conn, database: str) -> None:
    """Each reads it by its own type; what does not fit is dead there alone."""

    class Otra(Catalog, origen="prueba"):
        una = EventType("una", dict[str, str])

    heard: list[dict[str, str]] = []

    async def hear(evento: Evento[dict[str, str]]) -> None:
        heard.append(evento.payload)

    shop = owner()
    reader = Bus(imports=[Otra], subscribers=[Subscriber("lector", Otra.una.handled_by(hear))], application="lector")
    for each in (shop, reader):
        schema.migrate(conn, each)
    conn.execute("select cauce.publicar_evento('prueba', 'una', '{\"n\": \"x\"}')")
    work_together(database, lambda: heard and settled(conn), shop, reader)
    assert heard == [{"n": "x"}]
    assert conn.execute("select suscriptor, estado::text from cauce.entregas").fetchall() == [("manejador", "error")]


def test_an_event_that_has_listeners_but_no_handler_is_not_done(conn: Conn, database: str) -> None:
    """Its owner was never deployed: the handler's delivery is an error until it is, and then can be retried."""
    handled, heard = Note(), Note()
    mail = mailer(heard)
    schema.migrate(conn, mail)
    (evento,) = tell(conn)
    work(mail, quick(database), lambda: settled(conn))
    assert heard.calls == [evento]
    assert states(conn) == {"error": 1}
    assert "no handler for prueba/una" in value(conn, "select ultimo_error from cauce.eventos")
    schema.migrate(conn, owner(handled))
    conn.execute("select cauce.reintentar(%s)", (evento,))
    work_together(database, lambda: settled(conn), mail, owner(handled))
    assert (handled.calls, heard.calls) == ([evento], [evento])
    assert states(conn) == {"procesado": 1}


def test_two_applications_with_a_handler_of_one_event_are_refused(conn: Conn, database: str) -> None:
    """At migrate and at the start of a worker, naming both; nothing of the second is written."""
    schema.migrate(conn, owner())
    second = owner(application="copia")
    said = r"manejador of prueba/otra in group principal belongs to application 'tienda'; this one is 'copia'"
    with pytest.raises(CatalogError, match=said) as refused:
        schema.migrate(conn, second)
    assert len(refused.value.faults) == 2
    with pytest.raises(CatalogError, match=said):
        asyncio.run(Worker(second, quick(database)).run())
    assert column(conn, "select distinct aplicacion from cauce.suscripciones") == ["tienda"]
    assert value(conn, "select count(*) from cauce.trabajadores") == 0


def test_a_cron_that_was_never_deployed_steals_nothing(conn: Conn, database: str) -> None:
    """`procesar_lote` does not write the catalog: what another application owns it leaves to it all the same."""
    handled, stolen = Note(), Note()
    schema.migrate(conn, owner(handled))
    (evento,) = tell(conn)
    asyncio.run(procesar_lote(owner(stolen, application="copia"), quick(database)))
    work(owner(handled), quick(database), lambda: settled(conn))
    assert (handled.calls, stolen.calls) == ([evento], [])


def test_an_application_can_be_renamed_with_what_waits_for_it(conn: Conn, database: str) -> None:
    """`take_over` makes the new name the owner; retries that wait for the old one come along, and its workers stop."""
    handled = Note()
    schema.migrate(conn, owner(application=""))
    (evento,) = tell(conn)
    settle(conn, claim(conn), [outcome(evento, "manejador", "reintentar", espera=0)])
    renamed = owner(handled, application="tienda")
    with pytest.raises(CatalogError, match="belongs to application ''"):
        schema.migrate(conn, renamed)
    assert schema.save_catalog(conn, renamed, replace=True, take_over=True) == []
    work(renamed, quick(database), lambda: settled(conn))
    assert handled.calls == [evento]
    with pytest.raises(CatalogError, match="belongs to application 'tienda'"):
        asyncio.run(Worker(owner(application=""), quick(database)).run())


def test_an_application_that_is_gone_is_forgotten(conn: Conn, database: str) -> None:
    """Nothing waits for it any more; what it left ends in error, though it has no workers."""
    schema.migrate(conn, owner())
    schema.migrate(conn, mailer(quiet))
    (left,) = tell(conn)
    settle(conn, claim(conn, aplicacion="correo"), [outcome(left, "correo", "reintentar", espera=0)])
    gone = schema.forget_application(conn, "correo")
    assert [str(each) for each in gone] == [
        "correo of prueba/una in group principal",
        "manejador of correo/enviado in group principal",
    ]
    (evento,) = tell(conn)
    work(owner(), quick(database), lambda: settled(conn))
    assert dict(conn.execute("select id, estado::text from cauce.eventos").fetchall()) == {
        left: "error",
        evento: "procesado",
    }


def test_the_owner_is_woken_when_its_part_is_given_back(conn: Conn, connect: Callable[..., Conn]) -> None:
    """The doorbell rings if a worker sleeps: the delivery does not wait for somebody to look."""
    (evento,) = tell(conn)
    batch = claim(conn, aplicacion="a")
    sleeper = connect()
    sleeper.execute("listen cauce")
    sleeper.execute("select pg_advisory_lock_shared(1128355139, 0)")
    settle(conn, batch, [outcome(evento, "s", "devuelta", espera=0, aplicacion="b")])
    assert [note.channel for note in sleeper.notifies(timeout=PATIENCE, stop_after=1)] == ["cauce"]
