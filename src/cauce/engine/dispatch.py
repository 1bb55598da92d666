"""Dispatch: the handlers of a batch, and what becomes of a delivery whose handler fails.

Handlers without ``tx`` run first, several at once, outside any transaction. Those with ``tx`` are called by the
settlement (``cauce.engine.settling``), inside its transaction.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus

from cauce.database.claims import Resultado
from cauce.engine.causes import Causes, in_one_line
from cauce.engine.deadlines import STOPS, GivenBack
from cauce.engine.executors import Executors
from cauce.engine.report import Alike, Delivery, Report
from cauce.engine.threads import cut, lend, run_sync
from cauce.errors import ENDED, TransactionEnded
from cauce.handlers import Takes
from cauce.outcome import Attempt, Discard, RetryAfter

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from psycopg import AsyncConnection

    from cauce.bus import Bus, Consumer
    from cauce.config import Settings
    from cauce.engine.deadlines import Executor, Watch

logger = logging.getLogger("cauce.dispatch")

MIN_WAIT: Final = 0.05
"""Seconds until the next attempt, at least: what is due before its settlement has committed may be passed by, and come
seconds later (``cauce.repasar_reintentos``)."""
MAX_WAIT: Final = 366 * 86_400.0
"""Seconds until the next attempt, at most, whatever policy or handler say: more than a year is not meant."""
THREAD_SECONDS: Final = 5.0
"""Seconds that the thread of a sync handler is waited for after its connection was cut."""


class Dispatcher:
    """Runs the handlers of one group of an application."""

    def __init__(self, bus: Bus, grupo: str, settings: Settings, watch: Watch) -> None:
        self._bus, self._grupo, self._settings, self.watch = bus, grupo, settings, watch
        self._policy = settings.retry_policy()
        self._executors = Executors[Delivery](watch, settings.slots * settings.concurrency)
        # each executor may want one, and each slot one more for a handler with `tx`
        threads = settings.slots * (settings.concurrency + 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"cauce-{self._grupo}")
        self.causes = Causes()
        self.stopping = False
        """What has not begun is given back."""

    async def run_plain(self, report: Report) -> None:
        """Run the handlers that take no ``tx``, several at once."""
        if self.stopping:  # what is only to be called off does not wait for an executor
            for delivery in report.plain:
                report.give_back(delivery)
            return

        async def run_one(delivery: Delivery, executor: Executor) -> None:
            if self.stopping:
                report.give_back(delivery)
                return
            try:
                with executor.within(self._seconds(delivery.consumer)):
                    await self._call(delivery)
            except GivenBack:
                report.give_back(delivery)
            except STOPS:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its failure
                self.failed(delivery, error, report)
            else:
                report.succeeded(delivery)

        await self._executors.run(report.plain, run_one)

    async def run_in(self, delivery: Delivery, conn: AsyncConnection[Any], executor: Executor) -> None:
        """Run a handler that takes ``tx``, inside the transaction the connection is in.

        Raises:
            Exception: whatever the handler raises, or that it left the transaction unusable.
            TransactionEnded: the handler ended the transaction. One that began another is noticed by the settlement.
        """
        consumer = delivery.consumer
        if consumer.shape.is_async:
            with executor.within(self._seconds(consumer)):
                await consumer.handler(delivery.evento, conn)
        else:
            await self._run_sync_in(delivery, conn, executor)
        status = conn.pgconn.transaction_status
        if status == TransactionStatus.IDLE:
            raise TransactionEnded(ENDED)
        if status != TransactionStatus.INTRANS:
            raise RuntimeError("the handler left its transaction aborted: an SQL error must not be swallowed")

    async def _run_sync_in(self, delivery: Delivery, conn: AsyncConnection[Any], executor: Executor) -> None:
        """Run a sync handler with ``tx`` in a thread, on the same connection.

        A thread cannot be stopped. When its time is over its connection is cut, so that nothing it does counts, and
        closed; the thread itself is waited for a moment.
        """
        consumer = delivery.consumer
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._threads, run_sync, consumer.handler, delivery.evento, lend(conn))
        try:
            with executor.within(self._seconds(consumer)):
                await asyncio.shield(call)
        except (TimeoutError, GivenBack, asyncio.CancelledError):
            if not call.done():
                cut(conn)
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
        report.say(
            evento.id, consumer.nombre, Resultado.MUERTA if spent else Resultado.REINTENTAR, evento.intentos, failure
        )
        same = huella, consumer.nombre, spent
        if same not in report.alike:
            report.alike[same] = Alike(in_one_line(error), None if spent else wait)
        report.alike[same].deliveries.append(delivery)
        self._tell(error, delivery)

    def busy(self) -> bool:
        """Whether handlers without ``tx`` run now."""
        return self._executors.busy()

    def stop(self) -> None:
        """Begin nothing any more: what has not begun is given back at once, whatever the executors are busy with."""
        self.stopping = True
        self._executors.hurry()

    async def close(self) -> None:
        """Cancel what runs, and let the threads of sync handlers go; one that is stuck is not waited for."""
        await self._executors.close()
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
        return asyncio.get_running_loop().run_in_executor(self._threads, run_sync, consumer.handler, *arguments)

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
