"""What operators do while the bus runs: retry, dismiss, look at the lag."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import pytest

from tests.integration.engine.kit import (
    Conn,
    claim,
    column,
    drain,
    outcome,
    publish,
    settle,
    state,
    until_blocked,
    value,
)

OUTCOME: Final = "select estado::text, ignorado from cauce.eventos where id = %s"


def dead(conn: Conn, *subscribers: str) -> int:
    """An event of which these subscribers have failed for good."""
    (evento,) = publish(conn)
    settle(conn, claim(conn), [outcome(evento, s, "muerta", 3) for s in subscribers])
    return evento


def test_a_dead_delivery_is_retried_with_all_its_attempts_before_it(conn: Conn) -> None:
    """`reintentar`: due at once, the first attempt again; the event is in process, then processed."""
    evento = dead(conn, "a", "b")
    assert value(conn, "select cauce.reintentar(%s, null, 'a')", evento) == 1
    assert state(conn, evento) == "error"
    assert value(conn, "select cauce.reintentar(%s)", evento) == 2
    assert state(conn, evento) == "en_proceso"
    batch = claim(conn)
    assert sorted((r.suscriptor, r.intento) for r in batch.rows) == [("a", 1), ("b", 1)]
    settle(conn, batch, [outcome(evento, s, "hecha") for s in "ab"])
    assert conn.execute("select estado::text, intentos from cauce.eventos").fetchone() == ("procesado", 3)


def test_a_waiting_retry_is_made_due_at_once(conn: Conn) -> None:
    """`reintentar` spares the wait."""
    (evento,) = publish(conn)
    settle(conn, claim(conn), [outcome(evento, "s", "reintentar", espera=3600)])
    assert not claim(conn)
    assert value(conn, "select cauce.reintentar(%s)", evento) == 1
    assert claim(conn).ids == [evento]


def test_a_dismissed_delivery_is_given_up_and_its_failures_stay(conn: Conn) -> None:
    """`descartar`: `procesado`, `ignorado`, and a row in fallos that was dismissed by hand."""
    evento = dead(conn, "a", "b")
    assert value(conn, "select cauce.descartar(%s, 'principal', 'a')", evento) == 1
    assert state(conn, evento) == "error"
    assert value(conn, "select cauce.descartar(%s)", evento) == 1
    row = conn.execute("select estado::text, ignorado, procesado_en is not null from cauce.eventos").fetchone()
    assert row == ("procesado", True, True)
    assert value(conn, "select count(*) from cauce.fallos where descartada") == 2
    assert value(conn, "select count(*) from cauce.fallos") == 4


def test_a_retry_in_another_group_leaves_the_state_to_principal(conn: Conn) -> None:
    """An event that `principal` has not been handed yet is not shown as processed, whatever becomes of it elsewhere."""
    conn.execute("select cauce.crear_grupo('otro')")
    (evento,) = publish(conn)
    settle(conn, claim(conn, grupo="otro"), [outcome(evento, "s", "muerta")])
    assert value(conn, "select cauce.reintentar(%s)", evento) == 1
    assert state(conn, evento) == "pendiente"


@pytest.mark.parametrize("verb", ["reintentar", "descartar"])
def test_what_there_is_not_is_not_touched(conn: Conn, verb: str) -> None:
    """No such event, no such delivery, nothing wrong with it: 0."""
    publish(conn)
    drain(conn)
    statement = f"select cauce.{verb}(%s)".encode()
    for evento in (1, 99):
        assert conn.execute(statement, (evento,)).fetchone() == (0,)
    assert state(conn, 1) == "procesado"


@pytest.mark.parametrize("verb", ["reintentar", "descartar"])
def test_a_delivery_that_a_worker_holds_is_left_to_it(conn: Conn, verb: str) -> None:
    """A retry does not take a lease away; the worker's result counts."""
    (evento,) = publish(conn)
    settle(conn, claim(conn), [outcome(evento, "s", "reintentar", espera=0)])
    batch = claim(conn)
    assert conn.execute(f"select cauce.{verb}(%s)".encode(), (evento,)).fetchone() == (0,)
    settle(conn, batch, [outcome(evento, "s", "hecha", 2)])
    assert state(conn, evento) == "procesado"


@pytest.mark.parametrize("verb", ["reintentar", "descartar"])
def test_a_claim_passes_by_what_an_operator_has_in_hand(conn: Conn, connect: Callable[..., Conn], verb: str) -> None:
    """The operator's transaction is open: a claim does not wait for it, and finds the delivery afterwards, or not."""
    (evento,) = publish(conn)
    settle(conn, claim(conn), [outcome(evento, "s", "reintentar", espera=0)])
    operator = connect()
    with operator.transaction():
        operator.execute(f"select cauce.{verb}(%s)".encode(), (evento,))
        conn.execute("set lock_timeout = '2s'")
        assert not claim(conn)
    assert claim(conn).ids == ([evento] if verb == "reintentar" else [])


def ignored(conn: Conn) -> int:
    """An event that nobody handled."""
    (evento,) = publish(conn)
    settle(conn, claim(conn), [outcome(evento, "*", "ignorada", error="nobody handles prueba/prueba.hecha")])
    assert conn.execute(OUTCOME, (evento,)).fetchone() == ("procesado", True)
    return evento


def listen(conn: Conn, *subscribers: str, grupo: str = "principal", aplicacion: str = "") -> None:
    """Have these listen to the events of these tests from now on."""
    conn.cursor().executemany(
        "insert into cauce.suscripciones values (%s, %s, 'prueba', 'prueba.hecha', %s)",
        [(grupo, subscriber, aplicacion) for subscriber in subscribers],
    )


