"""One batch after another: claim, run, settle together with the next claim.

Workers and ``procesar_lote`` share the runner. It survives a lost connection: the results of handlers without ``tx``
are settled on the next connection, and those with ``tx`` run again there, since their transaction was rolled back. If
it had committed, the fencing token is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

import psycopg

from cauce.database import claims
from cauce.database.claims import Batch, Claim, Resultado
from cauce.engine.claiming import Claiming
from cauce.engine.connections import backoff
from cauce.engine.deadlines import STOPS
from cauce.engine.dispatch import Dispatcher
from cauce.engine.layout import Layout
from cauce.engine.routing import Routing
from cauce.engine.settling import Settling
from cauce.errors import ForeignRestore, LeaseLost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.engine.connections import Connections
    from cauce.engine.deadlines import Watch
    from cauce.engine.heartbeat import Heartbeat
    from cauce.engine.report import Report

logger = logging.getLogger("cauce.runner")

FIRST_SIZE: Final = 16
"""Events of the first batch; each later one has at most four times as many as the one before."""


@dataclass(slots=True)
class Tally:
    """Deliveries, by what became of them."""

    done: int = 0
    retried: int = 0
    dead: int = 0
    ignored: int = 0
    given_back: int = 0
    batches: int = 0

    def __iadd__(self, other: Tally) -> Self:
        """Add another tally."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def add(self, report: Report) -> None:
        """Add a batch's report."""
        self.done += report.done
        self.retried += report.count(Resultado.REINTENTAR)
        self.dead += report.count(Resultado.MUERTA)
        self.ignored += report.count(Resultado.IGNORADA)
        self.given_back += report.count(Resultado.DEVUELTA)
        self.batches += 1


class Pace:
    """The size of a group's next batch, by how long the last one took; the group's runners share it."""

    def __init__(self, settings: Settings) -> None:
        self._seconds, self._limit = settings.batch_seconds, settings.batch_size
        self.size = min(FIRST_SIZE, settings.batch_size)

    def note(self, events: int, seconds: float) -> None:
        """Adapt the size to a batch of ``events`` that took ``seconds``."""
        fitting = int(self._seconds * events / max(seconds, 1e-6))
        self.size = max(1, min(fitting, 4 * max(events, self.size), self._limit))


class Room:
    """Where the batches of a process run: side by side, except those whose worker died.

    Of those, one runs at a time, or two would be blamed for one death. And the last attempt (one more death and it ends
    in ``error``) runs alone, since another batch may have killed the earlier workers.
    """

    def __init__(self, crash_limit: int) -> None:
        self._limit = crash_limit
        self._suspects = asyncio.Lock()
        self._open, self._empty = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._empty.set()
        self._inside = 0

    def decides(self, batch: Batch) -> bool:
        """Return whether it must run alone."""
        return 0 < batch.deaths >= self._limit - 1

    @contextlib.asynccontextmanager
    async def enter(self, batch: Batch) -> AsyncGenerator[None]:
        """Wait until the batch may run."""
        one_at_a_time = self._suspects if batch.suspect else contextlib.nullcontext()
        async with one_at_a_time, self._alone() if self.decides(batch) else self._beside():
            yield

    @contextlib.asynccontextmanager
    async def _beside(self) -> AsyncGenerator[None]:
        while not self._open.is_set():  # not `if`: another task may close it before this one resumes
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        self._open.clear()
        try:
            await self._empty.wait()
            yield
        finally:
            self._open.set()


class Group:
    """What the runners of one group share: subscriptions, handlers, executors and pace."""

    def __init__(self, bus: Bus, grupo: str, settings: Settings, watch: Watch) -> None:
        self.name = grupo
        self.dispatcher = Dispatcher(bus, grupo, settings, watch)
        self.layout = Layout(Routing(bus, grupo), self.dispatcher.busy)
        self.pace = Pace(settings)


@dataclass(frozen=True, slots=True)
class Process:
    """What the runners of one process share."""

    bus: Bus
    settings: Settings
    worker: str
    connections: Connections
    heartbeat: Heartbeat
    watch: Watch
    room: Room
    groups: dict[str, Group]
    """By name."""

    def group(self, grupo: str) -> Group:
        """Return a group of the bus, the same every time."""
        if grupo not in self.groups:
            self.groups[grupo] = Group(self.bus, grupo, self.settings, self.watch)
        return self.groups[grupo]


class Runner:
    """Processes the batches of one group, one after another."""

    def __init__(self, process: Process, grupo: str) -> None:
        self.process, self.grupo = process, grupo
        self.connections = process.connections
        group = process.group(grupo)
        self._layout, self._pace, self.dispatcher = group.layout, group.pace, group.dispatcher
        settings, application = process.settings, process.bus.application
        usual = Claim(grupo, settings.batch_size, process.worker, settings.lease_seconds, aplicacion=application)
        self.claiming = Claiming(usual, process.connections, process.heartbeat)
        self._failures = 0  # batches in a row that could not be settled
        self.tally = Tally()

    @property
    def size(self) -> int:
        """How many events the next batch should have."""
        return self._pace.size

    async def claim(self, size: int | None = None, *, rung: bool = False, in_turn: bool = False) -> Batch | None:
        """Claim a batch; None: nothing is due. ``rung``: a publisher has rung. ``in_turn``: nobody waits for it."""
        return await self.claiming.claim(size or self.size, rung=rung, in_turn=in_turn)

    async def run(self, batch: Batch, more: Callable[[], int]) -> Batch | None:
        """Run a batch's handlers, settle it, and claim the next one, of ``more()`` events (0: none).

        If a batch cannot be settled, return None and let its lease expire: its events are then handed out one by one,
        so that only the cause of the failure ends in ``error``.

        Raises:
            ForeignRestore: the database was restored into a younger cluster.
        """
        try:
            async with self.process.room.enter(batch):
                following = await self._run(batch, more)
        except (ForeignRestore, *STOPS):
            raise
        except BaseException:
            logger.exception(
                "batch %s of group %s (events %s to %s) could not be settled: after its lease has expired, its events"
                " are handed out one by one",
                batch.lote, self.grupo, min(row.id for row in batch.rows), max(row.id for row in batch.rows),
            )  # fmt: skip
            self.process.heartbeat.release(batch)
            await asyncio.sleep(backoff(self._failures))
            self._failures += 1
            return None
        finally:
            self.process.heartbeat.release(batch)
        self._failures = 0
        return following

    async def _run(self, batch: Batch, more: Callable[[], int]) -> Batch | None:
        began = monotonic()
        settling: Settling | None = None
        failures = 0
        while True:
            try:
                if settling is None:
                    if self.process.room.decides(batch):
                        async with self.connections.lend() as conn:
                            await claims.run_alone(conn, batch)
                    report = await self._layout.read(batch, self.connections)
                    await self.dispatcher.run_plain(report)
                    report.log_failures()
                    settling = Settling(self.claiming, self.dispatcher, batch, report)
                    if not report.transactional:  # before the next claim, which comes with the settlement
                        self._pace.note(len(batch.rows), monotonic() - began)
                following = await settling.finish(more)
            except LeaseLost as error:
                logger.warning("batch %s: %s", batch.lote, error)
                return None
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                logger.warning("batch %s is settled on another connection; the last one failed: %s", batch.lote, error)
                await asyncio.sleep(backoff(failures))
                failures += 1
            else:
                self.claiming.settled()
                self._pace.note(len(batch.rows), monotonic() - began)
                self.tally.add(settling.report)
                return following
