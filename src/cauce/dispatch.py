"""Dispatch: from the rows of a batch to what their handlers made of them.

Handlers without ``tx`` run first, several at once, outside any transaction. Those with ``tx`` are left to the runner,
which calls them inside the settling transaction. What succeeds needs no words; a ``Report`` holds the rest.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from psycopg import Connection
from psycopg.pq import TransactionStatus

from cauce import log
from cauce.catalog import MANEJADOR, TODOS
from cauce.causes import MAX_ERROR, Causes, message_of, storable
from cauce.errors import ENDED, TransactionEnded
from cauce.evento import Evento
from cauce.handlers import Takes
from cauce.lanes import Lanes
from cauce.outcome import Attempt, Discard, RetryAfter
from cauce.routing import GIVE_BACK_SECONDS
from cauce.watch import STOPS, GivenBack, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from datetime import datetime

    from psycopg import AsyncConnection

    from cauce.bus import Bus, Consumer, Route
    from cauce.catalog import AnyHandler
    from cauce.config import Settings
    from cauce.connections import Connections
    from cauce.log import Batch, Entrega, Failure, Row
    from cauce.routing import Elsewhere, Recipients, Routing
    from cauce.watch import Lane

logger = logging.getLogger("cauce.dispatch")

NO_JSON: Final = "the body is not JSON that PostgreSQL can hold; it is kept in `cuerpo`"
NO_HEADERS: Final[Mapping[str, Any]] = MappingProxyType({})
UNREADABLE: Final = (ValueError, RecursionError)
"""What Python's JSON reader raises over what PostgreSQL holds: a number of 5,000 digits, 3,000 nested lists."""

MIN_WAIT: Final = 0.05
"""Seconds until the next attempt, at least: what is due before its settlement has committed may be passed by, and come
seconds later (``cauce.repasar_reintentos``)."""
MAX_WAIT: Final = 366 * 86_400.0
"""Seconds until the next attempt, at most, whatever policy or handler say: more than a year is not meant."""
THREAD_SECONDS: Final = 5.0
"""Seconds that the thread of a sync handler is waited for after its connection was cut."""


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


