"""A rolling deploy: old and new workers side by side, while events are published. No subscriber misses one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from cauce import Bus, Evento, Subscriber
from cauce.database import schema
from cauce.engine.runner import Runner
from cauce.engine.worker import Worker, process
from tests.integration.engine.kit import (
    Conn,
    claim,
    column,
    outcome,
    quick,
    settle,
    states,
    until,
    until_async,
    value,
    work,
)
from tests.integration.engine.scenery import Cosa, PruebaEvents, bus, quiet, settled, tell


def noting(calls: list[int]) -> Callable[[Evento[Cosa]], Any]:
    """Make a handler that notes the events it gets."""

    async def note(evento: Evento[Cosa]) -> None:
        calls.append(evento.id)

    return note


def with_subscriber(nombre: str, handler: Callable[..., Any], dedicated: Callable[..., Any] = quiet) -> Bus:
    """Make a bus with one more subscriber of `una` in `principal`."""
    return bus(dedicated, subscribers=[Subscriber(nombre, PruebaEvents.una.handled_by(handler))])


def test_every_event_published_after_migrate_reaches_the_new_subscriber(
    conn: Conn, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old worker goes on for a while, alone and then beside the new one; the publisher never pauses."""
    monkeypatch.setattr("cauce.engine.routing.GIVE_BACK_SECONDS", 0.05)
    handled: list[int] = []
    heard: list[int] = []
    published: list[int] = []
    over = threading.Event()
    older, newer = bus(noting(handled)), with_subscriber("nuevo", noting(heard), noting(handled))
    schema.migrate(conn, older)

    def publish() -> None:
        with psycopg.connect(database, autocommit=True) as mine:
            while not over.wait(0.002):  # an unhurried publisher
                published.extend(tell(mine))

    async def scene() -> None:
        old, new = (Worker(each, quick(database)) for each in (older, newer))
        working_old = asyncio.create_task(old.run())
        publishing = asyncio.create_task(asyncio.to_thread(publish))
        await until_async(lambda: len(handled) > 20)
        schema.migrate(conn, newer)
        after = value(conn, "select max(id) from cauce.eventos")
        await until_async(lambda: sum(evento > after for evento in handled) > 20)
        working_new = asyncio.create_task(new.run())
        await until_async(lambda: any(evento > after for evento in heard))
        old.stop()
        await working_old
        over.set()
        await publishing
        await until_async(lambda: settled(conn))
        new.stop()
        await working_new
        assert {evento for evento in published if evento > after} <= set(heard)

    asyncio.run(scene())
    assert sorted(handled) == sorted(published)
    assert len(heard) == len(set(heard))
    assert set(states(conn)) == {"procesado"}


async def test_a_migrate_between_a_claim_and_its_fan_out_loses_nothing(conn: Conn, database: str) -> None:
    """What was claimed before it goes to those of before; the next batch of the same worker goes to those of after."""
    older, newer = bus(), with_subscriber("nuevo", quiet)
    schema.migrate(conn, older)
    given_back = "select evento from cauce.entregas where suscriptor = 'nuevo' and intentos = 0 order by evento"

    async with process(older, quick(database)) as shared:
        runner = Runner(shared, "principal")
        warm = tell(conn)
        batch = await runner.claim()
        assert batch
        assert await runner.run(batch, lambda: 0) is None  # it has read the subscriptions
        before = tell(conn)
        batch = await runner.claim()
        schema.migrate(conn, newer)
        after = tell(conn)
        assert batch
        assert batch.ids == before
        batch = await runner.run(batch, lambda: 10)
        assert batch
        assert batch.ids == after
        assert column(conn, given_back) == []
        await runner.run(batch, lambda: 0)
        assert column(conn, given_back) == after
        assert states(conn) == {"procesado": len(warm + before), "en_proceso": len(after)}


def test_a_claim_that_began_before_a_migrate_tells_of_it(conn: Conn, connect: Callable[..., Conn]) -> None:
    """It waits for another claim; meanwhile a subscriber comes and an event after it: the claim gets both."""
    schema.migrate(conn, bus())
    first, second = connect(autocommit=False), connect()
    before = value(conn, "select version from cauce.grupos where grupo = 'principal'")
    tell(conn)
    assert claim(first)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(claim, second)
        until(lambda: value(conn, "select cardinality(pg_blocking_pids(%s)) > 0", second.info.backend_pid))
        schema.migrate(conn, with_subscriber("nuevo", quiet))
        (evento,) = tell(conn)
        first.commit()
        batch = waiting.result()
    assert batch.ids == [evento]
    assert batch.rows[-1].version > before
    assert batch.rows[-1].version == value(conn, "select version from cauce.grupos where grupo = 'principal'")


