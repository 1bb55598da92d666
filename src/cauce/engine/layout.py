"""Layout: from the rows of a batch to the deliveries that this program runs.

Deliveries of other programs are given back, and those that no program can handle end here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from cauce.catalog import MANEJADOR, TODOS
from cauce.database import claims
from cauce.database.claims import Resultado
from cauce.engine.causes import MAX_ERROR, message_of, one_line, storable
from cauce.engine.deadlines import STOPS
from cauce.engine.report import Delivery, Report
from cauce.engine.routing import GIVE_BACK_SECONDS
from cauce.errors import NewerVersion
from cauce.evento import Evento
from cauce.payloads import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cauce.bus import Route
    from cauce.database.claims import Batch, Failure, Row
    from cauce.engine.connections import Connections
    from cauce.engine.routing import Recipients, Routing

logger = logging.getLogger("cauce.dispatch")

NO_JSON: Final = "the body is not JSON that PostgreSQL can hold; it is kept in `cuerpo`"
NO_HEADERS: Final[Mapping[str, Any]] = MappingProxyType({})
UNREADABLE: Final = (ValueError, RecursionError)
"""What Python's JSON reader raises over JSON that PostgreSQL accepts: a number of 5,000 digits, 3,000 nested lists."""
BREATH: Final = 16
"""Rows laid out before handlers of other batches get the event loop again."""


