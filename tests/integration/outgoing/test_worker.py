"""A bus with a webhook among its subscribers, and a real worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel
from standardwebhooks.webhooks import Webhook as Official

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, RetryPolicy, Subscriber, publicar_evento
from cauce.database import schema
from cauce.engine.worker import Worker
from cauce.outgoing import WEBHOOK_RETRY, Destinations, Webhook
from cauce.testing import Database, drain, wait_for_async
from tests.integration.outgoing.kit import OK, OWN, SECRET, Receiver, status

if TYPE_CHECKING:
    Receive = Callable[..., Receiver]


class ReservaCreada(BaseModel):
    """A payload."""

    reserva_id: int


class Pago(BaseModel):
    """Another."""

    importe: int


class ReservaEvents(Catalog, origen="reserva"):
    """Two events of different payloads."""

    creada = EventType("reserva.creada", ReservaCreada)
    pagada = EventType("reserva.pagada", Pago)


async def nothing(evento: Evento[ReservaCreada]) -> None:
    """Handle one event."""


async def nothing_else(evento: Evento[Pago]) -> None:
    """Handle the other."""


def application(webhook: Webhook, retry: RetryPolicy | None = None) -> Bus:
    """A bus whose events all go to a webhook, in a group of its own."""
    return Bus(
        catalogs=[ReservaEvents],
        event_handlers=EventHandlers(
            ReservaEvents.creada.handled_by(nothing), ReservaEvents.pagada.handled_by(nothing_else)
        ),
        subscribers=[
            Subscriber(
                "socio",
                ReservaEvents.creada.handled_by(webhook, retry=retry),
                ReservaEvents.pagada.handled_by(webhook, retry=retry),
                grupo="socio",
            )
        ],
    )


def test_a_worker_delivers_in_the_end(receive: Receive, db: Database) -> None:
    """Two failures and a success: three requests of one id, the last of them good, and nothing left to do."""
    receiver = receive(status(500), status(503, retry_after="0"), OK)
    policy = RetryPolicy(max_attempts=5, base=0.01)
    destinations = Destinations(db.settings)
    webhook = Webhook(receiver.url(), SECRET, rules=OWN, retry=policy, destinations=destinations)
    bus = application(webhook, policy)

    async def main() -> None:
        worker = Worker(bus, db.settings.model_copy(update={"poll_seconds": 0.05}))
        task = asyncio.create_task(worker.run())
        await worker.ready.wait()
        with db.connect() as conn:
            publicar_evento(conn, ReservaEvents.creada, ReservaCreada(reserva_id=42))
        await wait_for_async(lambda: len(receiver.requests) == 3, "three requests")
        await wait_for_async(settled, "nothing is left of the delivery")
        worker.stop()
        await task

    def settled() -> bool:
        with db.connect() as conn:
            row = conn.execute(
                "select (select count(*) from cauce.entregas), (select count(*) from cauce.fallos)"
            ).fetchone()
        return row == (0, 2)

    with db.connect(autocommit=True) as conn:
        schema.migrate(conn, bus)
    asyncio.run(main())
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    last = receiver.requests[-1]
    assert Official(SECRET).verify(last.body, dict(last.headers.items()))["data"] == {"reserva_id": 42}
    known = destinations.find(webhook.destino)
    destinations.close()
    assert known is not None
    assert known.fallando_desde is None


def test_events_of_a_destination_that_is_gone_end_dead(receive: Receive, db: Database) -> None:
    """After a 410 the deliveries of its group end in error with the reason; the event's own state is another matter."""
    receiver = receive(status(410))
    destinations = Destinations(db.settings)
    bus = application(Webhook(receiver.url(), SECRET, rules=OWN, destinations=destinations))
    with db.connect(autocommit=True) as conn:
        schema.migrate(conn, bus)
    for number in range(2):
        with db.connect() as conn:
            publicar_evento(conn, ReservaEvents.creada, ReservaCreada(reserva_id=number))
        drain(bus, db.settings, check=False)
    destinations.close()
    with db.connect() as conn:
        rows = conn.execute(
            "select d.estado, e.estado, d.error"
            "  from cauce.entregas d join cauce.eventos e on e.id = d.evento order by e.id"
        ).fetchall()
    assert [row[:2] for row in rows] == [("error", "procesado")] * 2
    assert "answered 410" in rows[0][2]
    assert "is disabled since" in rows[1][2]
    assert len(receiver.requests) == 1


def test_one_webhook_takes_events_of_any_payload(receive: Receive, db: Database) -> None:
    """Each goes out under its own type, with its own data."""
    receiver = receive(OK)
    bus = application(Webhook(receiver.url(), SECRET, rules=OWN))
    with db.connect(autocommit=True) as conn:
        schema.migrate(conn, bus)
    with db.connect() as conn:
        publicar_evento(conn, ReservaEvents.creada, ReservaCreada(reserva_id=1))
        publicar_evento(conn, ReservaEvents.pagada, Pago(importe=2))
    drain(bus, db.settings)
    bodies = [json.loads(request.body) for request in receiver.requests]
    assert sorted((body["type"], body["data"]) for body in bodies) == [
        ("reserva.creada", {"reserva_id": 1}),
        ("reserva.pagada", {"importe": 2}),
    ]


def test_the_handlers_own_policy_counts_unless_the_binding_has_one() -> None:
    """A webhook brings its schedule of days along; a binding may say otherwise."""
    webhook = Webhook("https://socio.example/", SECRET)
    assert ReservaEvents.creada.handled_by(webhook).retry is WEBHOOK_RETRY
    own = RetryPolicy(max_attempts=2)
    assert ReservaEvents.creada.handled_by(webhook, retry=own).retry is own
    assert ReservaEvents.creada.handled_by(nothing).retry is None


def test_another_librarys_attribute_is_no_policy() -> None:
    """A decorated handler may carry a ``retry`` of some library's: it is left alone."""

    async def decorated(evento: Evento[ReservaCreada]) -> None:
        """Handle the event."""

    decorated.retry = object()  # type: ignore[attr-defined]  # wrong on purpose
    assert ReservaEvents.creada.handled_by(decorated).retry is None