class Dispatcher:
    """Runs the handlers of one group of an application."""

    def __init__(self, bus: Bus, routing: Routing, settings: Settings, watch: Watch) -> None:
        self._bus, self._routing, self._settings, self._watch = bus, routing, settings, watch
        self._grupo = routing.grupo
        self._policy = settings.retry_policy()
        self._lanes = Lanes[Delivery](watch, settings.slots * settings.concurrency)
        # each lane may want one, and each slot one more for a handler with `tx`
        threads = settings.slots * (settings.concurrency + 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"cauce-{self._grupo}")
        self._in_catalog: dict[tuple[str, str], bool] = {}
        """What the database has said about events of the batch in hand."""
        self.causes = Causes()
        self.stopping = False
        """What has not begun is given back."""

    async def read(self, batch: Batch, connections: Connections) -> Report:
        """Lay out a batch: whom each event goes to; what fits nowhere is settled here."""
        report = Report()
        if batch.version != self._routing.version:
            async with connections.lend() as conn:
                await self._routing.read(conn)
        known, nobody = self._routing.known, self._routing.nobody
        self._in_catalog.clear()
        for row in batch.rows:
            to = known.get((row.origen, row.tipo), nobody)
            if row.suscriptor is not None:
                to = self._again(row, row.suscriptor, to, report)
            route = to.route if to.plain or to.transactional else None
            if route is None or to.elsewhere or to.orphan:
                await self._not_here(row, to, report, connections)
            if route is not None:
                self._lay_out(row, to, route, report)
        return report

    async def run_plain(self, report: Report) -> None:
        """Run the handlers that take no ``tx``, several at once."""
        if self.stopping:  # what is only to be called off does not wait for a lane
            for delivery in report.plain:
                report.give_back(delivery)
            return

        async def run_one(delivery: Delivery, lane: Lane) -> None:
            if self.stopping:
                report.give_back(delivery)
                return
            try:
                await self._watch.limit(lane, self._call(delivery), self._seconds(delivery.consumer))
            except GivenBack:
                report.give_back(delivery)
            except STOPS:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its failure
                self.failed(delivery, error, report)
            else:
                report.succeeded(delivery)

        await self._lanes.run(report.plain, run_one)

    async def run_in(self, delivery: Delivery, conn: AsyncConnection[Any], lane: Lane) -> None:
        """Run a handler that takes ``tx``, inside the transaction the connection is in.

        Raises:
            Exception: whatever the handler raises, or that it left the transaction unusable.
            TransactionEnded: the handler ended the transaction. One that began another is noticed by the settlement.
        """
        consumer = delivery.consumer
        if consumer.shape.is_async:
            await self._watch.limit(lane, consumer.handler(delivery.evento, conn), self._seconds(consumer))
        else:
            await self._run_sync_in(delivery, conn, lane)
        status = conn.pgconn.transaction_status
        if status == TransactionStatus.IDLE:
            raise TransactionEnded(ENDED)
        if status != TransactionStatus.INTRANS:
            raise RuntimeError("the handler left its transaction aborted: an SQL error must not be swallowed")

    async def _run_sync_in(self, delivery: Delivery, conn: AsyncConnection[Any], lane: Lane) -> None:
        """Run a sync handler with ``tx`` in a thread, on the same connection.

        A thread cannot be stopped. When its time is over its connection is cut, so that nothing it does counts, and
        closed; the thread itself is waited for a moment.
        """
        consumer = delivery.consumer
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._threads, _run_sync, consumer.handler, delivery.evento, _lend(conn))
        try:
            await self._watch.limit(lane, asyncio.shield(call), self._seconds(consumer))
        except (TimeoutError, GivenBack, asyncio.CancelledError):
            if not call.done():
                _cut(conn)
                await asyncio.wait([call], timeout=THREAD_SECONDS)
                call.add_done_callback(lambda call: call.cancelled() or call.exception())
                conn.pgconn.finish()
            raise

    def failed(self, delivery: Delivery, error: BaseException, report: Report) -> None:
        """Note a failure: due again by the policy, or dead."""
        consumer, evento = delivery.consumer, delivery.evento
        policy = consumer.retry or self._policy
        spent = isinstance(error, Discard) or evento.intentos >= policy.max_attempts
        wait = error.seconds if isinstance(error, RetryAfter) else policy.delay(evento.intentos)
        wait = min(max(wait, MIN_WAIT), MAX_WAIT)
        huella, failure = self.causes.explain(error)
        failure["espera"] = wait
        report.say(evento.id, consumer.nombre, "muerta" if spent else "reintentar", evento.intentos, failure)
        alike = report.alike.setdefault(
            (huella, consumer.nombre, spent), Alike(failure.get("error", ""), None if spent else wait)
        )
        alike.deliveries.append(delivery)
        self._tell(error, delivery)

    def stop(self) -> None:
        """Begin nothing any more: what has not begun is given back at once, whatever the lanes are busy with."""
        self.stopping = True
        self._lanes.hurry()

    async def close(self) -> None:
        """Cancel what runs, and let the threads of sync handlers go; one that is stuck is not waited for."""
        await self._lanes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call(self, delivery: Delivery) -> Awaitable[object]:
        """Begin a handler that takes no ``tx``; the result is to be awaited."""
        consumer = delivery.consumer
        if consumer.shape.takes is Takes.NOTHING:
            arguments: tuple[Any, ...] = (delivery.evento,)
        else:
            arguments = (delivery.evento, self._attempt(delivery))
        if consumer.shape.is_async:
            call: Awaitable[object] = consumer.handler(*arguments)
            return call
        return asyncio.get_running_loop().run_in_executor(self._threads, _run_sync, consumer.handler, *arguments)

    def _attempt(self, delivery: Delivery) -> Attempt:
        consumer, evento = delivery.consumer, delivery.evento
        return Attempt(
            number=evento.intentos,
            last=evento.intentos >= (consumer.retry or self._policy).max_attempts,
            subscriber=consumer.nombre,
            group=self._grupo,
            idempotency_key=f"{evento.id}:{self._grupo}:{consumer.nombre}",
        )

    def _seconds(self, consumer: Consumer) -> float:
        return self._settings.handler_timeout_seconds if consumer.timeout is None else consumer.timeout

    def _tell(self, error: BaseException, delivery: Delivery) -> None:
        if self._bus.on_error is not None:
            try:
                self._bus.on_error(error, delivery.evento, self._attempt(delivery))
            except STOPS:
                raise
            except BaseException:
                logger.exception("on_error raised; the failure of event %s is recorded", delivery.evento.id)

    def _lay_out(self, row: Row, to: Recipients, route: Route, report: Report) -> None:
        """Prepare the deliveries to the recipients that this program runs."""
        if row.payload is None:
            self._misfit(row, to, report, NO_JSON)
            return
        try:
            payload = route.validate(row.payload)
        except (MemoryError, *STOPS):
            raise
        except BaseException as error:  # noqa: BLE001 - a validator of the application may raise anything
            self._misfit(row, to, report, f"the payload is not a {route.tipo.payload!r} any more: {message_of(error)}")
            return
        try:
            headers = _headers(row.cabeceras) if row.cabeceras else NO_HEADERS
        except UNREADABLE as error:
            self._misfit(row, to, report, f"Python cannot read the headers (`cabeceras`): {error}")
            return
        evento = Evento(
            row.id, row.origen, row.tipo, payload, row.intento, row.prioridad, row.creado_en,
            row.clave, row.id_externo, headers,
        )  # fmt: skip
        held = row.suscriptor is not None and row.suscriptor != TODOS
        for consumer in to.plain:
            report.plain.append(Delivery(consumer, evento, held))
        for consumer in to.transactional:
            report.transactional.append(Delivery(consumer, evento, held))

    @staticmethod
    def _again(row: Row, suscriptor: str, to: Recipients, report: Report) -> Recipients:
        """Return the recipients of a stored delivery: one, or all after a worker died."""
        if suscriptor != TODOS:
            return to.only(suscriptor)
        if to.anybody or not to.orphan:
            report.say(row.id, TODOS, "hecha", row.intento)
        return to

    async def _not_here(self, row: Row, to: Recipients, report: Report, connections: Connections) -> None:
        """Leave deliveries to other programs, and settle what no program has."""
        for other in to.elsewhere:
            report.pass_on(row, other)
        if to.orphan:
            await self._orphan(row, to, report, connections)
        elif to.anybody:
            return
        elif row.suscriptor is None or row.suscriptor == TODOS:
            report.done += 1  # the group does not listen to it
        else:
            self._dead(row, row.suscriptor, report, _gone(row, to, self._grupo))

    async def _orphan(self, row: Row, to: Recipients, report: Report, connections: Connections) -> None:
        """Settle what should go to a dedicated handler, where no application has one stored."""
        whole = row.suscriptor is None or row.suscriptor == TODOS
        name = MANEJADOR if to.anybody or not whole else TODOS
        event = f"{row.origen}/{row.tipo}"
        if row.payload is None:
            self._dead(row, name, report, NO_JSON)
        elif (moment := to.removed.get(MANEJADOR)) is None and await self._is_in_catalog(row, connections):
            report.say(row.id, name, "devuelta", row.intento, {"espera": GIVE_BACK_SECONDS})
        elif whole and _is_webhook(row):
            if name == TODOS:
                report.say(row.id, TODOS, "ignorada", row.intento, {"error": f"nobody handles {event}"})
        elif moment is not None:
            self._dead(row, name, report, f"no handler for {event}: a deploy removed it {_when(moment)}")
        else:
            self._dead(row, name, report, f"no handler for {event} in this application nor in any catalog")

    async def _is_in_catalog(self, row: Row, connections: Connections) -> bool:
        """Ask the database, once a batch, whether any catalog has this event."""
        key = row.origen, row.tipo
        if key not in self._in_catalog:
            async with connections.lend() as conn:
                self._in_catalog[key] = await log.is_in_catalog(conn, *key)
        return self._in_catalog[key]

    def _misfit(self, row: Row, to: Recipients, report: Report, error: str) -> None:
        """End the deliveries of an event that cannot be handed to the handlers of this program."""
        for consumer in (*to.plain, *to.transactional):
            self._dead(row, consumer.nombre, report, error)

    def _dead(self, row: Row, suscriptor: str, report: Report, error: str) -> None:
        logger.error(
            "event %s (%s/%s), subscriber %s, ends in error: %s", row.id, row.origen, row.tipo, suscriptor, error
        )
        report.say(row.id, suscriptor, "muerta", row.intento, {"error": storable(error)[:MAX_ERROR]})