class Layout:
    """Lays out the batches of one group.

    Args:
        routing: the recipients of its events.
        busy: returns whether handlers of the group are running.
    """

    def __init__(self, routing: Routing, busy: Callable[[], bool]) -> None:
        self._routing, self._busy = routing, busy
        self._deployed: dict[tuple[str, str], int] = {}
        """The database's answers about events of the current batch."""
        self._newer: list[tuple[Row, Recipients, NewerVersion, int]] = []
        """Rows of the current batch whose payloads have versions that this program does not know."""
        self._told: set[tuple[str, str, int]] = set()
        """The versions that a warning has named."""

    async def read(self, batch: Batch, connections: Connections) -> Report:
        """Lay out a batch: find each event's recipients, and decide the deliveries that have none here."""
        report = Report()
        if batch.version != self._routing.version:
            async with connections.lend() as conn:
                await self._routing.read(conn)
        known, nobody = self._routing.known, self._routing.nobody
        self._deployed.clear()
        self._newer.clear()
        for number, row in enumerate(batch.rows):
            if not number % BREATH and self._busy():
                await asyncio.sleep(0)
            to = known.get((row.origen, row.tipo), nobody)
            if row.suscriptor is not None:
                to = self._again(row, row.suscriptor, to, report)
            route = to.route if to.plain or to.transactional else None
            if route is None or to.elsewhere or to.orphan:
                await self._not_here(row, to, report, connections)
            if route is not None:
                self._lay_out(row, to, route, report)
        for newer in self._newer:
            await self._not_yet(*newer, report, connections)
        return report

    def _lay_out(self, row: Row, to: Recipients, route: Route, report: Report) -> None:
        """Prepare the deliveries to the recipients that this program runs."""
        if row.payload is None:
            self._misfit(row, to, report, NO_JSON)
            return
        headers, version = NO_HEADERS, 1
        if row.cabeceras:
            try:
                headers = _headers(row.cabeceras)
                version = version_of(headers)
            except UNREADABLE as error:
                self._misfit(row, to, report, f"Python cannot read the headers (`cabeceras`): {error}")
                return
        try:
            payload = route.tipo.load(row.payload, version)
        except (MemoryError, *STOPS):
            raise
        except NewerVersion as error:
            self._newer.append((row, to, error, version))
            return
        except BaseException as error:  # noqa: BLE001 - a validator of the application may raise anything
            self._misfit(row, to, report, route.tipo.why_not(error, message_of(error), version))
            return
        evento = Evento(
            row.id, row.origen, row.tipo, payload, row.intento, row.prioridad, row.creado_en,
            row.clave, row.id_externo, headers, row.causa, row.correlacion,
        )  # fmt: skip
        held = row.suscriptor is not None and row.suscriptor != TODOS
        for consumer in to.plain:
            report.plain.append(Delivery(consumer, evento, held))
        for consumer in to.transactional:
            report.transactional.append(Delivery(consumer, evento, held))

    @staticmethod
    def _again(row: Row, suscriptor: str, to: Recipients, report: Report) -> Recipients:
        """Return the recipients of a stored delivery: its subscriber, or all of them for '*'."""
        if suscriptor != TODOS:
            return to.only(suscriptor)
        if to.anybody or not to.orphan:
            report.say(row.id, TODOS, Resultado.HECHA, row.intento)
        return to

    async def _not_here(self, row: Row, to: Recipients, report: Report, connections: Connections) -> None:
        """Pass deliveries on to other programs, and end those that no program has."""
        for other in to.elsewhere:
            report.pass_on(row, other)
        if to.orphan:
            await self._orphan(row, to, report, connections)
        elif to.anybody:
            return
        elif row.suscriptor is None or row.suscriptor == TODOS:
            report.done += 1  # the group does not listen to it
        else:
            self._dead(row, row.suscriptor, report, _gone(row, to, self._routing.grupo))

    async def _orphan(self, row: Row, to: Recipients, report: Report, connections: Connections) -> None:
        """Decide the delivery to a dedicated handler that no application has."""
        whole = row.suscriptor is None or row.suscriptor == TODOS
        name = MANEJADOR if to.anybody or not whole else TODOS
        event = f"{row.origen}/{row.tipo}"
        if row.payload is None:
            self._dead(row, name, report, NO_JSON)
        elif (moment := to.removed.get(MANEJADOR)) is None and await self._deployed_version(row, connections):
            report.say(row.id, name, Resultado.DEVUELTA, row.intento, {"espera": GIVE_BACK_SECONDS})
        elif whole and _is_webhook(row):
            if name == TODOS:
                report.say(row.id, TODOS, Resultado.IGNORADA, row.intento, {"error": f"nobody handles {event}"})
        elif moment is not None:
            self._dead(row, name, report, f"no handler for {event}: a deploy removed it {_when(moment)}")
        else:
            self._dead(row, name, report, f"no handler for {event} in this application nor in any catalog")

    async def _not_yet(  # noqa: PLR0913, PLR0917 - the row, and why it waits
        self,
        row: Row,
        to: Recipients,
        error: NewerVersion,
        version: int,
        report: Report,
        connections: Connections,
    ) -> None:
        """Give back what a newer program reads; end what no program reads that was ever deployed."""
        deployed = await self._deployed_version(row, connections)
        if version > deployed:
            remedy = f"deploy a program that has version {version}, and try again: cauce retry {row.id}"
            self._misfit(row, to, report, f"{error}; the highest that was ever deployed is {deployed}: {remedy}")
            return
        for consumer in (*to.plain, *to.transactional):
            waits: Failure = {"espera": GIVE_BACK_SECONDS}
            report.say(row.id, consumer.nombre, Resultado.DEVUELTA, row.intento, waits)
        if (key := (row.origen, row.tipo, version)) not in self._told:
            self._told.add(key)
            logger.warning("event %s and others like it wait for workers of a newer program: %s", row.id, error)

    async def _deployed_version(self, row: Row, connections: Connections) -> int:
        """Ask the database, once a batch, for the highest version of an event in any catalog; 0: it is in none."""
        key = row.origen, row.tipo
        if key not in self._deployed:
            async with connections.lend() as conn:
                self._deployed[key] = await claims.deployed_version(conn, *key)
        return self._deployed[key]

    def _misfit(self, row: Row, to: Recipients, report: Report, error: str) -> None:
        """End the deliveries of an event that cannot be handed to the handlers of this program."""
        for consumer in (*to.plain, *to.transactional):
            self._dead(row, consumer.nombre, report, error)

    def _dead(self, row: Row, suscriptor: str, report: Report, error: str) -> None:
        logger.error(
            "event %s (%s/%s), subscriber %s, ends in error: %s",
            row.id, row.origen, row.tipo, suscriptor, one_line(error),
        )  # fmt: skip
        report.say(row.id, suscriptor, Resultado.MUERTA, row.intento, {"error": storable(error)[:MAX_ERROR]})


def _gone(row: Row, to: Recipients, grupo: str) -> str:
    """Return why a stored delivery has no recipient."""
    who = f"subscriber {row.suscriptor!r} of {row.origen}/{row.tipo}"
    if (moment := to.removed.get(row.suscriptor or "")) is None:
        return f"no application has a {who} in group {grupo}"
    return (
        f"a deploy removed {who} {_when(moment)}. Bring it back and try again (cauce migrate module:bus, cauce retry),"
        f" or give up its deliveries: cauce dismiss --grupo {grupo} --suscriptor {row.suscriptor}"
    )


def _when(moment: datetime) -> str:
    return f"on {moment.astimezone(UTC):%Y-%m-%d at %H:%M:%S} UTC"


def _headers(text: str) -> Mapping[str, Any]:
    """Return an event's headers; a publisher in SQL may have stored JSON that is no object."""
    headers = json.loads(text)
    return cast("dict[str, Any]", headers) if isinstance(headers, dict) else NO_HEADERS


def _is_webhook(row: Row) -> bool:
    """Whether the inbox stored it. Headers that Python cannot read are not the inbox's."""
    try:
        return row.cabeceras is not None and "webhook" in _headers(row.cabeceras)
    except UNREADABLE:
        return False
