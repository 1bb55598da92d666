"""What a settlement refuses: a report of a delivery that its batch does not hold, or does not hold any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from cauce.database.claims import Resultado
from tests.integration.engine.kit import Claimed, Conn, claim, outcome, publish, settle, until_blocked, value

TABLES = """
select (select jsonb_agg(to_jsonb(e) order by e.id) from cauce.eventos e),
       (select jsonb_agg(to_jsonb(d) order by d.evento, d.suscriptor) from cauce.entregas d),
       (select jsonb_agg(to_jsonb(f) order by f.id) from cauce.fallos f),
       (select jsonb_agg(to_jsonb(c) order by c.huella) from cauce.causas c),
       (select jsonb_agg(to_jsonb(l) order by l.id) from cauce.lotes l)
"""


def refuse(conn: Conn, batch: Claimed, *reports: dict[str, Any], code: str = "CA001") -> str:
    """Settle the reports, none of the batch's new events with them; they are refused, and nothing changes. Why?"""
    before = conn.execute(TABLES).fetchone()
    with pytest.raises(psycopg.DatabaseError) as refused:
        settle(conn, batch, reports, ids=[])
    assert refused.value.sqlstate == code
    assert conn.execute(TABLES).fetchone() == before
    return str(refused.value)


@pytest.mark.parametrize("resultado", Resultado)
def test_a_report_of_another_workers_event_is_refused(conn: Conn, resultado: str) -> None:
    """Whatever it says of the event."""
    publish(conn, 2)
    mine, other = claim(conn, 1), claim(conn, 1)
    refuse(conn, mine, outcome(other.ids[0], "s", resultado))
    settle(conn, other)


@pytest.mark.parametrize("resultado", Resultado)
def test_a_report_of_another_workers_retry_is_refused(conn: Conn, resultado: str) -> None:
    """The event is the same one, and so is the group: the subscriber's delivery is what somebody else holds."""
    (evento,) = publish(conn)
    settle(conn, claim(conn), [outcome(evento, s, "reintentar", espera=0) for s in ("a", "b")])
    both = claim(conn, 2), claim(conn, 2)
    mine, other = both
    refuse(conn, mine, outcome(evento, str(other.rows[0].suscriptor), resultado, 2))
    for batch in both:
        settle(conn, batch, [outcome(evento, str(row.suscriptor), "hecha", 2) for row in batch.rows])
    assert value(conn, "select estado from cauce.eventos") == "procesado"


@pytest.mark.parametrize("resultado", Resultado)
def test_a_report_of_a_delivery_that_nobody_holds_is_refused(conn: Conn, resultado: str) -> None:
    """It waits for its time, and the batch was claimed for something else."""
    (waiting, _) = publish(conn, 2)
    settle(conn, claim(conn, 1), [outcome(waiting, "s", "reintentar", espera=3600)])
    refuse(conn, claim(conn), outcome(waiting, "s", resultado, 2))


@pytest.mark.parametrize("resultado", ["reintentar", "muerta", "devuelta"])
def test_a_failure_reported_twice_counts_once(conn: Conn, resultado: str) -> None:
    """The answer to the first report was lost; the lease is still the worker's, that delivery is not."""
    (evento, _) = publish(conn, 2)
    batch = claim(conn)
    report = outcome(evento, "s", resultado, espera=0)
    settle(conn, batch, [report], ids=[evento])
    refuse(conn, batch, report)


@pytest.mark.parametrize("resultado", ["reintentar", "muerta", "devuelta", "retenida", "ignorada"])
def test_a_first_delivery_is_settled_with_its_event(conn: Conn, resultado: str) -> None:
    """An event that stays in its batch is handed out whole from there, and would come twice to that subscriber."""
    evento, other = publish(conn, 2)
    batch = claim(conn)
    said = refuse(conn, batch, outcome(evento, "s", resultado), code="22023")
    assert f"event {evento}, subscriber s, comes for the first time" in said
    settle(conn, batch, [outcome(other, "s", "muerta")], ids=[other])
    settle(conn, batch, ids=[evento])


def test_a_delivery_whose_row_was_deleted_is_not_settled(conn: Conn) -> None:
    """Somebody deleted it by hand while a worker had it: the worker hears of it."""
    (evento,) = publish(conn)
    settle(conn, claim(conn), [outcome(evento, "s", "reintentar", espera=0)])
    batch = claim(conn)
    conn.execute("delete from cauce.entregas")
    refuse(conn, batch, outcome(evento, "s", "reintentar", 2, espera=0))


