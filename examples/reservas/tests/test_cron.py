"""Several events in the table, the cron over HTTP: how their states change, and whose turn comes first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cauce.testing import Database, eventos
from services.reservas import apartar_reserva

if TYPE_CHECKING:
    from examples.reservas.tests.conftest import Mailbox, Web

INSERT = "insert into cauce.eventos (origen, tipo, payload) values (%s, %s, %s)"


def fill(database: Database) -> int:
    """Insert ours first and Stripe's last, by bare INSERTs, and return the reservation that is paid."""
    with database.connect() as conn:
        reserva_id = apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
        session = {"id": "cs_1", "payment_status": "paid", "client_reference_id": str(reserva_id)}
        intent: dict[str, Any] = {
            "id": "pi_1",
            "amount_received": 20_000,
            "currency": "eur",
            "metadata": {"reserva_id": str(reserva_id)},
        }
        stripe: dict[str, Any] = {"created": 1_760_000_000}
        rows: list[tuple[str, str, dict[str, Any]]] = [
            ("reserva", "reserva.cancelada", {"reserva_id": 7, "correo": "eva@example.com", "motivo": "rain"}),
            ("reserva", "reserva.desconocida", {}),
            ("reserva", "reserva.creada", {"reserva_id": "none"}),
            (
                "stripe",
                "payment_intent.succeeded",
                {**stripe, "id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": intent}},
            ),
            (
                "stripe",
                "checkout.session.completed",
                {**stripe, "id": "evt_2", "type": "checkout.session.completed", "data": {"object": session}},
            ),
        ]
        for origen, tipo, payload in rows:
            conn.execute(INSERT, [origen, tipo, json.dumps(payload)])
        return reserva_id


def test_events_are_processed_and_stripe_s_come_first(cauce_db: Database, web: Web, mailbox: Mailbox) -> None:
    """All that can be handled is, with what it publishes; the log book has the order; what cannot be ends in error."""
    reserva_id = fill(cauce_db)
    with cauce_db.connect(autocommit=True) as conn:
        assert {evento.estado for evento in eventos(conn)} == {"pendiente"}
        answer = web.cron()
        assert answer.status_code == 200
        counts = answer.json()
        # the payload that does not fit is dead for each of its three recipients, the event that nobody knows once
        assert (counts["errores"], counts["reintentos"], counts["pendientes"]) == (3 + 1, 0, 0)
        assert {evento.tipo: (evento.estado, evento.intentos) for evento in eventos(conn) if evento.id != 3} == {
            "payment_intent.succeeded": ("procesado", 1),
            "checkout.session.completed": ("procesado", 1),
            "reserva.cancelada": ("procesado", 1),
            "reserva.desconocida": ("error", 1),
            "reserva.creada": ("procesado", 1),
        }
        misfit = next(evento for evento in eventos(conn) if evento.id == 3)
        assert misfit.estado == "error"
        assert "reserva_id" in (misfit.ultimo_error or "")
        assert [row[0] for row in conn.execute("select nota from bitacora order by id")] == [
            "stripe: payment_intent.succeeded",
            "stripe: checkout.session.completed",
            "reserva: reserva.cancelada (7)",
            f"reserva: reserva.creada ({reserva_id})",
        ]
        assert conn.execute("select estado, localizador is not null from reservas").fetchall() == [("pagada", True)]
    assert sorted(str(message["To"]) for message in mailbox.messages) == ["ana@example.com", "eva@example.com"]


def test_a_small_limit_leaves_the_rest_for_the_next_call(cauce_db: Database, web: Web) -> None:
    """Two deliveries a call: the first takes Stripe's two events, and ours still wait."""
    fill(cauce_db)
    assert web.cron(limite=2).status_code == 200
    with cauce_db.connect() as conn:
        states = {evento.tipo: evento.estado for evento in eventos(conn)}
    assert (states["payment_intent.succeeded"], states["checkout.session.completed"]) == ("procesado", "procesado")
    assert states["reserva.cancelada"] == "pendiente"


def test_nobody_else_may_call_it(cauce_db: Database, web: Web) -> None:
    """A wrong secret does nothing but answer 401."""
    fill(cauce_db)
    assert web.cron("guessed").status_code == 401
    with cauce_db.connect() as conn:
        assert {evento.estado for evento in eventos(conn)} == {"pendiente"}
