"""Dispatch: runs the handlers of a batch, and notes the failures.

Handlers without ``tx`` run first, several at once, outside any transaction. Those with ``tx`` are called by the
settlement (``cauce.engine.settling``), inside its transaction.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus

from cauce.causing import handling
from cauce.database.claims import Resultado
from cauce.engine.causes import Causes, in_one_line
from cauce.engine.deadlines import STOPS, GivenBack
from cauce.engine.executors import Executors
from cauce.engine.report import Alike, Delivery, Report
from cauce.engine.threads import cut, run_sync
from cauce.engine.tx import async_tx, sync_tx
from cauce.errors import ENDED, TransactionEnded
from cauce.handlers import Takes
from cauce.outcome import Attempt, Discard, RetryAfter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from psycopg import AsyncConnection

    from cauce.bus import Bus, Consumer
    from cauce.config import Settings
    from cauce.engine.deadlines import Executor, Watch
    from cauce.evento import Evento

    Hooks: TypeAlias = list[Callable[[], object]]

logger = logging.getLogger("cauce.dispatch")

MIN_WAIT: Final = 0.05
"""Fewest seconds until the next attempt: a claim may pass by a retry that is due before its settlement has committed,
and ``cauce.repasar_reintentos`` finds it only seconds later."""
MAX_WAIT: Final = 366 * 86_400.0
"""Most seconds until the next attempt, whatever the policy or the handler says."""
THREAD_SECONDS: Final = 5.0
"""Seconds to wait for the thread of a sync handler after its connection was cut."""


class Dispatcher:
    """Runs the handlers of one group of an application."""

    def __init__(self, bus: Bus, grupo: str, settings: Settings, watch: Watch) -> None:
        self._bus, self._grupo, self._settings, self.watch = bus, grupo, settings, watch
        self._policy = settings.retry_policy()
        self._executors = Executors[Delivery](watch, settings.slots * settings.concurrency)
        # one for each executor, and one for each slot's handler with `tx`
        threads = settings.slots * (settings.concurrency + 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"cauce-{self._grupo}")
        self.causes = Causes()
        self.stopping = False
        """Deliveries that have not begun are given back."""

    async def run_plain(self, report: Report) -> None:
        """Run the handlers that take no ``tx``, several at once."""
        if self.stopping:
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

    async def run_in(self, delivery: Delivery, conn: AsyncConnection[Any], executor: Executor, hooks: Hooks) -> None:
        """Run a handler that takes ``tx``, inside the transaction the connection is in.

        ``hooks`` gets what the handler leaves to be called after the commit.

        Raises:
            Exception: whatever the handler raises.
            RuntimeError: the handler left the transaction aborted.
            TransactionEnded: the handler ended the transaction. If it began another, the settlement notices.
        """
        consumer = delivery.consumer
        handling(delivery.evento)
        if consumer.shape.is_async:
            with executor.within(self._seconds(consumer)):
                if consumer.shape.orm is None:
                    await consumer.handler(delivery.evento, conn)
                else:
                    async with async_tx(consumer.shape.orm, conn.pgconn) as tx:
                        await consumer.handler(delivery.evento, tx)
        else:
            await self._run_sync_in(delivery, conn, executor, hooks)
        status = conn.pgconn.transaction_status
        if status == TransactionStatus.IDLE:
            raise TransactionEnded(ENDED)
        if status != TransactionStatus.INTRANS:
            raise RuntimeError("the handler left its transaction aborted: it must not suppress an SQL error")

    async def _run_sync_in(
        self, delivery: Delivery, conn: AsyncConnection[Any], executor: Executor, hooks: Hooks
    ) -> None:
        """Run a sync handler with ``tx`` in a thread, on the same connection.

        A thread cannot be stopped. After its time limit its connection is cut and closed, so that its transaction rolls
        back, and the thread gets ``THREAD_SECONDS`` to end.
        """
        consumer = delivery.consumer
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(
            self._threads, run_sync, copy_context(), _call_in, consumer, delivery.evento, conn, hooks
        )
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

    async def run_hooks(self, hooks: Hooks) -> None:
        """Call what handlers left to be called after the commit, in a thread, for as long as a handler may take."""
        if not hooks:
            return
        call = asyncio.get_running_loop().run_in_executor(self._threads, _run_hooks, hooks)
        _, unfinished = await asyncio.wait([call], timeout=self._settings.handler_timeout_seconds)
        if unfinished:
            logger.error(
                "on_commit hooks of handlers run for more than %g s; the worker goes on without waiting for them",
                self._settings.handler_timeout_seconds,
            )

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
        """Begin no more deliveries: give those that have not begun back at once, even if all executors are busy."""
        self.stopping = True
        self._executors.hurry()

    async def close(self) -> None:
        """Cancel what runs, without waiting for threads of sync handlers."""
        await self._executors.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call(self, delivery: Delivery) -> Awaitable[object]:
        """Begin a handler that takes no ``tx``; the caller awaits the result."""
        consumer = delivery.consumer
        handling(delivery.evento)
        if consumer.shape.takes is Takes.NOTHING:
            arguments: tuple[Any, ...] = (delivery.evento,)
        else:
            arguments = (delivery.evento, self._attempt(delivery))
        if consumer.shape.is_async:
            call: Awaitable[object] = consumer.handler(*arguments)
            return call
        return asyncio.get_running_loop().run_in_executor(
            self._threads, run_sync, copy_context(), consumer.handler, *arguments
        )

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
            handling(delivery.evento)
            try:
                self._bus.on_error(error, delivery.evento, self._attempt(delivery))
            except STOPS:
                raise
            except BaseException:
                logger.exception("on_error raised; the failure of event %s is recorded", delivery.evento.id)


def _call_in(consumer: Consumer, evento: Evento[Any], conn: AsyncConnection[Any], hooks: Hooks) -> object:
    """Call a sync handler with its ``tx``."""
    with sync_tx(consumer.shape.orm, conn.pgconn, hooks) as tx:
        returned: object = consumer.handler(evento, tx)
    return returned


def _run_hooks(hooks: Hooks) -> None:
    """Call each hook; a failure is logged, because the effects are committed."""
    for hook in hooks:
        try:
            hook()
        except BaseException:
            logger.exception("an on_commit hook of a handler raised; the handler's effects are committed")
