"""Marks: a claim of retries begins where the last one ended, and missed retries are found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from time import monotonic
from typing import Final

import pytest

from cauce.engine.upkeep import Upkeep
from tests.integration.engine.kit import Conn, claim, outcome, publish, quick, settle, until, until_blocked, value

PAUSE: Final = """
create or replace view cauce.en_mano as
select l.id lote, l.grupo, u.evento, u.suscriptor, l.trabajador, l.tomado_en, l.arriendo_hasta
  from cauce.lotes l cross join lateral unnest(l.reintentos, l.suscriptores) u(evento, suscriptor)
 union all
select 0, 'principal', 0, '', '', now(), now() from pg_advisory_xact_lock_shared(1) v where v::text = 'never'
"""
"""Makes every query of en_mano wait for advisory lock 1, with its snapshot already taken."""


def failed(conn: Conn, count: int = 1) -> list[int]:
    """Publish events and let their first attempt fail; they are due again."""
    events = publish(conn, count)
    settle(conn, claim(conn), [outcome(event, "s", "reintentar", espera=0) for event in events])
    return events


def look_back(conn: Conn) -> int:
    """Look for missed retries before the marks."""
    return int(value(conn, "select cauce.repasar_reintentos('principal')"))


def test_a_retry_whose_settlement_commits_late_is_found(conn: Conn, connect: Callable[..., Conn]) -> None:
    """A claim moves past its due time meanwhile; upkeep makes it due again, and nothing else."""
    (late,) = publish(conn)
    batch = claim(conn)
    other = connect()
    with other.transaction():
        settle(other, batch, [outcome(late, "s", "reintentar", espera=0)])
        failed(conn)
        held = claim(conn)
        assert held
    assert not claim(conn)
    assert look_back(conn) == 1
    found: list[int] = []

    def claimed() -> list[int]:
        found.extend(claim(conn).ids)
        return found

    until(claimed, "the retry that was passed by")
    assert found == [late]
    settle(conn, held, [outcome(row.id, "s", "hecha", 2) for row in held.rows])


def test_a_worker_looks_back_to_its_last_look(conn: Conn, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of an hour, in which the mark has moved on: at once, not by lot."""
    (passed, _) = failed(conn, 2)
    assert claim(conn, 2).ids == [passed]
    conn.execute("delete from cauce.lotes")
    conn.execute(
        "update cauce.entregas set proximo_en = proximo_en - interval '15 minutes' where evento = %s", (passed,)
    )

    async def look() -> None:
        async with aclosing(Upkeep(quick(database), "w", ["principal"])) as upkeep:
            monkeypatch.setattr("cauce.engine.upkeep.monotonic", lambda: monotonic() + 900)
            await upkeep.once()

    asyncio.run(look())
    assert value(conn, "select proximo_en > now() - interval '1 minute' from cauce.entregas where evento = %s", passed)


def test_what_is_in_hand_is_not_brought_back(conn: Conn) -> None:
    """It lies before the mark as well."""
    failed(conn, 3)
    assert claim(conn, 4)
    assert look_back(conn) == 0


def test_a_clock_that_was_set_back_stops_no_retry(conn: Conn) -> None:
    """The mark lies an hour ahead of the clock: the lane begins again, without what is in hand."""
    (held,) = failed(conn)
    batch = claim(conn)
    assert batch.ids == [held]
    conn.execute("update cauce.marcas set proximo_en = proximo_en + interval '1 hour'")
    (waiting,) = failed(conn)
    assert not claim(conn)
    look_back(conn)
    assert claim(conn).ids == [waiting]
    settle(conn, batch, [outcome(held, "s", "reintentar", 2, espera=0)])
    assert claim(conn).ids == [held]


