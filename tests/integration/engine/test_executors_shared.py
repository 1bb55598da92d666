"""Handlers of several batches at once: how many, and what a stop or a lost lease does to a batch that waits."""

from __future__ import annotations

import asyncio
from collections import Counter

from cauce import Evento
from cauce.engine.layout import BREATH
from cauce.engine.runner import Runner
from cauce.engine.worker import Worker, process
from tests.integration.engine.kit import Conn, column, quick, states, until_async, value, working
from tests.integration.engine.scenery import Cosa, bus, settled, tell

LOTES = "select count(*) from cauce.lotes"


class Gate:
    """A handler that waits until it is released."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()
        self.running = self.most = 0
        self.open = asyncio.Event()

    async def __call__(self, evento: Evento[Cosa]) -> None:
        """Wait."""
        self.calls[evento.id] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1


async def test_a_batch_may_use_the_executors_of_all_slots_and_no_more(conn: Conn, database: str) -> None:
    """Two slots of three: six at once, of one batch or of two."""
    gate = Gate()

    tell(conn, 40)
    worker = Worker(bus(gate), quick(database, slots=2, concurrency=3, lease_seconds=30))
    running = asyncio.create_task(worker.run())
    await until_async(lambda: gate.running == 6)
    gate.open.set()
    await until_async(lambda: settled(conn))
    worker.stop()
    await running
    assert gate.most == 6
    assert set(gate.calls.values()) == {1}


async def test_a_batch_that_waits_for_executors_is_given_back_at_a_stop(conn: Conn, database: str) -> None:
    """At once, while the handlers of the batch before it still run; and no attempt is spent."""
    gate = Gate()

    events = tell(conn, 6)
    settings = quick(database, slots=2, concurrency=1, batch_size=3, lease_seconds=30, grace_seconds=20)
    worker = Worker(bus(gate), settings)
    running = asyncio.create_task(worker.run())
    await until_async(lambda: gate.running == 2 and value(conn, LOTES) == 2)
    worker.stop()
    await until_async(lambda: value(conn, LOTES) == 1, "the waiting batch given back")
    assert gate.running == 2
    assert sorted(column(conn, "select evento from cauce.entregas where intentos = 0")) == events[3:]
    gate.open.set()
    await running
    assert list(gate.calls) == events[:2]
    assert states(conn)["procesado"] == 2
    assert value(conn, LOTES) == 0


async def test_a_batch_whose_lease_is_lost_while_it_waits_settles_nothing(conn: Conn, database: str) -> None:
    """Another has taken it over when its turn comes: its events are handed out again, those of the other batch once."""
    gate = Gate()

    async def play() -> None:
        await until_async(lambda: gate.running == 2 and value(conn, LOTES) == 2)
        conn.execute("update cauce.lotes set arriendo_hasta = '-infinity' where id = (select max(id) from cauce.lotes)")
        conn.execute("select cauce.rescatar(3)")
        gate.open.set()
        await until_async(lambda: settled(conn))

    events = tell(conn, 6)
    settings = quick(database, slots=2, concurrency=1, batch_size=3, lease_seconds=30)
    await working(bus(gate), settings, play)
    assert [gate.calls[event] for event in events] == [1, 1, 1, 2, 2, 2]
    assert column(conn, "select intentos from cauce.eventos order by id") == [1, 1, 1, 2, 2, 2]
    assert states(conn) == {"procesado": 6}


async def test_handlers_go_on_while_a_batch_is_laid_out(conn: Conn, database: str) -> None:
    """The event loop turns every few rows, so that what waits in other executors is not held up by a large batch."""
    deliveries = 4 * BREATH

    gate = Gate()

    tell(conn, 1 + deliveries)
    async with process(bus(gate), quick(database, slots=2, batch_size=deliveries, lease_seconds=30)) as shared:
        runner, another = Runner(shared, "principal"), Runner(shared, "principal")
        first, second = await runner.claim(1), await another.claim(deliveries)
        assert first
        assert second
        running = asyncio.create_task(runner.run(first, lambda: 0))
        await until_async(lambda: gate.running == 1)
        reading = asyncio.create_task(shared.group("principal").layout.read(second, shared.connections))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= deliveries // BREATH
        assert len(reading.result().plain) == deliveries
        gate.open.set()
        await running
