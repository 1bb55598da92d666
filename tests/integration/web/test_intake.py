"""Deliveries that come at the same time are stored together, and each is answered for itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import psycopg
import pytest

from cauce.database import inbox as inbox_table
from cauce.database.inbox import InboxRow, Stored
from cauce.testing import wait_for_async
from cauce.web import intake
from cauce.web.connections import HttpConnections
from cauce.web.intake import Intake
from tests.integration.web.conftest import Inbox

LOCKED = "select count(*) n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
STORED = "select array_agg(id_externo order by id) ids from cauce.eventos group by tx order by min(id)"


def rows(*ids: str, payload: str = "{}") -> list[InboxRow]:
    """Return a delivery of these ids."""
    return [InboxRow("acme", "hecho", one, payload, None, "{}", None) for one in ids]


def run(inbox: Inbox, work: Callable[[Intake], Awaitable[Any]]) -> Any:
    """Run work with an intake, on connections of its own."""

    async def session() -> Any:
        connections = HttpConnections(inbox.settings)
        into = Intake(connections)
        try:
            return await asyncio.wait_for(work(into), 30)
        finally:
            await into.finish()
            await connections.close()

    return asyncio.run(session())


@contextlib.asynccontextmanager
async def busy_writers(inbox: Inbox, into: Intake) -> AsyncGenerator[list[asyncio.Future[list[Stored]]]]:
    """Keep every writer waiting for the table, each with a delivery of its own; wait for these in the end."""
    ahead: list[asyncio.Future[list[Stored]]] = []
    async with await psycopg.AsyncConnection.connect(inbox.settings.database_url) as holder:
        await holder.execute("lock table cauce.eventos in access exclusive mode")
        while len(ahead) < intake.WRITERS:
            ahead.append(asyncio.ensure_future(into.store(rows(f"ahead_{len(ahead)}"))))
            await wait_for_async(lambda: inbox.query(LOCKED)[0]["n"] == len(ahead))
        yield ahead
    await asyncio.gather(*ahead, return_exceptions=True)


async def gathered(inbox: Inbox, into: Intake, *deliveries: list[InboxRow]) -> list[list[Stored] | BaseException]:
    """Store deliveries that all came while the writers were busy."""
    async with busy_writers(inbox, into):
        behind = [asyncio.ensure_future(into.store(one)) for one in deliveries]
        await asyncio.sleep(0)  # they are in the queue now
    return await asyncio.gather(*behind, return_exceptions=True)


def transactions(inbox: Inbox) -> list[list[str]]:
    """Return the ids that each transaction stored, but for those ahead."""
    found = [row["ids"] for row in inbox.query(STORED)]
    return [ids for ids in found if not ids[0].startswith("ahead")]


def test_those_that_wait_are_stored_in_one_transaction(inbox: Inbox) -> None:
    """Thirty behind two busy writers: one transaction, in the order they came, each with its own answer."""
    ids = [f"id_{n:02}" for n in range(30)]
    results = run(inbox, lambda into: gathered(inbox, into, *(rows(one) for one in ids)))
    assert transactions(inbox) == [ids]
    by_id = {row["id_externo"]: row["id"] for row in inbox.events()}
    assert results == [[Stored(by_id[one], duplicado=False)] for one in ids]


def test_a_delivery_with_several_events_gets_its_own_results(inbox: Inbox) -> None:
    """What was there already, once or twice in the same transaction, is told from what is new."""
    run(inbox, lambda into: into.store(rows("old")))
    results = run(inbox, lambda into: gathered(inbox, into, rows("a", "b"), rows("b", "old"), rows("c", "c")))
    duplicates = [[stored.duplicado for stored in delivery] for delivery in results]
    assert duplicates == [[False, False], [True, True], [False, True]]
    assert transactions(inbox) == [["old"], ["a", "b", "c"]]


def test_one_that_is_refused_keeps_nobody_out(inbox: Inbox) -> None:
    """An error of one delivery's rolls back the transaction of all; then each is stored by itself."""
    with psycopg.connect(inbox.settings.database_url) as conn:
        conn.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not it'; end $$;"
            " create trigger refuse before insert on cauce.eventos for each row when (new.id_externo = 'bad')"
            " execute function refuse()"
        )
    good, bad, late = run(inbox, lambda into: gathered(inbox, into, rows("good"), rows("bad"), rows("late")))
    assert isinstance(bad, psycopg.errors.RaiseException)
    assert [good[0].duplicado, late[0].duplicado] == [False, False]
    assert transactions(inbox) == [["good"], ["late"]]


def test_one_that_postgresql_cannot_hold_is_kept_raw_beside_the_others(inbox: Inbox) -> None:
    """Its payload stays in bytes and in error, as it does when it comes alone."""
    run(inbox, lambda into: gathered(inbox, into, rows("good"), rows("nul", payload='"\\u0000"')))
    kept = {row["id_externo"]: (row["estado"], row["cuerpo"]) for row in inbox.events()}
    assert kept["good"] == ("pendiente", None)
    assert kept["nul"] == ("error", b'"\\u0000"')


