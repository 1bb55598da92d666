"""What a worker makes of its handlers: every shape, every way to fail, and effects exactly once (DESIGN section 4)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, Connection

from cauce import Attempt, Discard, Evento, RetryAfter, Subscriber
from cauce.database import claims, schema
from cauce.engine.runner import Runner
from cauce.engine.worker import process
from tests.integration.engine.kit import Conn, column, quick, states, until, value, work
from tests.integration.engine.scenery import (
    Cosa,
    PruebaEvents,
    bus,
    effect,
    effects,
    make_effects,
    quiet,
    settled,
    sync_effect,
    tell,
)


def errors(conn: Conn) -> list[str]:
    """Return the errors of all failures, oldest first."""
    return column(conn, "select error from cauce.fallos order by id")


def test_handlers_of_every_shape_run_once(conn: Conn, database: str) -> None:
    """Async and sync; alone, with `tx`, with the attempt; the effects are there when the event is `procesado`."""
    make_effects(conn)
    seen: list[tuple[str, Any]] = []

    async def with_attempt(evento: Evento[Cosa], attempt: Attempt) -> None:
        seen.append((attempt.idempotency_key, attempt))
        assert evento.payload.n == 0

    def sync(evento: Evento[Cosa]) -> None:
        seen.append(("sync", threading.current_thread() is not threading.main_thread() and evento.intentos))

    def sync_with_attempt(_: Evento[Cosa], attempt: Attempt) -> None:
        seen.append((attempt.idempotency_key, attempt))

    listeners: dict[str, Any] = {"a": effect, "b": sync_effect, "c": with_attempt, "d": sync, "e": sync_with_attempt}
    subscribers = [Subscriber(n, PruebaEvents.una.handled_by(h)) for n, h in listeners.items()]
    (evento,) = tell(conn)
    work(bus(subscribers=subscribers), quick(database), lambda: settled(conn))
    assert sorted(column(conn, "select quien from efectos")) == ["async", "sync"]
    found = dict(seen)
    assert len(seen) == 3
    assert found["sync"] == 1
    assert found[f"{evento}:principal:c"] == Attempt(1, False, "c", "principal", f"{evento}:principal:c")  # noqa: FBT003 - `last`
    assert f"{evento}:principal:e" in found
    assert states(conn) == {"procesado": 1}


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
def test_one_failing_handler_in_a_batch_fails_alone(conn: Conn, database: str, *, sync: bool) -> None:
    """All of the batch rolls back, the second pass finds the one that fails; the first spends no attempt of anybody."""
    make_effects(conn)
    attempts: list[int] = []

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        if evento.payload.n == 5:
            attempts.append(evento.intentos)
            if evento.intentos < 3:
                raise ValueError("not yet")

    def sync_handler(evento: Evento[Cosa], tx: Connection[Any]) -> None:
        for _ in range(8):  # more often than psycopg takes before it prepares a statement
            tx.execute("select 1")
        sync_effect(evento, tx)
        if evento.payload.n == 5:
            attempts.append(evento.intentos)
            if evento.intentos < 3:
                raise ValueError("not yet")

    events = tell(conn, 10)
    work(bus(sync_handler if sync else handler), quick(database), lambda: settled(conn))
    assert effects(conn) == events
    assert attempts == [1, 1, 2, 3]
    assert column(conn, "select intentos from cauce.eventos order by id") == [1] * 5 + [3] + [1] * 4
    assert errors(conn) == ["ValueError: not yet"] * 2


def test_a_failing_subscriber_makes_nobody_elses_work_run_again(conn: Conn, database: str) -> None:
    """Handler and subscribers, with and without `tx`: only the one that fails is tried again."""
    make_effects(conn)
    calls: Counter[str] = Counter()

    async def plain(_: Evento[Cosa]) -> None:
        calls["plain"] += 1

    async def fails(_: Evento[Cosa]) -> None:
        calls["fails"] += 1
        raise ValueError("never")

    async def fails_inside(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        calls["fails_inside"] += 1
        await effect(evento, tx)
        raise ValueError("never")

    subscribers = [
        Subscriber("plain", PruebaEvents.una.handled_by(plain)),
        Subscriber("fails", PruebaEvents.una.handled_by(fails)),
        Subscriber("fails_inside", PruebaEvents.una.handled_by(fails_inside)),
    ]
    events = tell(conn, 3)
    over = "select count(*) = 6 from cauce.entregas where estado = 'error'"
    work(bus(effect, subscribers=subscribers), quick(database), lambda: value(conn, over))
    assert effects(conn) == events
    assert calls["plain"] == 3
    assert calls["fails"] == 9
    assert 9 <= calls["fails_inside"] <= 9 + 3  # first passes spend no attempt
    assert value(conn, "select count(*) from cauce.fallos where suscriptor = 'fails_inside'") == 9
    assert states(conn) == {"error": 3}
    assert column(conn, "select distinct intentos from cauce.eventos") == [3]


def test_a_delivery_dies_after_the_attempts_of_its_policy(conn: Conn, database: str) -> None:
    """The last attempt says that it is the last; the failures are all kept, with tracebacks; the hook hears of each."""
    heard: list[tuple[str, int, bool]] = []

    def hook(error: BaseException, evento: Evento[Any], attempt: Attempt) -> None:
        assert evento.tipo == "una"
        heard.append((str(error), attempt.number, attempt.last))
        raise RuntimeError("a hook's failure is its own")

    async def handler(_: Evento[Cosa]) -> None:
        raise ValueError("\0 never \ud800")

    tell(conn)
    work(bus(handler, on_error=hook), quick(database), lambda: settled(conn))
    assert heard == [("\0 never \ud800", n, n == 3) for n in (1, 2, 3)]
    assert states(conn) == {"error": 1}
    assert errors(conn) == ["ValueError: \\0 never \\ud800"] * 3
    assert "in handler" in value(conn, "select traza from cauce.causas")


def test_discard_ends_a_delivery_at_once(conn: Conn, database: str) -> None:
    """No more attempts, with the reason."""
    calls: list[int] = []

    async def handler(evento: Evento[Cosa]) -> None:
        calls.append(evento.id)
        raise Discard("makes no sense")

    async def inside(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        calls.append(evento.id)
        raise Discard("makes no sense")

    make_effects(conn)
    events = tell(conn) + tell(conn, tipo=PruebaEvents.otra)
    work(bus(handler, other=inside), quick(database), lambda: settled(conn))
    assert sorted(calls) == events
    assert effects(conn) == []
    assert states(conn) == {"error": 2}
    assert errors(conn) == ["Discard: makes no sense"] * 2


@pytest.mark.parametrize("seconds", [0.0, 3600.0, 1e300, float("inf"), float("nan"), -1.0])
def test_retry_after_says_when(conn: Conn, database: str, seconds: float) -> None:
    """The next attempt is due when the handler asked for it; a time that makes no sense does no harm."""

    async def handler(evento: Evento[Cosa]) -> None:
        if evento.intentos == 1:
            raise RetryAfter(seconds)

    tell(conn)
    fact = "select count(*) > 0 from cauce.fallos"
    work(bus(handler), quick(database), lambda: value(conn, fact))
    assert value(conn, "select count(*) from cauce.fallos") == 1
    wait = column(conn, "select extract(epoch from proximo_en - clock_timestamp())::float8 from cauce.entregas")
    if seconds >= 3600:
        assert wait[0] > 3500
        assert states(conn) == {"en_proceso": 1}
    else:
        assert wait == [] or wait[0] < 1


class UnspeakableError(Exception):
    """An error that cannot even be said."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


