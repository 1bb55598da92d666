"""Reports: the results of a batch, for ``cauce.terminar`` and for the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cauce.database.claims import Resultado

if TYPE_CHECKING:
    from cauce.bus import Consumer
    from cauce.database.claims import Entrega, Failure, Row
    from cauce.engine.routing import Elsewhere
    from cauce.evento import Evento

logger = logging.getLogger("cauce.dispatch")


@dataclass(slots=True)
class Delivery:
    """An event that is delivered to one consumer."""

    consumer: Consumer
    evento: Evento[Any]
    held: bool
    """It has a row in ``entregas``, which is deleted when the delivery is done."""


@dataclass(slots=True)
class Alike:
    """Failures of one subscriber with the same cause: one line of the log."""

    error: str
    """The first error, in one line."""
    wait: float | None
    """Seconds until the next attempt of the first delivery; None if none of them is retried."""
    deliveries: list[Delivery] = field(default_factory=list[Delivery])

    def __str__(self) -> str:
        """Return the line of the log: which deliveries failed, what follows, and why."""
        (first, *others), nombre = self.deliveries, self.deliveries[0].consumer.nombre
        evento = first.evento
        if not others:
            what = (
                f"event {evento.id} ({evento.origen}/{evento.tipo}), subscriber {nombre},"
                f" attempt {evento.intentos} failed"
            )
        else:
            ids = ", ".join(str(delivery.evento.id) for delivery in self.deliveries)
            what = f"{len(self.deliveries)} deliveries to subscriber {nombre} failed for the same cause: events {ids}"
        if self.wait is None:
            then = "no more attempts"
        else:
            then = "all will be retried" if others else f"retry in {self.wait:.1f} s"
        return f"{what}; {then}: {self.error}"


@dataclass(slots=True)
class Report:
    """The results of a batch."""

    plain: list[Delivery] = field(default_factory=list[Delivery])
    transactional: list[Delivery] = field(default_factory=list[Delivery])
    """Deliveries whose handlers will run in the settling transaction."""
    entregas: list[Entrega] = field(default_factory=list["Entrega"])
    """The results that the settlement stores: of all deliveries but new ones that succeeded."""
    alike: dict[tuple[int, str, bool], Alike] = field(default_factory=dict[tuple[int, str, bool], Alike])
    """Failures that are not logged yet, by cause, subscriber, and whether this was the last attempt."""
    done: int = 0

    def say(
        self, evento: int, suscriptor: str, resultado: Resultado, intento: int, more: Failure | None = None
    ) -> None:
        """Add the result of a delivery; ``more`` holds its error and the delay before the next attempt."""
        entrega: Entrega = {"evento": evento, "suscriptor": suscriptor, "resultado": resultado, "intento": intento}
        self.entregas.append({**entrega, **more} if more else entrega)

    def succeeded(self, delivery: Delivery) -> None:
        """Add a success."""
        self.done += 1
        if delivery.held:
            self.say(delivery.evento.id, delivery.consumer.nombre, Resultado.HECHA, delivery.evento.intentos)

    def give_back(self, delivery: Delivery) -> None:
        """Add a delivery that was not run, or not to its end."""
        self.say(delivery.evento.id, delivery.consumer.nombre, Resultado.DEVUELTA, delivery.evento.intentos)

    def pass_on(self, row: Row, other: Elsewhere) -> None:
        """Give a delivery back whose subscriber another program runs."""
        self.entregas.append({
            "evento": row.id, "suscriptor": other.nombre, "resultado": Resultado.DEVUELTA, "intento": row.intento,
            "espera": other.seconds, "aplicacion": other.application,
        })  # fmt: skip

    def log_failures(self) -> None:
        """Log the failures, one line for each cause: thousands of lines a second would cost too much time."""
        for alike in self.alike.values():
            logger.warning("%s", alike)
        self.alike.clear()

    def count(self, resultado: Resultado) -> int:
        """Count the deliveries with this result."""
        return sum(entrega["resultado"] == resultado for entrega in self.entregas)
