"""Leases: fenced by (lote, ficha), kept by the heartbeat, taken from the dead (review A4, A8, A9)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from tests.integration.engine.kit import (
    Claimed,
    Conn,
    claim,
    column,
    drain,
    outcome,
    publish,
    settle,
    state,
    states,
    until_blocked,
    value,
)


def run_alone(conn: Conn, batch: Claimed) -> None:
    """Record that nothing runs beside it."""
    assert value(conn, "select cauce.correr_a_solas(%s, %s)", batch.lote, batch.ficha)


def rescue(conn: Conn, limit: int = 3) -> int:
    """Take expired leases over."""
    return int(value(conn, "select cauce.rescatar(%s)", limit))


def renew(conn: Conn, *batches: Claimed, ficha: int | None = None, lease: str = "30 s") -> list[int]:
    """Renew leases; return those that still exist."""
    return column(
        conn,
        "select cauce.renovar(%s, %s, %s::interval)",
        [b.lote for b in batches],
        [b.ficha if ficha is None else ficha for b in batches],
        lease,
    )


def expire(conn: Conn, *batches: Claimed) -> None:
    """Make leases expire."""
    conn.execute(
        "update cauce.lotes set arriendo_hasta = clock_timestamp() - interval '1 s' where id = any(%s)",
        ([b.lote for b in batches],),
    )


def seconds_left(conn: Conn, batch: Claimed) -> float:
    """How long a lease has still to run."""
    return float(
        value(
            conn,
            "select extract(epoch from arriendo_hasta - clock_timestamp()) from cauce.lotes where id = %s",
            batch.lote,
        )
    )


def test_a_wrong_token_settles_nothing(conn: Conn) -> None:
    """The number of a lote is not enough: after a server crash it may have been given out again (review A4)."""
    (evento,) = publish(conn)
    batch = claim(conn, lease=5)
    with pytest.raises(psycopg.DatabaseError, match=f"lease of lote {batch.lote} was lost") as lost:
        conn.execute("select cauce.terminar(%s, %s, %s::bigint[])", (batch.lote, batch.ficha + 1, batch.ids))
    assert lost.value.sqlstate == "CA001"
    assert state(conn, evento) == "pendiente"
    assert renew(conn, batch, ficha=batch.ficha + 1) == []
    assert seconds_left(conn, batch) < 6


def test_a_lote_reissued_after_a_server_crash_is_not_the_old_one(conn: Conn) -> None:
    """The same number, group and worker, other events: the former holder's settlement is refused (review A4)."""
    publish(conn, 4)
    with conn.transaction(force_rollback=True):  # what a crash leaves of a claim: nothing, and the number is free again
        old = claim(conn, 2)
    conn.execute("select setval('cauce.lotes_id', %s, false)", (old.lote,))
    new = claim(conn, 4)
    assert new.lote == old.lote
    with pytest.raises(psycopg.DatabaseError) as lost:
        settle(conn, old)
    assert lost.value.sqlstate == "CA001"
    assert states(conn) == {"pendiente": 4}
    settle(conn, new)


def test_a_settlement_may_name_only_events_of_its_lote(conn: Conn) -> None:
    """Ids that another worker holds are refused, and nothing is kept."""
    publish(conn, 2)
    mine, other = claim(conn, 1), claim(conn, 1)
    with pytest.raises(psycopg.DatabaseError, match="does not hold") as refused:
        settle(conn, mine, ids=[*mine.ids, *other.ids])
    assert refused.value.sqlstate == "CA006"
    assert states(conn) == {"pendiente": 2}
    settle(conn, mine)
    settle(conn, other)


def test_a_settlement_of_vanished_events_is_refused(conn: Conn) -> None:
    """A row was deleted by hand: the worker gets an error."""
    publish(conn, 2)
    batch = claim(conn)
    conn.execute("delete from cauce.eventos where id = %s", (batch.ids[0],))
    with pytest.raises(psycopg.DatabaseError, match="not there any more"):
        settle(conn, batch)


def test_a_lease_begins_when_it_is_taken_not_when_its_transaction_began(conn: Conn) -> None:
    """A claim late in a long transaction has its whole time, by the wall clock (review A9)."""
    publish(conn)
    with conn.transaction():
        conn.execute("select now(), pg_sleep(1.1)")  # the fact at hand is time itself
        batch = claim(conn, lease=30)
        assert 29.5 < seconds_left(conn, batch) <= 30