def exits(_: Evento[Cosa]) -> None:
    """Try to end the process."""
    raise SystemExit(3)


def stops(_: Evento[Cosa]) -> None:
    """Raise StopIteration, as `next` does at the end of an iterator."""
    raise StopIteration


def unspeakable(_: Evento[Cosa]) -> None:
    """Raise an error whose `str` fails."""
    raise UnspeakableError


async def exits_async(_: Evento[Cosa]) -> None:
    """Try to end the process."""
    raise SystemExit(3)


async def cancels_itself(_: Evento[Cosa]) -> None:
    """Let a CancelledError of its own escape."""
    raise asyncio.CancelledError


async def unspeakable_async(_: Evento[Cosa]) -> None:
    """Raise an error whose `str` fails."""
    raise UnspeakableError


async def exits_inside(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Try to end the process in the middle of a transaction."""
    await effect(evento, tx)
    raise SystemExit(3)


async def cancels_itself_inside(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Let a CancelledError of its own escape in the middle of a transaction."""
    await effect(evento, tx)
    raise asyncio.CancelledError


async def aborts(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Swallow an SQL error, and leave the transaction aborted."""
    await effect(evento, tx)
    with contextlib.suppress(psycopg.Error):
        await tx.execute("select 1/0")


async def commits(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Try to commit."""
    await effect(evento, tx)
    await tx.commit()


def commits_sync(evento: Evento[Cosa], tx: Connection[Any]) -> None:
    """Try to commit."""
    sync_effect(evento, tx)
    tx.commit()


def closes_sync(evento: Evento[Cosa], tx: Connection[Any]) -> None:
    """Try to close."""
    sync_effect(evento, tx)
    tx.close()


def stops_inside(evento: Evento[Cosa], tx: Connection[Any]) -> None:
    """Raise StopIteration, as `next` does at the end of an iterator."""
    sync_effect(evento, tx)
    raise StopIteration


@pytest.mark.parametrize(
    "handler",
    [
        exits,
        stops,
        unspeakable,
        exits_async,
        cancels_itself,
        unspeakable_async,
        exits_inside,
        cancels_itself_inside,
        aborts,
        commits,
        commits_sync,
        closes_sync,
        stops_inside,
    ],
)
def test_whatever_a_handler_raises_is_its_own_failure(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """It ends in `error` after its attempts, none of its effects are kept, and the worker goes on with the others."""
    make_effects(conn)
    bad, good = tell(conn, 2), tell(conn, 5, PruebaEvents.otra)
    work(bus(handler, other=effect, timeout=20), quick(database), lambda: settled(conn))
    assert column(conn, "select distinct estado::text from cauce.eventos where tipo = 'una'") == ["error"]
    assert value(conn, "select count(*) from cauce.fallos") == 3 * len(bad)
    assert effects(conn) == good


def test_a_swallowed_sql_error_is_named(conn: Conn, database: str) -> None:
    """The handler that left its transaction aborted is told so; PostgreSQL would only refuse what comes after."""
    make_effects(conn)
    tell(conn)
    work(bus(aborts), quick(database, max_attempts=1), lambda: settled(conn))
    assert "it must not suppress an SQL error" in errors(conn)[0]


async def slow(_: Evento[Cosa]) -> None:
    """Never end."""
    await asyncio.Event().wait()


async def slow_inside(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Never end, in the server."""
    await effect(evento, tx)
    await tx.execute("select pg_sleep(600)")


def slow_sync(_: Evento[Cosa]) -> None:
    """Take much longer than allowed; a thread cannot be stopped."""
    threading.Event().wait(1)


def slow_sync_inside(evento: Evento[Cosa], tx: Connection[Any]) -> None:
    """Never end, in the server, from a thread."""
    sync_effect(evento, tx)
    tx.execute("select pg_sleep(600)")


@pytest.mark.parametrize("handler", [slow, slow_inside, slow_sync, slow_sync_inside])
def test_a_handler_that_takes_too_long_is_stopped(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """It has failed with a timeout, nothing of it is kept, and the others are processed."""
    make_effects(conn)
    tell(conn)
    good = tell(conn, 5, PruebaEvents.otra)
    work(bus(handler, other=effect, timeout=0.15), quick(database, max_attempts=2), lambda: settled(conn))
    assert errors(conn) == ["TimeoutError: took longer than 0.15 s"] * 2
    assert effects(conn) == good
    assert states(conn) == {"error": 1, "procesado": 5}


def test_a_sync_handler_that_takes_too_long_loses_its_connection_at_once(
    conn: Conn, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is waited for only then: the statement that it runs ends in an error, and so does its thread."""
    monkeypatch.setattr("cauce.engine.dispatch.THREAD_SECONDS", 600.0)
    ended: list[BaseException] = []

    def never_ends(_: Evento[Cosa], tx: Connection[Any]) -> None:
        try:
            tx.execute("select pg_sleep(600)")
        except psycopg.OperationalError as error:
            ended.append(error)
            raise

    tell(conn)
    work(bus(never_ends, timeout=0.15), quick(database, max_attempts=1), lambda: settled(conn))
    assert len(ended) == 1
    assert errors(conn) == ["TimeoutError: took longer than 0.15 s"]


def test_a_handler_whose_connection_always_dies_fails_alone(conn: Conn, database: str) -> None:
    """A statement that kills its own server process is an ordinary failure; the worker does not retry it forever."""
    make_effects(conn)

    async def kills(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        await tx.execute("select pg_terminate_backend(pg_backend_pid())")

    (bad,) = tell(conn)
    good = tell(conn, 5, PruebaEvents.otra)
    work(bus(kills, other=effect), quick(database, max_attempts=2), lambda: settled(conn))
    assert effects(conn) == good
    assert value(conn, "select estado from cauce.eventos where id = %s", bad) == "error"
    assert value(conn, "select intentos from cauce.eventos where id = %s", bad) == 2


@pytest.mark.parametrize("count", [1, 3], ids=["alone", "beside others"])
def test_a_lost_connection_may_be_wrapped_in_an_error_of_the_handlers_own(
    conn: Conn, database: str, count: int
) -> None:
    """The handler turns psycopg's error into another: the connection is lost all the same, and the worker goes on."""
    make_effects(conn)
    first = iter([True])

    async def kills_once(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        try:
            await tx.execute("select pg_terminate_backend(pg_backend_pid())" if next(first, False) else "select 1")
        except psycopg.Error as error:
            raise ValueError("in my own words") from error

    events = tell(conn, count)
    work(bus(kills_once), quick(database), lambda: settled(conn))
    assert effects(conn) == events
    assert states(conn) == {"procesado": count}
    assert errors(conn) == []


def test_connections_cut_in_the_middle_of_tx_handlers_double_nothing(conn: Conn, database: str) -> None:
    """Backends are terminated again and again while handlers with `tx` run: every effect exactly once, no error."""
    make_effects(conn)
    cuts = iter(range(6))

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        if evento.payload.n % 40 == 39 and next(cuts, None) is not None:
            with psycopg.connect(database, autocommit=True) as other:
                other.execute("select pg_terminate_backend(%s)", (tx.info.backend_pid,))
            await tx.execute("select 1")

    events = tell(conn, 300)
    work(bus(handler), quick(database, batch_size=50), lambda: settled(conn))
    assert effects(conn) == events
    assert states(conn) == {"procesado": 300}


def test_outcomes_of_plain_handlers_survive_a_lost_connection(conn: Conn, database: str) -> None:
    """What ran outside any transaction is settled on the next connection, and does not run again."""
    calls: Counter[int] = Counter()

    async def handler(evento: Evento[Cosa]) -> None:
        calls[evento.id] += 1
        if evento.payload.n == 3:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid() and query like '%cauce.tomar%'"
            )

    events = tell(conn, 10)
    work(bus(handler), quick(database), lambda: settled(conn))
    assert calls == Counter(events)
    assert states(conn) == {"procesado": 10}


@pytest.mark.parametrize("transient", [False, True], ids=["steady", "transient"])
@pytest.mark.parametrize("moment", range(6))
def test_an_answer_lost_after_a_commit_repeats_no_effect(
    conn: Conn, database: str, monkeypatch: pytest.MonkeyPatch, moment: int, *, transient: bool
) -> None:
    """The connection dies when a settlement, whole or part, has committed and the worker cannot know: never twice.

    One of the batch fails, at its first call or in all of its first attempt, so that the batch is taken apart; `moment`
    counts the worker's settlements.
    """
    make_effects(conn)
    commits = iter(range(100))
    settle = claims.settle
    calls: Counter[int] = Counter()

    async def settle_and_lose(mine: psycopg.AsyncConnection[Any], *args: Any, **more: Any) -> None:
        await settle(mine, *args, **more)
        if next(commits) == moment:
            if mine.info.transaction_status.name == "INTRANS":
                await mine.execute("commit")
            await mine.close()
            raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr("cauce.database.claims.settle", settle_and_lose)

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        calls[evento.id] += 1
        if evento.payload.n == 1 and (calls[evento.id] == 1 if transient else evento.intentos == 1):
            raise ValueError("once")

    events = tell(conn, 4)
    # leases that outlast a hiccup of the machine, and a crash limit that a lost answer does not reach
    work(bus(handler), quick(database, lease_seconds=0.6, max_attempts=9), lambda: settled(conn))
    assert effects(conn) == events
    assert states(conn) == {"procesado": 4}


def test_an_event_in_hand_for_a_while_shows_as_in_process(conn: Conn, database: str) -> None:
    """After a second, while its handler runs, and its lease is renewed all the while."""
    release = threading.Event()

    def handler(_: Evento[Cosa]) -> None:
        release.wait(30)

    tell(conn)
    leases: set[object] = set()

    def shown_and_renewed() -> bool:
        leases.update(column(conn, "select arriendo_hasta from cauce.lotes"))
        if value(conn, "select estado from cauce.eventos") == "en_proceso" and len(leases) > 2:
            release.set()
        return settled(conn)

    work(bus(handler), quick(database, lease_seconds=0.9), shown_and_renewed)
    assert release.is_set()
    assert states(conn) == {"procesado": 1}
    assert value(conn, "select intentos from cauce.eventos") == 1


def test_a_blocked_event_loop_keeps_its_leases(conn: Conn, database: str) -> None:
    """A handler that blocks the loop for longer than a lease: the heartbeat has a thread of its own."""
    renewed: set[object] = set()

    def renewed_often() -> bool:
        renewed.update(column(conn, "select arriendo_hasta from cauce.lotes"))
        return len(renewed) > 3

    async def handler(_: Evento[Cosa]) -> None:
        until(renewed_often)

    tell(conn)
    work(bus(handler), quick(database, lease_seconds=0.6), lambda: len(renewed) > 3 and settled(conn))
    assert value(conn, "select intentos from cauce.eventos") == 1


def test_a_worker_reads_what_is_committed_whatever_the_databases_default(conn: Conn, database: str) -> None:
    """A database whose transactions are REPEATABLE READ unless they say otherwise: the worker's are READ COMMITTED."""
    make_effects(conn)
    conn.execute(
        "do $$ begin execute format('alter database %I set default_transaction_isolation = %L',"
        " current_database(), 'repeatable read'); end $$"
    )
    events = tell(conn, 20)
    work(bus(effect), quick(database), lambda: settled(conn))
    assert effects(conn) == events


def test_quiet_is_quiet(conn: Conn, database: str) -> None:
    """A bus on which nothing fails leaves no entregas, no fallos, no lotes."""
    tell(conn, 200)
    work(bus(quiet), quick(database), lambda: settled(conn))
    assert states(conn) == {"procesado": 200}
    assert value(conn, "select (select count(*) from cauce.entregas) + (select count(*) from cauce.fallos)") == 0


def test_after_a_lost_connection_the_next_claims_are_careful(conn: Conn, database: str) -> None:
    """Until a batch is settled: the next claimed events may have killed the server, and must be counted."""
    application, settings = bus(quiet), quick(database)
    with psycopg.connect(database, autocommit=True) as other:
        schema.migrate(other, application)
    tell(conn)

    async def scene() -> None:
        async with process(application, settings) as shared:
            runner = Runner(shared, "principal")
            batch = await runner.claim()
            assert batch is not None
            assert not runner.claiming.of(1).careful
            async with shared.connections.lend() as lent:
                await lent.close()
            assert runner.claiming.of(1).careful
            await runner.run(batch, lambda: 0)
            assert not runner.claiming.of(1).careful

    asyncio.run(scene())
    assert settled(conn)
