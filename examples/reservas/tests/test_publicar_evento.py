"""`publicar_evento`, and the services that call it: the event and its cause commit together, or not at all."""

from __future__ import annotations

import pytest

from cauce import InvalidPayload, NotInTransaction, publicar_evento
from cauce.testing import Database, eventos
from events.types.eventos import ReservaCreada, ReservaEvents
from services.reservas import apartar_reserva, cancelar_reserva, crear_reserva

CREADA = ReservaCreada(reserva_id=42, cliente="Ana", correo="ana@example.com")


def test_it_stores_the_event_with_the_catalog_s_key_and_priority(cauce_db: Database) -> None:
    """The row has origin, name, payload, key and priority, waits, and the id is returned at once."""
    with cauce_db.connect() as conn:
        number = publicar_evento(conn, ReservaEvents.reserva_creada, CREADA)
        (evento,) = eventos(conn)
    assert evento.id == number
    assert (evento.origen, evento.tipo, evento.clave, evento.prioridad) == ("reserva", "reserva.creada", "42", 5)
    assert evento.payload == {"reserva_id": 42, "cliente": "Ana", "correo": "ana@example.com"}
    assert (evento.estado, evento.intentos, evento.procesado_en) == ("pendiente", 0, None)


def test_a_rollback_takes_the_event_along(cauce_db: Database) -> None:
    """What did not happen is not told."""
    with cauce_db.connect() as conn:
        publicar_evento(conn, ReservaEvents.reserva_creada, CREADA)
        conn.rollback()
        assert eventos(conn) == []


def test_it_refuses_to_commit_apart_from_its_cause(cauce_db: Database) -> None:
    """In autocommit and outside of a transaction there is nothing to commit with."""
    with cauce_db.connect(autocommit=True) as conn:
        with pytest.raises(NotInTransaction):
            publicar_evento(conn, ReservaEvents.reserva_creada, CREADA)
        with conn.transaction():
            publicar_evento(conn, ReservaEvents.reserva_creada, CREADA)
        assert len(eventos(conn)) == 1


def test_it_refuses_a_payload_that_is_none_of_the_event_s(cauce_db: Database) -> None:
    """What a type checker could not see is found before anything is stored."""
    wrong = CREADA.model_copy(update={"reserva_id": "many"})
    with cauce_db.connect() as conn:
        with pytest.raises(InvalidPayload, match="reserva_id"):
            publicar_evento(conn, ReservaEvents.reserva_creada, wrong)
        assert eventos(conn) == []


def test_making_a_reservation_publishes_it(cauce_db: Database) -> None:
    """`crear_reserva` stores the reservation and the event in one transaction."""
    with cauce_db.connect(autocommit=True) as conn:
        reserva_id = crear_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
        assert conn.execute("select id, estado from reservas").fetchall() == [(reserva_id, "pagada")]
        assert [(evento.tipo, evento.clave) for evento in eventos(conn)] == [("reserva.creada", str(reserva_id))]


def test_a_reservation_that_cannot_be_stored_is_not_published(cauce_db: Database) -> None:
    """No nights, no reservation, no event."""
    with cauce_db.connect(autocommit=True) as conn:
        with pytest.raises(Exception, match="reservas_noches_check"):
            crear_reserva(conn, "Ana", "ana@example.com", noches=0, importe=0)
        assert eventos(conn) == []


def test_keeping_a_room_publishes_nothing(cauce_db: Database) -> None:
    """A reservation that waits for its payment does not stand yet."""
    with cauce_db.connect(autocommit=True) as conn:
        apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
        assert conn.execute("select estado from reservas").fetchall() == [("pendiente",)]
        assert eventos(conn) == []


def test_cancelling_publishes_once(cauce_db: Database) -> None:
    """The second time there is nothing to cancel, and nothing to tell."""
    with cauce_db.connect(autocommit=True) as conn:
        reserva_id = apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
        assert cancelar_reserva(conn, reserva_id, "overbooked")
        assert not cancelar_reserva(conn, reserva_id, "overbooked")
        assert [evento.payload for evento in eventos(conn)] == [
            {"reserva_id": reserva_id, "correo": "ana@example.com", "motivo": "overbooked"}
        ]