def test_renewal_extends_exactly_the_lotes_named(conn: Conn) -> None:
    """A lote that the worker does not know of (the claim's answer was lost) is left to expire (review A9)."""
    publish(conn, 2)
    known, unknown = claim(conn, 1, lease=5), claim(conn, 1, lease=5)
    assert renew(conn, known) == [known.lote]
    assert seconds_left(conn, known) > 25
    assert seconds_left(conn, unknown) < 6


def test_renewal_skips_a_lote_being_settled_and_renews_the_others(conn: Conn, connect: Callable[..., Conn]) -> None:
    """A settling transaction that stays open does not cost the worker its other leases (review A9)."""
    publish(conn, 2)
    slow, other = claim(conn, 1, lease=5), claim(conn, 1, lease=5)
    settling = connect()
    with settling.transaction():
        settle(settling, slow)
        conn.execute("set lock_timeout = '2s'")
        assert sorted(renew(conn, slow, other)) == [slow.lote, other.lote]
        assert seconds_left(conn, other) > 25
    assert renew(conn, slow, other) == [other.lote]


def test_an_expired_lote_is_handed_out_again_in_single_events(conn: Conn) -> None:
    """After its worker died every event is a delivery of its own, marked as such, attempt by attempt."""
    published = publish(conn, 3)
    expire(conn, claim(conn, worker="dead"))
    assert rescue(conn) == 1
    seen = []
    for _ in published:
        batch = claim(conn)
        (row,) = batch.rows
        assert (row.suscriptor, row.intento, row.caidas) == ("*", 2, 1)
        seen += batch.ids
        settle(conn, batch, [outcome(row.id, "*", "hecha", 2)])
    assert sorted(seen) == published
    assert conn.execute("select estado::text, intentos from cauce.eventos").fetchall() == [("procesado", 2)] * 3
    assert "dead" in value(conn, "select min(error) from cauce.fallos")


def test_a_lote_that_cannot_be_taken_over_stops_no_other(conn: Conn) -> None:
    """It stays, with a warning that names it; other batches of all groups are taken over."""
    conn.execute("select cauce.crear_grupo('otro')")
    bad, good = publish(conn, 2)
    conn.execute("""
        create function negarse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
        create trigger negarse before update on cauce.eventos
            for each row when (new.id = 1) execute function negarse()""")
    stuck = claim(conn, 1, lease=-1)
    assert stuck.ids == [bad]
    assert claim(conn, 1, lease=-1).ids == [good]
    assert claim(conn, 2, lease=-1, grupo="otro").ids == [bad, good]
    warnings: list[str | None] = []
    conn.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    assert rescue(conn) == 2
    assert warnings == [f"lote {stuck.lote} of group principal expired and could not be taken over: not this one"]
    assert column(conn, "select grupo || evento from cauce.entregas order by 1") == ["otro1", "otro2", "principal2"]
    conn.execute("drop trigger negarse on cauce.eventos")
    assert rescue(conn) == 1


def test_a_live_lease_is_nobody_elses(conn: Conn) -> None:
    """A lease that has not expired is not taken over."""
    publish(conn)
    claim(conn)
    assert rescue(conn) == 0
    assert not claim(conn)


def test_a_stale_worker_can_neither_settle_nor_renew_what_was_taken_over(conn: Conn) -> None:
    """The former holder of a lote that was taken over is refused, before and after the new one is done."""
    (evento,) = publish(conn)
    stale = claim(conn)
    expire(conn, stale)
    rescue(conn)
    new = claim(conn)
    for report in (
        [],
        [outcome(evento, "manejador", "reintentar", espera=0)],
        [outcome(evento, "manejador", "muerta")],
    ):
        with pytest.raises(psycopg.DatabaseError) as lost:
            settle(conn, stale, report)
        assert lost.value.sqlstate == "CA001"
    assert renew(conn, stale) == []
    settle(conn, new, [outcome(evento, "*", "hecha", 2)])
    with pytest.raises(psycopg.DatabaseError):
        settle(conn, stale)
    assert state(conn, evento) == "procesado"
    assert value(conn, "select count(*) from cauce.entregas") == 0