def test_an_ignored_event_is_delivered_to_whoever_listens_by_now(conn: Conn) -> None:
    """`reintentar`: to each subscriber of `principal` that no deploy has removed, by its application, and once."""
    evento = ignored(conn)
    listen(conn, "manejador", "removed", aplicacion="tienda")
    listen(conn, "avisos", aplicacion="otra")
    listen(conn, "panel", grupo="paneles")
    conn.execute("update cauce.suscripciones set retirada_en = now() where suscriptor = 'removed'")
    assert value(conn, "select cauce.reintentar(%s)", evento) == 2
    assert conn.execute(OUTCOME, (evento,)).fetchone() == ("en_proceso", False)
    assert value(conn, "select cauce.reintentar(%s)", evento) == 2, "they wait"
    for aplicacion, subscriber in (("tienda", "manejador"), ("otra", "avisos")):
        batch = claim(conn, aplicacion=aplicacion)
        assert [(row.id, row.suscriptor, row.intento) for row in batch.rows] == [(evento, subscriber, 1)]
        settle(conn, batch, [outcome(evento, subscriber, "hecha")])
    assert conn.execute(OUTCOME, (evento,)).fetchone() == ("procesado", False)
    assert value(conn, "select cauce.reintentar(%s)", evento) == 0, "it was handled"


@pytest.mark.parametrize(
    ("asked", "delivered"),
    [
        ({"suscriptor": "avisos"}, ["avisos"]),
        ({"grupo": "principal"}, ["avisos", "manejador"]),
        ({"grupo": "paneles"}, []),
        ({"suscriptor": "nadie"}, []),
    ],
)
def test_an_ignored_event_is_delivered_only_as_asked(conn: Conn, asked: dict[str, str], delivered: list[str]) -> None:
    """By group and subscriber; where that leaves nobody, the event stays as it is."""
    evento = ignored(conn)
    listen(conn, "manejador", "avisos")
    listen(conn, "panel", grupo="paneles")
    count = value(conn, "select cauce.reintentar(%s, %s, %s)", evento, asked.get("grupo"), asked.get("suscriptor"))
    assert count == len(delivered)
    assert column(conn, "select suscriptor from cauce.entregas order by 1") == delivered
    assert value(conn, "select ignorado from cauce.eventos") is not bool(delivered)


def test_an_ignored_event_stays_so_while_nobody_listens(conn: Conn) -> None:
    """Nothing is written, and a later deploy can still have it."""
    evento = ignored(conn)
    assert value(conn, "select cauce.reintentar(%s)", evento) == 0
    assert conn.execute(OUTCOME, (evento,)).fetchone() == ("procesado", True)


def test_what_a_person_gave_up_is_not_delivered_again(conn: Conn) -> None:
    """An event is `ignorado` after `descartar` too: that is final, also with new subscribers and earlier failures."""
    listen(conn, "a")
    given_up, retried = dead(conn, "a"), ignored(conn)
    conn.execute("select cauce.descartar(%s)", (given_up,))
    assert value(conn, "select cauce.reintentar(%s)", given_up) == 0
    assert value(conn, "select cauce.reintentar(%s)", retried) == 1
    assert value(conn, "select cauce.descartar(%s)", retried) == 1
    assert value(conn, "select cauce.reintentar(%s)", retried) == 0
    assert conn.execute(OUTCOME, (retried,)).fetchone() == ("procesado", True)


def test_an_event_that_killed_its_workers_before_it_was_ignored_is_delivered(conn: Conn) -> None:
    """Failures of workers are no decision of a person."""
    (evento,) = publish(conn)
    claim(conn, lease=-1)
    assert value(conn, "select cauce.rescatar(3)") == 1
    settle(conn, claim(conn), [outcome(evento, "*", "ignorada", 2, error="nobody handles it")])
    listen(conn, "a")
    assert value(conn, "select cauce.reintentar(%s)", evento) == 1


def test_two_operators_deliver_an_ignored_event_once(conn: Conn, connect: Callable[..., Conn]) -> None:
    """The second waits for the first, and finds what that has left."""
    evento = ignored(conn)
    listen(conn, "a")
    first, second = connect(), connect()
    retry = "select cauce.reintentar(%s)"
    with first.transaction():
        assert value(first, retry, evento) == 1
        waiting = threading.Thread(target=second.execute, args=(retry, (evento,)))
        waiting.start()
        until_blocked(conn, second.info.backend_pid)
    waiting.join()
    assert drain(conn) == [evento]


def test_the_lag_of_a_group_is_told_lane_by_lane(conn: Conn, connect: Callable[..., Conn]) -> None:
    """What has not been handed out, counted to a maximum; what is uncommitted does not count, stragglers do."""

    def lag(most: int = 1000) -> dict[int, int]:
        rows = conn.execute(
            "select carril, pendientes from cauce.retraso('principal', %s) where pendientes > 0", (most,)
        )
        return dict(rows.fetchall())

    late = connect()
    late.execute("begin")
    publish(late, 2)
    publish(conn, 7)
    publish(conn, 3, prioridad=0)
    assert lag() == {0: 3, 5: 7}
    assert lag(2) == {0: 2, 5: 2}
    for _ in range(3):
        claim(conn, 4)
    assert sum(lag().values()) == 0
    late.execute("commit")
    assert lag() == {5: 2}
    claim(conn, 1)
    assert lag() == {5: 1}
    assert value(conn, "select min(desde) <= now() from cauce.retraso('principal', 10)")
