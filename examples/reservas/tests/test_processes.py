"""The application as it runs: Stripe calls the web application, and the worker does the rest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx

from cauce.testing import Database, eventos, wait_for
from services.reservas import apartar_reserva

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.reservas.tests.conftest import Mailbox, Web


def test_a_payment_becomes_an_e_mail(
    cauce_db: Database, web: Web, start: Callable[..., Path], mailbox: Mailbox
) -> None:
    """From Stripe's signed webhook, sent twice, to one e-mail: every step in a process of its own."""
    log = start("app.trabajadores")
    with cauce_db.connect(autocommit=True) as conn:
        reserva_id = apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
        session = {"id": "cs_1", "payment_status": "paid", "client_reference_id": str(reserva_id)}
        event = {
            "id": "evt_1",
            "object": "event",
            "type": "checkout.session.completed",
            "created": int(time.time()),
            "data": {"object": {**session, "object": "checkout.session", "amount_total": 20_000}},
        }
        assert web.deliver(event, "whsec_of_somebody_else").status_code == 400
        first, second = web.deliver(event), web.deliver(event)
        assert (first.status_code, first.json()["duplicado"]) == (200, False)
        assert (second.status_code, second.json()["duplicado"]) == (200, True)
        wait_for(
            lambda: [evento.estado for evento in eventos(conn)] == ["procesado"] * 2,
            f"both events are processed; the worker says in {log} what it does",
            seconds=30,
        )
        assert conn.execute("select estado from reservas").fetchall() == [("pagada",)]
    (message,) = mailbox.messages
    assert message["To"] == "ana@example.com"


def test_only_stripe_is_let_in(web: Web) -> None:
    """The routes of the application serve the providers that it has, not all that the library knows."""
    assert httpx.post(f"{web.address}/api/webhooks/github", content=b"{}").status_code == 404
