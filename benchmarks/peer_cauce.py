"""Cauce in a harness that compares queues: the bus through its public face, in that harness's protocol.

The harness has a module ``common`` (payload, command line, ``hit``, ``ready``), which must be on PYTHONPATH. It calls
``setup``, ``open``, ``publish``, ``publish_tx``, ``bulk`` and ``worker``, and kills the worker in the end. This is its
entry for us; ``remaining`` counts the deliveries not yet recorded as done, one for each recipient of an event:

    "cauce": {
      "exe": "py",
      "script": "<this file>",
      "remaining": "select count(*) from cauce.eventos e join cauce.suscripciones s
                    on s.grupo = 'principal' and (s.origen, s.tipo) = (e.origen, e.tipo)
                    where e.estado <> 'procesado'",
      "conf": {"uvloop": true}
    }

A fan of 3 is one event with three recipients: its handler and two subscribers. All is on that is on by default:
retries, leases and heartbeat, time limits, validation of every payload, the doorbell in every publishing transaction.

The harness has its events as dicts, so the payload's type is a TypedDict, as in a program that has dicts: they are
validated when they are published and again by the worker. To make models of them first, in the measured time, took as
long as all the rest.
"""

# This file is run as a script with the harness's own modules around it, so it imports nothing of `benchmarks`.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from common import BUSINESS, CONF, DSN, event, hit, ready, run  # type: ignore[import-not-found]  # the harness's own module
from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11

from cauce import (
    Bus,
    Catalog,
    EventHandlers,
    Evento,
    EventType,
    NuevoEvento,
    Settings,
    Subscriber,
    publicar_evento,
    publicar_eventos,
)
from cauce.database import schema
from cauce.engine.worker import Worker, relax_garbage_collection

if TYPE_CHECKING:
    from collections.abc import Iterable


class Metadata(TypedDict):
    """What the shop wrote onto the payment."""

    reserva: str


class Intent(TypedDict):
    """A payment."""

    id: str
    amount: int
    currency: str
    customer: str
    status: str
    metadata: Metadata


class Data(TypedDict):
    """The envelope around the object."""

    object: Intent


class Payment(TypedDict):
    """The harness's event."""

    id: str
    object: str
    data: Data
    livemode: bool
    seq: int


class PeerEvents(Catalog, origen="banco"):
    """An event for its handler alone, and one for three."""

    t1 = EventType("t1", Payment)
    t3 = EventType("t3", Payment)


async def handle(evento: Evento[Payment]) -> None:
    """Do nothing but report the event."""
    hit(evento.payload["seq"])


bus = Bus(
    catalogs=[PeerEvents],
    event_handlers=EventHandlers(PeerEvents.t1.handled_by(handle), PeerEvents.t3.handled_by(handle)),
    subscribers=[Subscriber(name, PeerEvents.t3.handled_by(handle)) for name in ("primero", "segundo")],
)


class Peer:
    """The functions that the harness calls. The connection is synchronous, as in most business code."""

    conn: psycopg.Connection[Any]

    async def setup(self) -> None:
        """Create the tables and store the catalog."""
        with psycopg.connect(DSN, autocommit=True) as conn:
            schema.migrate(conn, bus)

    async def open(self) -> None:
        """Connect the publisher."""
        self.conn = psycopg.connect(DSN, autocommit=True)

    async def close(self) -> None:
        """Disconnect it."""
        self.conn.close()

    async def publish(self, number: int) -> None:
        """Publish one durable event in a transaction of its own."""
        publicar_evento(self.conn, PeerEvents.t1, event(number), own_transaction=True)

    async def publish_tx(self, number: int) -> None:
        """Write a business row and publish its event in one transaction."""
        with self.conn.transaction():
            self.conn.execute(BUSINESS.format("%s", "%s"), ("r", number))
            publicar_evento(self.conn, PeerEvents.t1, event(number))

    async def bulk(self, numbers: Iterable[int], fan: int) -> None:
        """Publish many events in one call; a fan is their recipients, not more events."""
        tipo = {1: PeerEvents.t1, 3: PeerEvents.t3}[fan]
        publicar_eventos(self.conn, [NuevoEvento(tipo, event(number)) for number in numbers], own_transaction=True)

    async def worker(self) -> None:
        """Work until killed."""
        relax_garbage_collection()  # as `cauce worker` does
        worker = Worker(bus, Settings(database_url=DSN, **CONF.get("settings", {})))
        await ready()
        await worker.run()


if __name__ == "__main__":
    run(Peer)
