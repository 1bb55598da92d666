"""The bus under test: a Stripe-like payload, validated, and handlers that do nothing but count.

``listo`` has only its dedicated handler. ``abanico`` has three recipients: its handler and two subscribers.
``fallido`` has a handler that always fails, a few calls deep in the application, with an error that names the payment.
``perdido`` has the same handler, and is dead after its second attempt.
"""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg
from pydantic import BaseModel

from cauce import (
    Bus,
    Catalog,
    EventHandlers,
    EventType,
    NuevoEvento,
    RetryPolicy,
    Settings,
    Subscriber,
    publicar_evento,
    publicar_eventos,
)
from cauce.evento import Evento  # noqa: TC001 - Bus reads the handlers' annotations at run time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHUNK: Final = 1_000
"""Events of one bulk call."""

PENDING: Final = """
select count(*) from cauce.eventos e
  join cauce.suscripciones s on s.grupo = 'principal' and (s.origen, s.tipo) = (e.origen, e.tipo)
 where e.estado <> 'procesado'"""
"""Counts the deliveries that are not done."""


class Metadata(BaseModel):
    """What the shop wrote onto the payment."""

    reserva: str


class Intent(BaseModel):
    """A payment."""

    id: str
    amount: int
    currency: str
    customer: str
    status: str
    metadata: Metadata


class Data(BaseModel):
    """The envelope Stripe puts around the object."""

    object: Intent


class Payment(BaseModel):
    """A Stripe-like event, numbered; ``padding`` makes it as long as a phase wants."""

    id: str = "evt_1NG8Du2eZvKYlo2CUI79vXWy"
    object: str = "event"
    data: Data
    livemode: bool = False
    seq: int
    padding: str = ""


DATA: Final = Data(
    object=Intent(
        id="pi_3",
        amount=2000,
        currency="eur",
        customer="cus_123456",
        status="succeeded",
        metadata=Metadata(reserva="r_1234"),
    )
)


class BenchEvents(Catalog, origen="banco"):
    """The events of the benchmarks."""

    listo = EventType("listo", Payment)
    abanico = EventType("abanico", Payment)
    fallido = EventType("fallido", Payment)
    perdido = EventType("perdido", Payment)


Kind: TypeAlias = EventType[Payment]
"""Any of them."""


class Seen:
    """Called by the handlers with each event; by default it does nothing."""

    def __init__(self) -> None:
        self.tell: Callable[[int], None] = lambda _: None
        self.seconds = 0.0
        """How long ``pause`` and ``pause_sync`` take."""


seen: Final = Seen()


async def handle(evento: Evento[Payment]) -> None:
    """Do nothing but report the event."""
    seen.tell(evento.payload.seq)


async def pause(evento: Evento[Payment]) -> None:
    """Wait as for an answer over the network."""
    seen.tell(evento.payload.seq)
    await asyncio.sleep(seen.seconds)  # the wait is what is measured


def pause_sync(evento: Evento[Payment]) -> None:
    """Do the same, in a thread."""
    seen.tell(evento.payload.seq)
    time.sleep(seen.seconds)


async def first(evento: Evento[Payment]) -> None:
    """Do the same."""
    seen.tell(evento.payload.seq)


async def second(evento: Evento[Payment]) -> None:
    """Do the same."""
    seen.tell(evento.payload.seq)


class GatewayError(Exception):
    """The payment gateway does not answer."""


async def fail(evento: Evento[Payment]) -> None:
    """Report the event, and fail."""
    seen.tell(evento.payload.seq)
    await charge(evento.payload)


async def charge(payment: Payment) -> None:
    """Ask the gateway for money."""
    try:
        connect(payment.seq)
    except OSError as error:
        raise GatewayError(f"payment {payment.seq} of 'cus_{payment.seq % 97}' is not charged") from error


def connect(number: int) -> None:
    """Raise an error: the gateway is closed."""
    raise ConnectionRefusedError(111, f"connection {number} refused")


HANDLERS: Final[dict[str, Callable[[Evento[Payment]], Any]]] = {
    "nothing": handle,
    "async": pause,
    "sync": pause_sync,
}
"""The handlers that ``listo`` may have."""


def make_bus(handler: str = "nothing") -> Bus:
    """Return the application's bus."""
    return Bus(
        catalogs=[BenchEvents],
        event_handlers=EventHandlers(
            BenchEvents.listo.handled_by(HANDLERS[handler]),
            BenchEvents.abanico.handled_by(handle),
            BenchEvents.fallido.handled_by(fail),
            BenchEvents.perdido.handled_by(fail, retry=RetryPolicy(max_attempts=2, base=0.1)),
        ),
        subscribers=[
            Subscriber("primero", BenchEvents.abanico.handled_by(first)),
            Subscriber("segundo", BenchEvents.abanico.handled_by(second)),
        ],
    )


def settings(dsn: str) -> Settings:
    """Return the settings as they come: retries, heartbeat, time limits and validation on."""
    return Settings(database_url=dsn)


class Publisher:
    """Publishes as business code does, on a synchronous connection."""

    def __init__(self, dsn: str) -> None:
        self._conn: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    async def publish(self, numbers: Iterable[int]) -> None:
        """Publish events, one in each transaction."""
        for number in numbers:
            publicar_evento(self._conn, BenchEvents.listo, Payment(data=DATA, seq=number), own_transaction=True)

    async def publish_with_business(self, numbers: Iterable[int]) -> None:
        """Write a business row and publish its event, one pair in each transaction."""
        for number in numbers:
            with self._conn.transaction():
                self._conn.execute("insert into reservas (referencia, importe) values (%s, %s)", ("r", number))
                publicar_evento(self._conn, BenchEvents.listo, Payment(data=DATA, seq=number))

    async def bulk(self, numbers: Iterable[int], *, fan: bool = False, padding: str = "") -> None:
        """Publish many events, a thousand in each call."""
        tipo = BenchEvents.abanico if fan else BenchEvents.listo
        await self.many(tipo, numbers, padding=padding)

    async def many(self, tipo: Kind, numbers: Iterable[int], *, padding: str = "") -> None:
        """Publish many events of a type, a thousand in each call."""
        rest = iter(numbers)
        while chunk := list(islice(rest, CHUNK)):
            payments = (Payment(data=DATA, seq=number, padding=padding) for number in chunk)
            publicar_eventos(self._conn, (NuevoEvento(tipo, payment) for payment in payments), own_transaction=True)