def test_a_lote_being_settled_is_not_taken_over_though_it_has_expired(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Rescue skips a lote that is being settled: the settlement came first and wins."""
    publish(conn)
    batch = claim(conn)
    expire(conn, batch)
    settling = connect()
    with settling.transaction():
        settle(settling, batch)
        conn.execute("set lock_timeout = '2s'")
        assert rescue(conn) == 0
    assert rescue(conn) == 0
    assert states(conn) == {"procesado": 1}


def test_a_settlement_that_waits_for_a_rescue_is_refused_after_it(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Rescue has the lote, the late worker comes: it waits, and then is told that it lost; its effects are undone."""
    conn.execute("create table efectos (evento bigint)")
    publish(conn)
    batch = claim(conn)
    expire(conn, batch)
    late, other = connect(autocommit=False), connect()
    late.execute("insert into efectos values (1)")
    with other.transaction():
        assert rescue(other) == 1
        refused: list[str | None] = []

        def come_late() -> None:
            try:
                settle(late, batch)
            except psycopg.DatabaseError as error:
                refused.append(error.sqlstate)

        thread = threading.Thread(target=come_late)
        thread.start()
        until_blocked(conn, late.info.backend_pid)
    thread.join()
    assert refused == ["CA001"]
    late.rollback()
    assert value(conn, "select count(*) from efectos") == 0


def test_a_crash_between_the_parts_of_a_settlement_repeats_only_the_rest(conn: Conn) -> None:
    """Part of a lote is settled, the worker dies, another takes over: no double effects (review A8)."""
    conn.execute("create table efectos (evento bigint)")
    published = publish(conn, 10)
    batch = claim(conn)
    for evento in published[:5]:
        with conn.transaction():
            conn.execute("insert into efectos values (%s)", (evento,))
            settle(conn, batch, ids=[evento])
    assert value(conn, "select ids from cauce.lotes") == published[5:]
    expire(conn, batch)
    rescue(conn)
    while again := claim(conn):
        with conn.transaction():
            conn.execute("insert into efectos values (%s)", (again.ids[0],))
            settle(conn, again, [outcome(again.ids[0], "*", "hecha", 2)])
    assert sorted(column(conn, "select evento from efectos")) == published
    assert states(conn) == {"procesado": 10}


def test_what_was_settled_in_part_cannot_be_settled_again(conn: Conn) -> None:
    """An event that left its lote is refused the second time."""
    publish(conn, 2)
    batch = claim(conn)
    settle(conn, batch, ids=batch.ids[:1])
    with pytest.raises(psycopg.DatabaseError, match="does not hold"):
        settle(conn, batch, ids=batch.ids[:1])
    settle(conn, batch, ids=batch.ids[1:])
    assert value(conn, "select count(*) from cauce.lotes") == 0


def test_a_payload_that_kills_its_worker_ends_in_error_after_the_limit(conn: Conn) -> None:
    """Three workers died holding it: `error`, saying so, with every death recorded; its neighbours are processed."""
    good, poison = publish(conn, 2)
    expire(conn, claim(conn, worker="w1"))
    rescue(conn)
    deaths = 1
    while batch := claim(conn):
        if batch.ids == [poison]:
            deaths += 1
            run_alone(conn, batch)
            expire(conn, batch)
            rescue(conn)
        else:
            settle(conn, batch, [outcome(good, "*", "hecha", 2)])
    assert deaths == 3
    assert state(conn, good) == "procesado"
    assert conn.execute(
        "select estado::text, ultimo_error, intentos from cauce.eventos where id = %s", (poison,)
    ).fetchone() == ("error", "3 workers died while they held this event", 3)
    assert value(conn, "select count(*) from cauce.fallos where evento = %s", poison) == 3


def test_the_death_that_decides_counts_only_if_nothing_ran_beside(conn: Conn) -> None:
    """Another batch of that worker may have caused it; for a lost lease nothing is recorded."""
    (evento,) = publish(conn)
    for _ in range(6):
        batch = claim(conn)
        expire(conn, batch)
        rescue(conn)
    assert value(conn, "select caidas from cauce.entregas") == 2
    assert value(conn, "select count(*) from cauce.fallos") == 6
    assert value(conn, "select cauce.correr_a_solas(0, 0)") is False
    batch = claim(conn)
    run_alone(conn, batch)
    expire(conn, batch)
    rescue(conn)
    assert state(conn, evento) == "error"


def test_a_count_beyond_its_column_stops_nobody(conn: Conn) -> None:
    """`intentos` of an event ends at 32767, that of a delivery goes on."""
    (evento,) = publish(conn)
    batch = claim(conn)
    settle(conn, batch, [outcome(evento, "manejador", "reintentar", 40_000, espera=0)])
    expire(conn, claim(conn))
    rescue(conn)
    assert value(conn, "select intentos from cauce.eventos") == 32_767
    assert value(conn, "select intentos from cauce.entregas") == 40_001


def test_a_claim_waits_for_the_disk_only_if_it_is_careful(conn: Conn) -> None:
    """New events: no, unless the caller says so; with retries: always, for attempts are counted."""
    claim_one = "select count(*) from cauce.tomar('principal', 1, 'w', '1 min', %s)"
    publish(conn, 3)
    for careful in (False, True):
        with conn.transaction():
            assert value(conn, claim_one, careful) == 1
            assert value(conn, "show synchronous_commit") == ("on" if careful else "off")
    batch = claim(conn)
    settle(conn, batch, [outcome(batch.ids[0], "manejador", "reintentar", espera=0)])
    with conn.transaction():
        assert value(conn, "select count(*) from cauce.tomar('principal', 2, 'w', '1 min')") == 1
        assert value(conn, "show synchronous_commit") == "on"


def test_an_event_deleted_by_hand_takes_its_deliveries_along(conn: Conn) -> None:
    """They are dropped with a warning; the group continues with all others."""
    gone, kept, new = *publish(conn, 2), 3
    batch = claim(conn)
    settle(conn, batch, [outcome(evento, "manejador", "reintentar", espera=0) for evento in (gone, kept)])
    conn.execute("delete from cauce.eventos where id = %s", (gone,))
    assert publish(conn) == [new]
    warnings: list[str | None] = []
    conn.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    batch = claim(conn)
    assert batch.ids == [kept, new]
    assert warnings == ["group principal: 1 deliveries of events that were deleted are dropped"]
    settle(conn, batch, [outcome(kept, "manejador", "reintentar", 2, espera=0)])
    conn.execute("delete from cauce.eventos where id = %s", (kept,))
    assert not claim(conn)
    assert value(conn, "select (select count(*) from cauce.lotes) + (select count(*) from cauce.entregas)") == 0


def test_an_event_is_shown_as_in_process_only_while_it_waits_in_a_lote(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """The heartbeat marks what it holds, over `pendiente` only, fenced, and passes by rows that are locked."""
    marcar = "select cauce.marcar_en_proceso(%s, %s)"
    one, two = publish(conn, 2)
    batch = claim(conn)
    assert value(conn, marcar, [batch.lote], [batch.ficha + 1]) == 0
    other = connect()
    with other.transaction():
        other.execute("select from cauce.eventos where id = %s for update", (one,))
        conn.execute("set lock_timeout = '2s'")
        assert value(conn, marcar, [batch.lote], [batch.ficha]) == 1
    assert (state(conn, one), state(conn, two)) == ("pendiente", "en_proceso")
    settle(conn, batch, ids=[two])
    assert value(conn, marcar, [batch.lote], [batch.ficha]) == 1
    assert (state(conn, one), state(conn, two)) == ("en_proceso", "procesado")
    settle(conn, batch, ids=[one])
    assert states(conn) == {"procesado": 2}
    assert drain(conn) == []


def test_several_lotes_are_settled_in_one_transaction_in_any_order(conn: Conn) -> None:
    """One transaction may settle more than one lote."""
    publish(conn, 4)
    one, two = claim(conn, 2), claim(conn, 2)
    with conn.transaction():
        settle(conn, two)
        settle(conn, one)
    assert states(conn) == {"procesado": 4}


def test_two_suspects_are_never_in_the_hands_of_one_worker(conn: Conn) -> None:
    """A delivery that may kill a process is claimed alone: a neighbour would be blamed for the death too."""
    publish(conn, 3)
    expire(conn, claim(conn))
    rescue(conn)
    first = claim(conn, worker="w1")
    assert len(first.rows) == 1
    assert not claim(conn, worker="w1")
    assert claim(conn, worker="w2")
    settle(conn, first, [outcome(first.ids[0], "*", "hecha", 2)])
    assert claim(conn, worker="w1")


def test_a_delivery_whose_worker_died_need_not_wait_for_all_others(conn: Conn) -> None:
    """While new events never end, about one claim in two offers it."""
    (suspect,) = publish(conn)
    claim(conn, lease="-1 s")
    conn.execute("select cauce.rescatar(3)")
    publish(conn, 20)

    def came(lot: int) -> list[int]:
        conn.execute("select setseed(%s)", (lot / 20,))
        return claim(conn, 1).ids

    assert [suspect] in [came(lot) for lot in range(20)]


def test_what_was_kept_in_hand_comes_again_when_its_worker_dies(conn: Conn) -> None:
    """Claims did not find it while its batch held it."""
    (event,) = publish(conn)
    batch = claim(conn)
    settle(conn, batch, [outcome(event, "s", "retenida")])
    expire(conn, batch)
    rescue(conn)
    assert claim(conn).ids == [event]