def test_what_is_settled_while_a_clock_that_was_set_back_is_noticed_stays_due(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """The look waits for the settlement, and then the delivery is in nobody's hands."""
    (event,) = failed(conn)
    batch = claim(conn)
    conn.execute("update cauce.marcas set proximo_en = proximo_en + interval '1 hour'")
    settling, looking = connect(), connect()
    with ThreadPoolExecutor(1) as pool:
        with settling.transaction():
            settle(settling, batch, [outcome(event, "s", "reintentar", 2, espera=0)])
            look = pool.submit(look_back, looking)
            until_blocked(conn, looking.info.backend_pid)
        look.result()
    assert claim(conn).ids == [event]


def test_what_is_settled_while_the_look_waits_for_another_stays_due(conn: Conn, connect: Callable[..., Conn]) -> None:
    """It came into a lote after the look had listed what is in hand, and is in none any more when the look writes."""
    (held,) = failed(conn)
    assert claim(conn).ids == [held]
    (event,) = publish(conn)
    batch = claim(conn)
    conn.execute("update cauce.marcas set proximo_en = proximo_en + interval '1 hour'")
    operator, settling, looking = connect(), connect(), connect()
    with ThreadPoolExecutor(1) as pool:
        with settling.transaction():
            with operator.transaction():
                operator.execute("select cauce.reintentar(%s)", (held,))
                look = pool.submit(look_back, looking)
                until_blocked(conn, looking.info.backend_pid)
                settle(conn, batch, [outcome(event, "s", "retenida")])
                settle(settling, batch, [outcome(event, "s", "reintentar", espera=0)], ids=[])
            until(lambda: look.done() or blocks(conn, settling, looking), "the end of the look, or of its way")
        look.result()
    assert claim(conn).ids == [event]


def blocks(observer: Conn, one: Conn, other: Conn) -> bool:
    """Whether one waits for the other."""
    pids = value(observer, "select pg_blocking_pids(%s)", other.info.backend_pid)
    return one.info.backend_pid in pids


def test_what_is_claimed_while_a_look_goes_on_is_not_brought_back(conn: Conn, connect: Callable[..., Conn]) -> None:
    """The clock was set back: another look puts the mark back, and a claim takes what this one has just found."""
    (passed, _) = failed(conn, 2)
    assert claim(conn, 2).ids == [passed]
    conn.execute("delete from cauce.lotes")
    conn.execute(PAUSE)
    conn.execute("select pg_advisory_lock(1)")
    looking = connect()
    with ThreadPoolExecutor(1) as pool:
        look = pool.submit(look_back, looking)
        until_blocked(conn, looking.info.backend_pid)
        conn.execute(
            "insert into cauce.marcas"
            " select grupo, aplicacion, sospechosas, prioridad, n + 1, '-infinity', 0, '' from cauce.marcas"
        )
        assert claim(conn, 2).ids == [passed]
        conn.execute("select pg_advisory_unlock(1)")
        assert look.result() == 0


def test_what_was_passed_by_long_ago_is_found_by_lot(conn: Conn) -> None:
    """A minute behind the mark; a look goes back ten seconds, and sometimes further."""
    (passed, _) = failed(conn, 2)
    assert claim(conn, 2).ids == [passed]
    conn.execute("delete from cauce.lotes")
    conn.execute("update cauce.entregas set proximo_en = proximo_en - interval '1 minute' where evento = %s", (passed,))

    def look(lot: int) -> int:
        conn.execute("select setseed(%s)", (lot / 20,))
        return look_back(conn)

    assert sum(look(lot) for lot in range(20)) == 1


def test_a_look_back_does_not_wait_for_an_operator(conn: Conn, connect: Callable[..., Conn]) -> None:
    """A row that an operator has locked is skipped."""
    (passed, _) = failed(conn, 2)
    assert claim(conn, 2).ids == [passed]
    conn.execute("delete from cauce.lotes")
    conn.execute("set lock_timeout = '5s'")
    operator = connect()
    with operator.transaction():
        operator.execute("select cauce.reintentar(%s)", (passed,))
        assert look_back(conn) == 0