def test_a_transaction_is_bounded(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of its deliveries, and by their bytes; a delivery larger than that goes alone."""
    monkeypatch.setattr(inbox_table, "MOST_ROWS", 3)
    monkeypatch.setattr(intake, "MOST_BYTES", 100)
    large = '"' + "x" * 200 + '"'
    many = [rows(f"id_{n}") for n in range(4)]
    run(inbox, lambda into: gathered(inbox, into, *many, rows("large", payload=large), rows("last")))
    assert sorted(transactions(inbox)) == [["id_0", "id_1", "id_2"], ["id_3"], ["large"], ["last"]]


def test_one_that_waits_for_a_lock_holds_nobody_up(inbox: Inbox) -> None:
    """Somebody has not committed the same event yet; others, those in the queue and those that come later, go ahead."""

    async def work(into: Intake) -> list[Stored]:
        async with await psycopg.AsyncConnection.connect(inbox.settings.database_url) as holder:
            await holder.execute(
                "insert into cauce.eventos (origen, tipo, payload, id_externo) values ('acme', 'x', '{}', 'held')"
            )
            held = asyncio.ensure_future(into.store(rows("held")))
            await asyncio.sleep(0)  # its writer comes before the others now
            await asyncio.gather(into.store(rows("queued")), into.store(rows("queued too")))
            await into.store(rows("later"))
            assert not held.done()
        return await held

    assert [stored.duplicado for stored in run(inbox, work)] == [True]
    assert transactions(inbox) == [["held"], ["queued", "queued too"], ["later"]]


def test_whoever_waited_too_long_is_told(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its turn came after the time that a request may wait; nothing of it is stored."""

    async def work(into: Intake) -> BaseException | list[Stored]:
        async with busy_writers(inbox, into):
            late = asyncio.ensure_future(into.store(rows("late")))
            await asyncio.sleep(0)  # it is in the queue now
            monkeypatch.setattr(intake, "DATABASE_SECONDS", 0)
        return (await asyncio.gather(late, return_exceptions=True))[0]

    with pytest.raises(psycopg.OperationalError, match="waited 0 s to be stored"):
        raise run(inbox, work)
    assert transactions(inbox) == []


def test_a_request_that_was_given_up_is_not_stored(inbox: Inbox) -> None:
    """Unless it was on its way already; and those beside it are."""

    async def work(into: Intake) -> None:
        async with busy_writers(inbox, into) as ahead:
            behind = [asyncio.ensure_future(into.store(rows(one))) for one in ("given_up", "kept")]
            await asyncio.sleep(0)  # they are in the queue now
            ahead[0].cancel()
            behind[0].cancel()
        await behind[1]

    run(inbox, work)
    assert transactions(inbox) == [["kept"]]
    assert len(inbox.events()) == intake.WRITERS + 1


def test_nothing_is_left_behind_by_a_writer_that_ends(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that comes at the very moment when the only writer has nothing left is stored all the same."""
    monkeypatch.setattr(intake, "WRITERS", 1)

    async def work(into: Intake) -> None:
        for number in range(50):
            await into.store(rows(f"id_{number}"))

    run(inbox, work)
    assert len(inbox.events()) == 50


def test_a_delivery_of_more_events_than_a_statement_takes_is_stored_whole(inbox: Inbox) -> None:
    """In pieces of one transaction, in order."""
    ids = [f"id_{n:03}" for n in range(2 * inbox_table.MOST_ROWS + 1)]
    stored = run(inbox, lambda into: into.store(rows(*ids)))
    assert transactions(inbox) == [ids]
    assert [one.id for one in stored] == [row["id"] for row in inbox.events()]


def test_an_event_gets_the_lane_and_the_key_of_the_catalog(inbox: Inbox) -> None:
    """As one that is inserted by hand does: its own row's, else its origin's priority, else 5."""
    with psycopg.connect(inbox.settings.database_url) as conn:
        conn.execute("insert into cauce.catalogo values ('acme', 'own', 1, 'who'), ('acme', '*', 2, null)")
    kinds = [("acme", "own"), ("acme", "other"), ("nobody", "x")]
    received = [InboxRow(origen, tipo, tipo, '{"who": "me"}', None, "{}", None) for origen, tipo in kinds]
    run(inbox, lambda into: into.store(received))
    by_hand = 'insert into cauce.eventos (origen, tipo, payload) values (%s, %s, \'{"who": "me"}\') returning id'
    for kind in kinds:
        inbox.query(by_hand, *kind)
    found = [(row["prioridad"], row["carril"], row["clave"]) for row in inbox.events()]
    assert found[:3] == found[3:] == [(1, 1, "me"), (2, 2, None), (5, 5, None)]


def test_an_event_loop_that_ends_in_the_middle_leaves_the_next_one_a_way_in(inbox: Inbox) -> None:
    """It cancels the writer; a server that starts the application again does not wait for that one."""
    connections = HttpConnections(inbox.settings)
    into = Intake(connections)

    async def begin() -> None:
        asyncio.ensure_future(into.store(rows("cut")))  # noqa: RUF006 - the loop's end is what ends it
        await wait_for_async(lambda: inbox.query(LOCKED)[0]["n"] == 1)

    async def go_on() -> None:
        await asyncio.wait_for(into.store(rows("next")), 30)
        await connections.close()

    with psycopg.connect(inbox.settings.database_url) as holder:
        holder.execute("lock table cauce.eventos in access exclusive mode")
        asyncio.run(begin())
    asyncio.run(go_on())
    assert "next" in [row["id_externo"] for row in inbox.events()]


def test_a_delivery_without_events_needs_no_database(inbox: Inbox) -> None:
    """There is nothing to store."""
    assert run(inbox, lambda into: into.store([])) == []
    assert inbox.events() == []
