"""Reports: what a batch has come to, as ``cauce.terminar`` reads it and as the log tells it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cauce.bus import Consumer
    from cauce.database.claims import Entrega, Failure, Row
    from cauce.engine.routing import Elsewhere
    from cauce.evento import Evento

logger = logging.getLogger("cauce.dispatch")


@dataclass(slots=True)
class Delivery:
    """An event on its way to one consumer."""

    consumer: Consumer
    evento: Evento[Any]
    held: bool
    """It has a row of its own in ``entregas``, which must go when it is done."""


@dataclass(slots=True)
class Alike:
    """Failures of one subscriber for one cause, as one line of the log tells them."""

    error: str
    """Of the first."""
    wait: float | None
    """Seconds until its next attempt; None: there is none, for any of them."""
    deliveries: list[Delivery] = field(default_factory=list[Delivery])

    def __str__(self) -> str:
        """Say which they are."""
        (first, *others), nombre = self.deliveries, self.deliveries[0].consumer.nombre
        evento = first.evento
        if not others:
            what = (
                f"event {evento.id} ({evento.origen}/{evento.tipo}), subscriber {nombre},"
                f" attempt {evento.intentos} failed"
            )
        else:
            ids = ", ".join(str(delivery.evento.id) for delivery in self.deliveries)
            what = f"{len(self.deliveries)} deliveries to subscriber {nombre} failed alike: events {ids}"
        if self.wait is None:
            then = "no more attempts"
        else:
            then = "each again in a while" if others else f"again in {self.wait:.1f} s"
        return f"{what}; {then}: {self.error}"


@dataclass(slots=True)
class Report:
    """What a batch has come to."""

    plain: list[Delivery] = field(default_factory=list[Delivery])
    transactional: list[Delivery] = field(default_factory=list[Delivery])
    """Still to be run, inside the settling transaction."""
    entregas: list[Entrega] = field(default_factory=list["Entrega"])
    """What there is to say of deliveries that did not simply succeed."""
    alike: dict[tuple[int, str, bool], Alike] = field(default_factory=dict[tuple[int, str, bool], Alike])
    """Failures that the log does not have yet: by cause, subscriber, and whether another attempt follows."""
    done: int = 0

    def say(self, evento: int, suscriptor: str, resultado: str, intento: int, more: Failure | None = None) -> None:
        """Note what became of a delivery; ``more``: the error, and when it is due again."""
        entrega: Entrega = {"evento": evento, "suscriptor": suscriptor, "resultado": resultado, "intento": intento}
        self.entregas.append({**entrega, **more} if more else entrega)

    def succeeded(self, delivery: Delivery) -> None:
        """Note a success."""
        self.done += 1
        if delivery.held:
            self.say(delivery.evento.id, delivery.consumer.nombre, "hecha", delivery.evento.intentos)

    def give_back(self, delivery: Delivery) -> None:
        """Note that a delivery was not tried, or not to the end."""
        self.say(delivery.evento.id, delivery.consumer.nombre, "devuelta", delivery.evento.intentos)

    def pass_on(self, row: Row, other: Elsewhere) -> None:
        """Give the delivery to a subscriber that another program runs back, for the workers that do."""
        self.entregas.append({
            "evento": row.id, "suscriptor": other.nombre, "resultado": "devuelta", "intento": row.intento,
            "espera": other.seconds, "aplicacion": other.application,
        })  # fmt: skip

    def log_failures(self) -> None:
        """Write what failed to the log, a line for all that is alike: at thousands a second, lines are what is dear."""
        for alike in self.alike.values():
            logger.warning("%s", alike)
        self.alike.clear()

    def count(self, resultado: str) -> int:
        """Count the deliveries that ended so."""
        return sum(entrega["resultado"] == resultado for entrega in self.entregas)