def test_a_first_delivery_is_no_stored_one_that_is_done(conn: Conn) -> None:
    """`hecha` is said of a row that goes; an event that comes for the first time has none."""
    (evento,) = publish(conn)
    refuse(conn, claim(conn), outcome(evento, "s", "hecha"))


def test_an_event_that_is_deleted_while_it_is_claimed_undoes_the_claim(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """A lease on an event that nobody was handed would cost the others their settlement.

    The gate is the table of leases: the claim has chosen its events before it writes its lease there.
    """
    gone, kept = publish(conn, 2)
    deleter, worker = connect(), connect()
    refused: list[BaseException] = []

    def claim_both() -> None:
        try:
            claim(worker)
        except psycopg.Error as error:
            refused.append(error)

    with deleter.transaction():
        deleter.execute("lock table cauce.lotes in share row exclusive mode")
        deleter.execute("delete from cauce.eventos where id = %s", (gone,))
        claiming = threading.Thread(target=claim_both)
        claiming.start()
        until_blocked(conn, worker.info.backend_pid)
    claiming.join()
    assert "claimed 2 events, 1 of them exist" in str(refused[0])
    batch = claim(conn)
    assert batch.ids == [kept]
    settle(conn, batch)


def test_an_operators_retry_and_a_settlement_do_not_wait_for_each_other(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """Both take the event first and its deliveries then; in the opposite order they would end in a deadlock.

    Two deliveries of one event are due. The gate holds the first, where the operator waits, who has looked at both; the
    worker claims the other meanwhile, and reports that it failed.
    """
    (evento,) = publish(conn)
    settle(conn, claim(conn), [outcome(evento, s, "reintentar", espera=0) for s in ("a", "b")])
    gate, operator, worker = connect(), connect(), connect()
    with gate.transaction():
        gate.execute("select from cauce.entregas where suscriptor = 'a' for update")
        retrying = threading.Thread(target=operator.execute, args=("select cauce.reintentar(%s)", (evento,)))
        retrying.start()
        until_blocked(conn, operator.info.backend_pid)
        batch = claim(worker, 2)
        assert [row.suscriptor for row in batch.rows] == ["b"]
        report = [outcome(evento, "b", "reintentar", 2, espera=3600)]
        settling = threading.Thread(target=settle, args=(worker, batch, report))
        settling.start()
        until_blocked(conn, worker.info.backend_pid)
    retrying.join()
    settling.join()
    left = conn.execute(
        "select d.suscriptor, d.intentos, m.lote"
        "  from cauce.entregas d left join cauce.en_mano m using (evento, grupo, suscriptor) order by d.suscriptor"
    ).fetchall()
    assert left == [("a", 0, None), ("b", 2, None)]


def test_a_settlement_in_another_group_locks_deliveries_in_the_order_of_their_keys(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """No event is locked before them there, so an operator and a worker that took them crosswise would deadlock.

    The gate holds the first of two deliveries, where the operator waits; the worker has both, and is done with the
    second, which it would take at once. Let through, the operator wants that one too.
    """
    conn.execute("select cauce.crear_grupo('otro')")
    (evento,) = publish(conn)
    settle(conn, claim(conn, grupo="otro"), [outcome(evento, s, "reintentar", espera=0) for s in ("a", "b")])
    gate, operator, worker = connect(), connect(), connect()
    batch = claim(worker, 4, grupo="otro")
    assert len(batch.rows) == 2
    failed: list[BaseException] = []

    def attempt(act: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                act()
            except psycopg.Error as error:
                failed.append(error)

        return threading.Thread(target=run)

    report = [outcome(evento, "b", "hecha", 2), outcome(evento, "a", "reintentar", 2)]
    retrying = attempt(lambda: operator.execute("select cauce.reintentar(%s, 'otro')", (evento,)))
    settling = attempt(lambda: settle(worker, batch, report))
    with gate.transaction():
        gate.execute("select from cauce.entregas where suscriptor = 'a' for update")
        for thread, backend in ((retrying, operator), (settling, worker)):
            thread.start()
            until_blocked(conn, backend.info.backend_pid)
    retrying.join()
    settling.join()
    assert failed == []
