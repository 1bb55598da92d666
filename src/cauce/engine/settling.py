"""The end of a batch: its ``tx`` handlers and its settlement.

Handlers with ``tx`` of a batch run one after another inside the settling transaction, without savepoints. If one
raises, all of it rolls back, and a second pass runs each delivery in a transaction of its own; the first pass spends no
attempt.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.transaction import OutOfOrderTransactionNesting

from cauce.causing import lineage_of
from cauce.database import claims
from cauce.database.claims import Resultado
from cauce.engine.deadlines import STOPS, GivenBack
from cauce.engine.report import Report
from cauce.errors import LeaseLost, TransactionEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from psycopg import AsyncConnection

    from cauce.database.claims import Batch
    from cauce.engine.claiming import Claiming
    from cauce.engine.deadlines import Executor
    from cauce.engine.dispatch import Dispatcher, Hooks
    from cauce.engine.report import Delivery

logger = logging.getLogger("cauce.runner")

LOSSES: Final = 2
"""Connections that handlers with ``tx`` may lose before it counts as their failure: servers do restart."""


class Settling:
    """The end of a batch, in steps that can continue on another connection."""

    def __init__(self, claiming: Claiming, dispatcher: Dispatcher, batch: Batch, report: Report) -> None:
        self._claiming, self._dispatcher, self._batch, self.report = claiming, dispatcher, batch, report
        self._connections = claiming.connections
        self._apart = False
        """The second pass: every delivery with ``tx`` has a row and a transaction of its own."""
        self._settled = False
        self._losses = 0
        """Connections lost while the handlers of this pass, or this delivery, ran."""

    async def finish(self, more: Callable[[], int]) -> Batch | None:
        """Run the ``tx`` handlers and settle; return the next batch, if one was claimed."""
        report = self.report
        if self._settled:
            return await self._claim(more())
        if self._dispatcher.stopping and not self._apart:
            self._give_back_transactional()
        if not report.transactional and not self._apart:
            return await self._settle_plain(more())
        with self._dispatcher.watch.executor() as executor:
            if not self._apart:
                failed = await self._together(executor)
                if failed is None:
                    self._settled = True
                    return await self._claim(more())
                if len(report.transactional) == 1:
                    self._judge(failed, report.transactional.pop())
                    return await self._settle_plain(more())
                await self._take_apart()
            while report.transactional:
                await self._alone(report.transactional[0], executor)
                report.transactional.pop(0)
                self._losses = 0
        self._settled = True
        return await self._claim(more())

    async def _settle_plain(self, size: int) -> Batch | None:
        async with self._connections.lend() as conn:
            if not size:
                self._learn(await claims.settle(conn, self._batch, self.report.entregas))
                return None
            unknown, following = await claims.settle_and_claim(
                conn, self._batch, self.report.entregas, self._claiming.of(size)
            )
            self._claiming.hold(following)
        self._learn(unknown or ())
        if unknown is None:
            logger.warning("batch %s: lease lost; another worker processes it again", self._batch.lote)
        return following

    async def _claim(self, size: int) -> Batch | None:
        return await self._claiming.claim(size) if size else None

    async def _together(self, executor: Executor) -> BaseException | None:
        """First pass: every ``tx`` handler and the settlement in one transaction. Return what went wrong."""
        report = self.report
        said, done = len(report.entregas), report.done
        delivery: Delivery | None = None
        hooks: Hooks = []
        async with self._connections.lend() as conn:
            try:
                causes = [lineage_of(delivery.evento) for delivery in report.transactional]
                async with claims.transaction(conn, self._batch, causes) as effects:
                    for delivery, cause in zip(report.transactional, causes, strict=True):
                        await self._dispatcher.run_in(delivery, conn, executor, hooks)
                        effects.note(cause)
                        report.succeeded(delivery)
                    unknown = await claims.settle(conn, self._batch, report.entregas, self._batch.ids, effects=effects)
            except BaseException as error:  # noqa: BLE001 - _weigh raises it again unless a handler raised it
                del report.entregas[said:]
                report.done = done
                self._weigh(error, conn)
                return error
        self._learn(unknown)
        await self._dispatcher.run_hooks(hooks)
        return None

    def _learn(self, unknown: Collection[int]) -> None:
        """Explain the causes that the database does not know again next time."""
        if unknown:
            self._dispatcher.causes.forget(unknown)

    async def _take_apart(self) -> None:
        """Between the passes: settle the other results, and give every ``tx`` delivery its own row under this lease."""
        report = self.report
        said = len(report.entregas)
        for delivery in report.transactional:
            if not delivery.held:
                report.say(delivery.evento.id, delivery.consumer.nombre, Resultado.RETENIDA, delivery.evento.intentos)
        try:
            await self._settle(report, self._batch.ids)
        except BaseException:
            del report.entregas[said:]
            raise
        report.entregas = [entrega for entrega in report.entregas if entrega["resultado"] != Resultado.RETENIDA]
        for delivery in report.transactional:
            delivery.held = True
        self._apart = True
        self._losses = 0

    async def _alone(self, delivery: Delivery, executor: Executor) -> None:
        """Second pass: one ``tx`` delivery in a transaction of its own."""
        single = Report()
        hooks: Hooks = []
        if self._dispatcher.stopping:
            single.give_back(delivery)
        else:
            async with self._connections.lend() as conn:
                try:
                    async with claims.transaction(conn, self._batch, [lineage_of(delivery.evento)]) as effects:
                        await self._dispatcher.run_in(delivery, conn, executor, hooks)
                        single.succeeded(delivery)
                        await claims.settle(conn, self._batch, single.entregas, ids=[], effects=effects)
                except BaseException as error:  # noqa: BLE001 - _weigh raises it again unless a handler raised it
                    self._weigh(error, conn)
                    single = Report()
                    self._judge(error, delivery, single)
                else:
                    self.report.done += 1
                    await self._dispatcher.run_hooks(hooks)
                    return
        await self._settle(single, ids=[])
        self.report.entregas += single.entregas

    async def _settle(self, report: Report, ids: Sequence[int]) -> None:
        """Settle part of the batch, in a transaction of its own."""
        async with self._connections.lend() as conn:
            self._learn(await claims.settle(conn, self._batch, report.entregas, ids))

    def _judge(self, error: BaseException, delivery: Delivery, report: Report | None = None) -> None:
        report = report or self.report
        if isinstance(error, GivenBack):
            report.give_back(delivery)
        else:
            self._dispatcher.failed(delivery, error, report)
            report.log_failures()

    def _give_back_transactional(self) -> None:
        for delivery in self.report.transactional:
            self.report.give_back(delivery)
        self.report.transactional.clear()

    def _weigh(self, error: BaseException, conn: AsyncConnection[Any]) -> None:
        """Return if a handler failed; raise if the lease, the connection or the worker was lost.

        Repeated losses of the connection count as the handler's failure, or it would be retried forever. A connection
        whose transaction the handler ended, or left a block open in, is closed here: its state is unknown.
        """
        if isinstance(error, (TimeoutError, GivenBack)):
            return  # a sync handler's connection is closed by then
        if isinstance(error, (LeaseLost, *STOPS)):
            raise error
        if isinstance(error, (TransactionEnded, OutOfOrderTransactionNesting)):
            conn.pgconn.finish()
        elif conn.closed:
            self._losses += 1
            if self._losses <= LOSSES:
                raise psycopg.OperationalError(f"the connection was lost while handlers ran: {error!r}") from error
