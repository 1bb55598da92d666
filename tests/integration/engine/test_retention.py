"""Retention: deletes what is old and processed, and nothing that any group still needs (review A7)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.integration.engine.kit import Conn, claim, column, drain, outcome, publish, settle, until_blocked, value


def prune(conn: Conn, most: int = 1000, older: str = "-1 hour") -> int:
    """Delete what was processed before an hour from now."""
    return int(value(conn, "select borrados from cauce.purgar(%s::interval, %s)", older, most))


def advance(conn: Conn, *groups: str) -> None:
    """Have groups open another window, as they do whenever something is published."""
    for _ in range(2):
        publish(conn)
        for grupo in groups:
            drain(conn, grupo=grupo)


def test_old_processed_events_go(conn: Conn) -> None:
    """Those that every group has left behind, with their failures, oldest first, at most so many."""
    old = publish(conn, 5)
    settle(conn, claim(conn), [outcome(old[0], "s", "reintentar", espera=0)])
    drain(conn)
    advance(conn, "principal")
    assert prune(conn, 2) == 2
    assert column(conn, "select id from cauce.eventos order by id")[:3] == old[2:]
    assert value(conn, "select count(*) from cauce.fallos") == 0
    assert prune(conn) >= 3


def test_a_dead_delivery_at_the_front_holds_nothing_up(conn: Conn) -> None:
    """More of them than one pruning looks at: those behind go all the same, and the next round begins at the front."""
    dead = publish(conn, 6)
    settle(conn, claim(conn), [outcome(evento, "s", "muerta") for evento in dead])
    done = publish(conn, 6)
    drain(conn)
    advance(conn, "principal")
    rounds = [conn.execute("select borrados, queda from cauce.purgar('-1 hour', 4)").fetchone() for _ in range(4)]
    assert rounds == [(0, True), (2, True), (4, True), (1, False)]
    left = column(conn, "select id from cauce.eventos order by id")
    assert left[:6] == dead
    assert not set(left) & set(done)
    conn.execute("select cauce.descartar(id) from cauce.eventos where estado = 'error'")
    assert prune(conn) == 6


def test_one_prunes_at_a_time(conn: Conn, connect: Callable[..., Conn]) -> None:
    """A second call at the same time deletes nothing and returns."""
    publish(conn, 5)
    drain(conn)
    advance(conn, "principal")
    other = connect()
    with other.transaction():
        assert prune(other, 2) == 2
        assert prune(conn) == 0
    assert prune(conn) >= 3


def test_what_is_not_old_enough_stays(conn: Conn) -> None:
    """By when it was processed."""
    publish(conn, 5)
    drain(conn)
    advance(conn, "principal")
    assert prune(conn, older="1 hour") == 0


def test_what_another_group_has_not_read_stays(conn: Conn) -> None:
    """A slow group gets everything, however long ago `principal` was done with it (review A7)."""
    conn.execute("select cauce.crear_grupo('lento')")
    published = publish(conn, 5)
    drain(conn)
    advance(conn, "principal")
    assert prune(conn) == 0
    assert drain(conn, grupo="lento")[:5] == published
    advance(conn, "principal", "lento")
    assert prune(conn) >= 5


def test_a_group_that_finds_nothing_for_long_holds_nothing_up(conn: Conn) -> None:
    """Its position moves on although no event comes: retention keeps what lies in the window it was last in."""
    published = publish(conn, 5)
    assert drain(conn) == published
    assert prune(conn) == 0
    conn.execute("do $$ begin for i in 1..11000 loop begin perform pg_current_xact_id(); commit; end; end loop; end $$")
    assert not claim(conn)
    assert prune(conn) == 5


def test_what_another_group_holds_under_a_lease_stays(conn: Conn) -> None:
    """Its worker may yet fail, or die."""
    conn.execute("select cauce.crear_grupo('lento')")
    published = publish(conn, 5)
    drain(conn)
    batch = claim(conn, grupo="lento")
    advance(conn, "principal", "lento")
    prune(conn)
    assert column(conn, "select id from cauce.eventos order by id")[:5] == published == batch.ids
    settle(conn, batch)
    assert prune(conn) >= 5


@pytest.mark.parametrize("resultado", ["reintentar", "muerta"])
def test_what_another_group_owes_a_delivery_stays(conn: Conn, resultado: str) -> None:
    """A retry or a dead delivery needs its event."""
    conn.execute("select cauce.crear_grupo('lento')")
    (owed, *_) = publish(conn, 2)
    drain(conn)
    settle(conn, claim(conn, grupo="lento"), [outcome(owed, "s", resultado, espera=3600)])
    advance(conn, "principal", "lento")
    prune(conn)
    assert owed in column(conn, "select id from cauce.eventos")


@pytest.mark.parametrize("resultado", ["reintentar", "muerta", "devuelta"])
def test_what_is_not_processed_stays(conn: Conn, resultado: str) -> None:
    """In `principal` too."""
    (owed, *_) = publish(conn, 2)
    settle(conn, claim(conn), [outcome(owed, "s", resultado, espera=3600)])
    advance(conn, "principal")
    prune(conn)
    assert owed in column(conn, "select id from cauce.eventos")


def test_a_claim_in_the_middle_of_a_pruning_keeps_its_events(conn: Conn, connect: Callable[..., Conn]) -> None:
    """A group claims after the pruning has looked at the leases and before it deletes: its events stay.

    The gate is the table of failures, which pruning touches last and a claim not at all.
    """
    conn.execute("select cauce.crear_grupo('lento')")
    published = publish(conn, 3)
    drain(conn)
    advance(conn, "principal")
    gate, pruner = connect(), connect()
    gate.execute("begin")
    gate.execute("lock table cauce.fallos in access exclusive mode")
    pruning = threading.Thread(target=prune, args=(pruner,))
    pruning.start()
    until_blocked(conn, pruner.info.backend_pid)
    conn.execute("select pg_current_xact_id()")
    batch = claim(conn, grupo="lento", size=3)
    publish(conn)
    claim(conn, grupo="lento")  # opens the next window, from which the events are in the past
    gate.execute("commit")
    pruning.join()
    assert column(conn, "select id from cauce.eventos order by id")[:3] == published == batch.ids


def test_an_ignored_event_that_is_retried_in_the_middle_of_a_pruning_stays(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """The pruning has chosen it, and waits for the row that the operator has: event, delivery and failures stay."""
    (evento,) = publish(conn)
    claim(conn, lease=-1)
    conn.execute("select cauce.rescatar(3)")
    settle(conn, claim(conn), [outcome(evento, "*", "ignorada", 2, error="nobody handles it")])
    advance(conn, "principal")
    conn.execute("insert into cauce.suscripciones values ('principal', 'a', 'prueba', 'prueba.hecha')")
    operator, pruner = connect(), connect()
    with operator.transaction():
        assert value(operator, "select cauce.reintentar(%s)", evento) == 1
        pruning = threading.Thread(target=prune, args=(pruner,))
        pruning.start()
        until_blocked(conn, pruner.info.backend_pid)
    pruning.join()
    assert evento in column(conn, "select id from cauce.eventos")
    assert value(conn, "select count(*) from cauce.fallos where evento = %s", evento) == 1
    assert claim(conn).ids == [evento]
