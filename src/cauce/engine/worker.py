"""The worker: its runners, heartbeat, doorbell and upkeep, and how all of it stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import socket
from typing import TYPE_CHECKING

import psycopg

from cauce.config import expect_application
from cauce.database import schema
from cauce.database.connecting import connect, refuse_pooler
from cauce.engine.connections import Connections
from cauce.engine.deadlines import Watch
from cauce.engine.doorbell import Doorbell
from cauce.engine.heartbeat import Heartbeat
from cauce.engine.runner import Process, Room, Runner
from cauce.engine.upkeep import Upkeep
from cauce.errors import ConfigError, ForeignRestore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cauce.bus import Bus
    from cauce.config import Settings

logger = logging.getLogger("cauce.worker")


def new_identity() -> str:
    """Make a worker's name, new at every start: a restarted process is another worker."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def relax_garbage_collection() -> None:
    """Make the cyclic garbage collector run less often: for a process that only runs a worker.

    A batch is a few thousand objects that live until it is settled and form no cycles; by default the collector walks
    them again and again, which cost 2.7 of the 16 us of Python that an event took.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@contextlib.asynccontextmanager
async def process(bus: Bus, settings: Settings) -> AsyncGenerator[Process]:
    """Start what runners share: connections, the heartbeat's thread and the watch over time limits."""
    shared = Process(
        bus=bus,
        settings=settings,
        worker=new_identity(),
        connections=Connections(settings),
        heartbeat=Heartbeat(settings),
        watch=Watch(),
        room=Room(settings.crash_limit),
        groups={},
    )
    shared.heartbeat.start()
    housekeeping = [asyncio.create_task(shared.watch.run()), asyncio.create_task(shared.connections.run())]
    try:
        yield shared
    finally:
        shared.heartbeat.stop()
        for group in shared.groups.values():
            await group.dispatcher.close()
        for task in housekeeping:
            task.cancel()
        await shared.connections.close()


def prepare(bus: Bus, settings: Settings) -> None:
    """Check the database and write the application's catalog into it.

    Raises:
        SchemaError: the tables are missing, older or newer.
        CatalogError: another application owns a handler or a subscriber of this one.
        ForeignRestore: the database was restored into a younger cluster.
        ConfigError: the database is behind a pooler in transaction mode, and ``CAUCE_POOLER`` is not set.
    """
    with connect(settings) as conn:
        schema.check(conn)
        refuse_pooler(conn, settings)
        removed = schema.save_catalog(conn, bus, replace=False)
    for subscription in removed:
        logger.warning(
            "%s gets nothing: a deploy has removed it. If this is the newest program, run: cauce migrate module:bus",
            subscription,
        )


class Worker:
    """Processes the events of an application until stopped.

    Args:
        bus: the application's bus.
        settings: database, lease, sizes and times.
        groups: which of the bus's groups; all by default.

    Raises:
        ConfigError: the bus has no such group, or none at all.
        WrongArgument: ``bus`` is not a ``Bus``, or ``settings`` is not a ``Settings``.
    """

    def __init__(self, bus: Bus, settings: Settings, groups: Sequence[str] = ()) -> None:
        expect_application(bus, settings, "Worker")
        if not bus.groups:
            raise ConfigError("the bus has no handler and no subscriber, so a worker has nothing to do")
        unknown = set(groups) - set(bus.groups)
        if unknown:
            raise ConfigError(f"the bus has no group {', '.join(sorted(unknown))}; it has {', '.join(bus.groups)}")
        self._bus, self._settings = bus, settings
        self._groups = tuple(groups) or bus.groups
        self._stopping = asyncio.Event()
        self._runners: list[Runner] = []
        self.ready = asyncio.Event()
        """Set when the worker has checked the database and started."""

    def stop(self) -> None:
        """Stop: running handlers may finish within the grace period, other deliveries are given back at once."""
        self._stopping.set()
        for runner in self._runners:
            runner.dispatcher.stop()

    async def run(self) -> None:
        """Work until ``stop``.

        Raises:
            SchemaError: the tables are missing, older or newer.
            CatalogError: another application owns a handler or a subscriber of this one.
            ForeignRestore: the database was restored into a younger cluster.
        """
        await asyncio.to_thread(prepare, self._bus, self._settings)
        async with process(self._bus, self._settings) as shared:
            doorbell = Doorbell(self._settings)
            upkeep = Upkeep(self._settings, shared.worker, self._groups, self._bus.application)
            self._runners = [Runner(shared, g) for g in self._groups for _ in range(self._settings.slots)]
            if self._stopping.is_set():
                self.stop()
            chores = [asyncio.create_task(doorbell.run()), asyncio.create_task(upkeep.run())]
            slots = [asyncio.create_task(self._slot(runner, doorbell)) for runner in self._runners]
            logger.info("worker %s works on %s", shared.worker, ", ".join(self._groups))
            self.ready.set()
            try:
                await self._until_stopped(slots)
                doorbell.wake(everybody=True)
                await self._let_finish(slots, shared)
            finally:
                for task in (*slots, *chores):
                    task.cancel()
                await asyncio.gather(*slots, *chores, return_exceptions=True)
                with contextlib.suppress(psycopg.Error):
                    await upkeep.leave()
            logger.info("worker %s has stopped", shared.worker)

    async def _until_stopped(self, slots: Sequence[asyncio.Task[None]]) -> None:
        """Wait for ``stop``, or raise the error of a slot that cannot continue."""
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stop, *slots], return_when=asyncio.FIRST_COMPLETED)
            for slot in slots:
                if slot.done():
                    slot.result()
        finally:
            stop.cancel()

    async def _let_finish(self, slots: Sequence[asyncio.Task[None]], shared: Process) -> None:
        _, running = await asyncio.wait(slots, timeout=self._settings.grace_seconds)
        if running:
            logger.warning(
                "the grace period of %g s is over: running deliveries are given back", self._settings.grace_seconds
            )
            shared.watch.stop()
            await asyncio.wait(running, timeout=self._settings.lease_seconds)

    async def _slot(self, runner: Runner, doorbell: Doorbell) -> None:
        """Work while there is work, sleep while there is none."""
        worked, rung = False, False
        while not self._stopping.is_set():
            rings = doorbell.rings
            try:
                batch = await runner.claim(rung=rung, in_turn=not rung)
                while batch is not None:
                    worked = True
                    if len(batch.rows) >= runner.size:
                        doorbell.wake_another(runner.grupo)
                    batch = await runner.run(batch, lambda: 0 if self._stopping.is_set() else runner.size)
            except (ForeignRestore, ConfigError):
                raise
            except Exception:
                logger.exception("group %s: the claim failed; the worker tries again", runner.grupo)
                await asyncio.sleep(self._settings.poll_seconds)
            if not self._stopping.is_set():
                rung = await doorbell.sleep(runner.grupo, rings, worked=worked)
                worked = False