def test_the_version_tells_of_changes_in_its_group_alone(conn: Conn) -> None:
    """A deploy that changes nothing, or only another group, makes no worker read its subscriptions again."""

    def versions() -> dict[str, int]:
        return dict(conn.execute("select grupo::text, version from cauce.grupos").fetchall())

    apart = Subscriber("s", PruebaEvents.una.handled_by(quiet), grupo="aparte")
    schema.migrate(conn, bus())
    begun = versions()["principal"]
    schema.migrate(conn, bus())
    schema.migrate(conn, bus(subscribers=[apart]))
    assert versions()["principal"] == begun
    aside = versions()["aparte"]
    schema.migrate(conn, bus())
    assert versions() == {"principal": begun, "aparte": aside + 1}
    schema.migrate(conn, with_subscriber("nuevo", quiet))
    assert versions() == {"principal": begun + 1, "aparte": aside + 1}


def test_a_removed_subscriber_gets_nothing_more_from_an_older_worker(conn: Conn, database: str) -> None:
    """The deploy says who is due, also to a worker that still has the subscriber, even one that starts again."""
    calls: list[int] = []
    older = with_subscriber("viejo", noting(calls))
    schema.migrate(conn, older)
    (first,) = tell(conn)
    work(older, quick(database), lambda: settled(conn))
    schema.migrate(conn, bus())
    tell(conn, 3)
    work(older, quick(database), lambda: settled(conn))
    assert calls == [first]
    assert states(conn) == {"procesado": 4}
    assert value(conn, "select count(*) from cauce.entregas") == 0


def test_what_a_removed_subscriber_left_ends_in_error_and_comes_back_with_it(conn: Conn, database: str) -> None:
    """Its waiting retry is dead, for what reason and what to do; deployed again, it can be retried."""
    calls: list[int] = []
    older = with_subscriber("viejo", noting(calls))
    schema.migrate(conn, older)
    (evento,) = tell(conn)
    settle(conn, claim(conn), [outcome(evento, "viejo", "reintentar", espera=0)])
    schema.migrate(conn, bus())
    work(bus(), quick(database), lambda: settled(conn))
    assert states(conn) == {"error": 1}
    error = value(conn, "select ultimo_error from cauce.eventos")
    assert error.startswith("a deploy removed subscriber 'viejo' of prueba/una on 20")
    assert error.endswith("cauce dismiss --grupo principal --suscriptor viejo")
    schema.migrate(conn, older)
    assert value(conn, "select cauce.reintentar(%s)", evento) == 1
    work(older, quick(database), lambda: settled(conn))
    assert calls == [evento]
    assert states(conn) == {"procesado": 1}


def test_an_event_whose_handler_a_deploy_removed_is_an_error_and_says_so(conn: Conn, database: str) -> None:
    """It does not wait for a newer program, though the catalog still has it."""
    schema.migrate(conn, bus())
    conn.execute("update cauce.suscripciones set retirada_en = now() where tipo = 'otra'")
    conn.execute("update cauce.grupos set version = version + 1")
    tell(conn, tipo=PruebaEvents.otra)
    work(bus(), quick(database), lambda: settled(conn))
    assert states(conn) == {"error": 1}
    assert "no handler for prueba/otra: a deploy removed it on 20" in value(
        conn, "select ultimo_error from cauce.eventos"
    )


def test_a_worker_that_has_a_new_subscriber_brings_it_along_without_a_deploy(conn: Conn, database: str) -> None:
    """One that was never stored is added at the start of its worker: the older one gives its deliveries back."""
    older = bus()
    schema.migrate(conn, older)

    async def scene() -> None:
        async with process(older, quick(database)) as shared:
            runner = Runner(shared, "principal")
            schema.save_catalog(conn, with_subscriber("nuevo", quiet), replace=False)
            tell(conn)
            batch = await runner.claim()
            assert batch
            await runner.run(batch, lambda: 0)

    asyncio.run(scene())
    assert column(conn, "select suscriptor from cauce.entregas") == ["nuevo"]
