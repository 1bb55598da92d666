"""Routing: which subscribers of a group receive an event, and which of them this program runs.

The table ``suscripciones`` lists the subscribers of each event. Where several programs run at once (the old and the new
one of a rolling deploy, or several applications), each runs its own subscribers and gives the rest back. Every batch
has the version of its group's subscriptions, so a worker knows when to read them again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cauce.catalog import MANEJADOR, PRINCIPAL
from cauce.database import claims

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection

    from cauce.bus import Bus, Consumer, Route
    from cauce.database.claims import SubscriptionRow

logger = logging.getLogger("cauce.routing")

GIVE_BACK_SECONDS: Final = 5.0
"""Seconds after which a delivery that only a newer deploy of the same application knows is offered again."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A subscriber that this program does not run."""

    nombre: str
    application: str
    """Whose workers run it."""
    seconds: float
    """Seconds until its delivery is due there."""


@dataclass(frozen=True, slots=True)
class Recipients:
    """The recipients of an event in one group."""

    route: Route | None = None
    """How this program reads the event; None: it does not know it."""
    plain: Sequence[Consumer] = ()
    transactional: Sequence[Consumer] = ()
    elsewhere: Sequence[Elsewhere] = ()
    removed: Mapping[str, datetime] = field(default_factory=dict[str, "datetime"])
    """Subscribers that a deploy has removed, and when; they receive nothing."""
    orphan: bool = False
    """No application has a handler for it, and its group is ``principal``."""

    @property
    def anybody(self) -> bool:
        """Whether it has any recipient."""
        return bool(self.plain or self.transactional or self.elsewhere)

    def only(self, nombre: str) -> Recipients:
        """Return the part that concerns one subscriber."""
        return Recipients(
            self.route,
            [consumer for consumer in self.plain if consumer.nombre == nombre],
            [consumer for consumer in self.transactional if consumer.nombre == nombre],
            [other for other in self.elsewhere if other.nombre == nombre],
            self.removed,
            orphan=self.orphan and nombre == MANEJADOR,
        )


class Routing:
    """The recipients of every event in one group, as this program and the database know them."""

    def __init__(self, bus: Bus, grupo: str) -> None:
        self.grupo = grupo
        self._application, self._routes = bus.application, bus.routes(grupo)
        self.version: int | None = None
        """Version of the subscriptions read last; None: none yet."""
        self.known: Mapping[tuple[str, str], Recipients] = {}
        """By (origen, tipo)."""
        self.nobody: Final = Recipients(orphan=grupo == PRINCIPAL)
        """The recipients of any other event."""

    async def read(self, conn: AsyncConnection[Any]) -> None:
        """Read the group's subscriptions again."""
        version, subscriptions = await claims.subscriptions(conn, self.grupo)
        stored: dict[tuple[str, str], dict[str, SubscriptionRow]] = {key: {} for key in self._routes}
        for subscription in subscriptions:
            of_event = stored.setdefault((subscription.origen, subscription.tipo), {})
            of_event[subscription.suscriptor] = subscription
        self.version = version
        self.known = {key: self._recipients(self._routes.get(key), of_event) for key, of_event in stored.items()}
        self._tell()

    def _recipients(self, route: Route | None, stored: Mapping[str, SubscriptionRow]) -> Recipients:
        """Compare the program's subscribers with the stored ones; those that were never stored run too."""
        mine = {name for name, subscription in stored.items() if subscription.aplicacion == self._application}
        live = {name for name, subscription in stored.items() if subscription.retirada_en is None}

        def runs(consumer: Consumer) -> bool:
            return consumer.nombre in mine & live or consumer.nombre not in stored

        plain, inside = (
            (tuple(filter(runs, route.plain)), tuple(filter(runs, route.transactional))) if route else ((), ())
        )
        here = {consumer.nombre for consumer in (*plain, *inside)}
        return Recipients(
            route,
            plain,
            inside,
            [
                Elsewhere(name, stored[name].aplicacion, GIVE_BACK_SECONDS if name in mine else 0.0)
                for name in sorted(live - here)
            ],
            {name: moment for name, subscription in stored.items() if (moment := subscription.retirada_en) is not None},
            orphan=self.grupo == PRINCIPAL and MANEJADOR not in live | here,
        )

    def _tell(self) -> None:
        newer = sorted(
            f"{other.nombre} of {origen}/{tipo}"
            for (origen, tipo), recipients in self.known.items()
            for other in recipients.elsewhere
            if other.application == self._application
        )
        if newer:
            logger.warning(
                "group %s: this program does not have %s; their deliveries wait for workers of a newer one."
                " If this is the newest, run: cauce migrate module:bus",
                self.grupo, ", ".join(newer),
            )  # fmt: skip