class _TxView(Connection[Any]):
    """A sync face of an async connection that is in a transaction of ours: a handler may use it, not end it.

    The libpq connection is the same; the event loop does not touch it while the handler's thread runs.
    """

    def commit(self) -> None:
        """Refuse.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("the transaction is the bus's: return to commit, raise to roll back")

    rollback = commit

    def close(self) -> None:
        """Refuse, as ``commit``."""
        self.commit()

    def __del__(self, *_: object) -> None:
        """Leave the connection open: it is only lent."""


def _lend(conn: AsyncConnection[Any]) -> _TxView:
    """Return a sync face, which prepares nothing: the names of prepared statements are the async face's to give."""
    view = _TxView(conn.pgconn)
    view.prepare_threshold = None
    return view


def _cut(conn: AsyncConnection[Any]) -> None:
    """End a connection that another thread may be using: shut its socket, so that the thread gets an error."""
    with socket.socket(fileno=os.dup(conn.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def _gone(row: Row, to: Recipients, grupo: str) -> str:
    """Say why a stored delivery has nobody to go to."""
    who = f"subscriber {row.suscriptor!r} of {row.origen}/{row.tipo}"
    if (moment := to.removed.get(row.suscriptor or "")) is None:
        return f"no application has a {who} in group {grupo}"
    return (
        f"a deploy removed {who} {_when(moment)}. Bring it back and try again (cauce migrate module:bus, cauce retry),"
        f" or give up all it left: cauce discard --grupo {grupo} --suscriptor {row.suscriptor}"
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


def _run_sync(handler: AnyHandler, *arguments: object) -> None:
    """Run a sync handler, in a thread, where what would stop a task is the handler's failure like any other.

    A future cannot even carry StopIteration: its handler would never seem to end.
    """
    try:
        returned = handler(*arguments)
    except (StopIteration, *STOPS) as error:
        raise RuntimeError(f"the handler raised {type(error).__name__}") from error
    if inspect.iscoroutine(returned):  # a decorator, a lambda: by its signature it is sync, and it has done nothing yet
        returned.close()
        raise TypeError("the handler returned a coroutine, which nobody awaits: what wraps it must be `async def` too")
