"""Versions of a payload in the engine: old events are upcast, new ones wait for the program that knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, NuevoEvento, publicar_evento, publicar_eventos
from cauce.database import operations, schema
from tests.integration.engine.kit import column, quick, value, work
from tests.integration.engine.scenery import settled

if TYPE_CHECKING:
    import pytest

    from tests.integration.engine.kit import Conn


class Uno(BaseModel):
    """The first version of a payload."""

    precio: int


class Dos(BaseModel):
    """The second."""

    importe: int


class OldEvents(Catalog, origen="tienda", prioridad=4):
    """What the old program declares."""

    fijado = EventType("precio.fijado", Uno)


class NewEvents(Catalog, origen="tienda"):
    """What the new one declares."""

    fijado = EventType("precio.fijado", Dos, version=2)


@NewEvents.fijado.upcast(1)
def rename(payload: dict[str, Any]) -> dict[str, Any]:
    """Bring it to the second version."""
    return {"importe": payload["precio"]}


def programs() -> tuple[Bus, Bus, list[int], list[int]]:
    """Make the old and the new program, and what each of them will have handled."""
    old: list[int] = []
    new: list[int] = []

    async def before(evento: Evento[Uno]) -> None:
        old.append(evento.payload.precio)

    async def after(evento: Evento[Dos]) -> None:
        new.append(evento.payload.importe)

    return (
        Bus(catalogs=[OldEvents], event_handlers=EventHandlers(OldEvents.fijado.handled_by(before))),
        Bus(catalogs=[NewEvents], event_handlers=EventHandlers(NewEvents.fijado.handled_by(after))),
        old,
        new,
    )


def test_events_of_every_version_and_publisher_reach_the_new_handler(conn: Conn, database: str) -> None:
    """Those without a version are of the first: of publishers in SQL, and of a bare INSERT."""
    _, newer, _, handled = programs()
    schema.migrate(conn, newer)
    with conn.transaction():
        publicar_evento(conn, OldEvents.fijado, Uno(precio=1))
        publicar_evento(conn, NewEvents.fijado, Dos(importe=2))
        publicar_evento(conn, NewEvents.fijado, Dos(importe=3), clave="k")
        publicar_eventos(conn, [NuevoEvento(NewEvents.fijado, Dos(importe=4))])
        publicar_eventos(conn, [NuevoEvento(NewEvents.fijado, Dos(importe=5), id_externo="e")])
    conn.execute(
        "insert into cauce.eventos (origen, tipo, payload) values ('tienda', 'precio.fijado', '{\"precio\": 6}')"
    )
    conn.execute(
        "select cauce.publicar_evento('tienda', 'precio.fijado', '{\"importe\": 7}', cabeceras => '{\"version\": 2}')"
    )
    operations.publish(conn, "tienda", "precio.fijado", '{"importe": 8}')
    operations.publish(conn, "tienda", "precio.fijado", '{"precio": 9}', version=1)
    work(newer, quick(database), lambda: settled(conn))
    assert sorted(handled) == [*range(1, 10)]
    versions = column(conn, "select (cabeceras -> 'version')::integer from cauce.eventos order by id")
    assert versions == [None, 2, 2, 2, 2, None, 2, 2, None]


def test_an_old_worker_gives_a_new_version_back_and_loses_nothing(
    conn: Conn, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """During a rolling deploy, and after a rollback: no attempt is spent, and the new program handles the event."""
    monkeypatch.setattr("cauce.engine.layout.GIVE_BACK_SECONDS", 0.01)
    older, newer, old, new = programs()
    schema.migrate(conn, newer)
    schema.migrate(conn, older)  # a rollback, which takes no version back
    with conn.transaction():
        for n in range(2):
            publicar_evento(conn, OldEvents.fijado, Uno(precio=n))
            publicar_evento(conn, NewEvents.fijado, Dos(importe=n))
    waiting = "select count(*) = 2 and bool_and(intentos = 0) from cauce.entregas where suscriptor = 'manejador'"
    work(older, quick(database), lambda: len(old) == 2 and value(conn, waiting) is True)
    assert (sorted(old), new) == ([0, 1], [])
    (told,) = [message for message in caplog.messages if "wait for workers of a newer program" in message]
    assert "the payload has version 2, and tienda/precio.fijado here has version 1" in told
    work(newer, quick(database), lambda: settled(conn))
    assert sorted(new) == [0, 1]
    assert column(conn, "select distinct estado::text from cauce.eventos") == ["procesado"]
    assert value(conn, "select count(*) from cauce.fallos") == 0


def test_what_no_program_can_read_ends_in_error_and_can_be_retried(conn: Conn, database: str) -> None:
    """A version that was never deployed, a version that is none, and an upcaster that fails; each with its reason."""
    _, newer, _, handled = programs()
    schema.migrate(conn, newer)
    for payload, version in (('{"importe": 1}', "3"), ('{"importe": 2}', '"x"'), ('{"other": 3}', "1")):
        conn.execute(
            "select cauce.publicar_evento('tienda', 'precio.fijado', %s::jsonb,"
            " cabeceras => jsonb_build_object('version', %s::jsonb))",
            (payload, version),
        )
    work(newer, quick(database), lambda: settled(conn))
    never, none, failed = column(conn, "select error from cauce.fallos order by evento")
    assert "the payload has version 3, and tienda/precio.fijado here has version 2" in never
    assert "the highest that was ever deployed is 2: deploy a program that has version 3" in never
    assert "the version of the payload is 'x', not a whole number" in none
    assert "the upcaster from version 1, rename" in failed
    assert "raised KeyError: 'precio'" in failed
    assert column(conn, "select estado::text from cauce.eventos") == ["error"] * 3
    conn.execute("update cauce.eventos set cabeceras = '{\"version\": 2}' where (payload ? 'importe')")
    events = column(conn, "select id from cauce.eventos where payload ? 'importe'")
    for evento in events:
        operations.retry(conn, evento)
    work(newer, quick(database), lambda: len(handled) == len(events))
    assert sorted(handled) == [1, 2]


def test_a_worker_that_starts_raises_the_version_and_changes_nothing_else(conn: Conn) -> None:
    """So a program that was not migrated is known to read what it publishes."""
    older, newer, *_ = programs()
    schema.migrate(conn, older)
    conn.execute("update cauce.catalogo set prioridad = 7 where origen = 'tienda'")
    schema.save_catalog(conn, newer, replace=False)
    row = conn.execute("select prioridad, version from cauce.catalogo where origen = 'tienda'").fetchone()
    assert row == (7, 2)
