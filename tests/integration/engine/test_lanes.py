"""Lanes and groups: every lane of every group is read, urgent events first (review A5, A7)."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.integration.engine.kit import Conn, claim, column, drain, outcome, publish, settle, state, states, value


def test_every_lane_of_every_group_has_a_position(conn: Conn) -> None:
    """Events of a lane without a position would never be delivered, and no error would say so."""
    conn.execute("select cauce.crear_grupo('otro'), cauce.crear_grupo('otro')")
    lanes = conn.execute(
        "select grupo, array_agg(carril::integer order by carril) from cauce.posiciones group by 1 order by 1"
    )
    assert lanes.fetchall() == [("otro", list(range(10))), ("principal", list(range(10)))]


@pytest.mark.parametrize("prioridad", range(10))
def test_an_event_of_any_priority_is_delivered(conn: Conn, prioridad: int) -> None:
    """Also one whose priority no catalog mentions."""
    published = publish(conn, prioridad=prioridad)
    assert drain(conn) == published
    assert value(conn, "select carril from cauce.eventos") == prioridad


@pytest.mark.parametrize("prioridad", [-1, 10])
def test_a_priority_out_of_range_is_refused(conn: Conn, prioridad: int) -> None:
    """There are ten lanes."""
    with pytest.raises(psycopg.errors.CheckViolation):
        publish(conn, prioridad=prioridad)


def test_a_lane_that_lost_its_position_is_reported(conn: Conn) -> None:
    """A lane without a position raises, and says what to do; it is not passed over."""
    assert not claim(conn)  # the other positions are not old
    conn.execute("delete from cauce.posiciones where carril = 3")
    with pytest.raises(psycopg.DatabaseError, match="group principal has no position in lane 3") as error:
        claim(conn)
    assert error.value.sqlstate == "CA004"
    # nor is it by the claims that begin at another lane
    assert value(conn, "select (cauce.primer_carril('principal', '{8,9,3,4}')).carril") == 3


def test_a_group_without_its_lock_is_reported_and_made_whole(conn: Conn) -> None:
    """One that was never made, or of which only the rows were restored."""
    conn.execute("drop view cauce.turno_principal")
    for grupo in ("principal", "nadie"):
        with pytest.raises(
            psycopg.DatabaseError, match=f"group {grupo} has no claim lock, cauce.turno_{grupo}"
        ) as error:
            claim(conn, grupo=grupo)
        assert error.value.sqlstate == "CA004"
    conn.execute("select cauce.crear_grupo('principal')")
    published = publish(conn)
    assert claim(conn).ids == published


def test_one_claim_of_a_group_runs_at_a_time_and_those_of_others_beside_it(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """The turn is kept to the end of the transaction; an idle look takes it without writing anything."""
    conn.execute("select cauce.crear_grupo('otro', true)")
    published = publish(conn)
    other = connect()
    other.execute("set lock_timeout = '100ms'")
    claim(conn)
    assert not claim(conn)  # writes the positions that are old in a cluster that has seen many transactions
    with conn.transaction():
        assert not claim(conn)
        assert value(conn, "select pg_current_xact_id_if_assigned() is null")
        assert claim(other, grupo="otro").ids == published
        newer = publish(other)
        for rung in (False, True):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                claim(other, rung=rung)
    assert claim(other).ids == newer


def test_urgent_events_come_first_and_in_order_within_their_lane(conn: Conn) -> None:
    """Lane by lane, the lowest number first; but one claim in 20 begins at a lane drawn by lot."""
    last, first, middle = publish(conn, 20, prioridad=9), publish(conn, 20, prioridad=0), publish(conn, 20)
    order = drain(conn, size=5)
    for lane in (first, middle, last):
        assert [e for e in order if e in lane] == lane
    urgent = 0
    for _ in range(100):
        old, new = publish(conn, prioridad=9), publish(conn, prioridad=0)
        urgent += drain(conn) == new + old
    assert urgent > 70  # 95.5 are expected


def test_stripe_is_urgent_from_the_first_migration_on(conn: Conn) -> None:
    """Without any catalog a Stripe event has priority 0, another one 5."""
    conn.execute("insert into cauce.eventos (origen, tipo, payload) values ('stripe', 'x', '{}'), ('otro', 'x', '{}')")
    assert conn.execute("select origen, prioridad from cauce.eventos order by id").fetchall() == [
        ("stripe", 0),
        ("otro", 5),
    ]


def test_the_catalog_gives_priority_and_key(conn: Conn) -> None:
    """The event's own row decides, else its origin's; what the publisher says goes before both."""
    conn.execute("""insert into cauce.catalogo (origen, tipo, prioridad, clave)
                    values ('prueba', 'a', 2, 'quien'), ('prueba', '*', 8, null)""")
    for statement in (
        "insert into cauce.eventos (origen, tipo, payload) values (%s, %s, %s)",
        "select cauce.publicar_evento(%s, %s, %s)",
        """select cauce.publicar_eventos(jsonb_build_array(
               jsonb_build_object('origen', %s::text, 'tipo', %s::text, 'payload', %s::jsonb)))""",
    ):
        for tipo in ("a", "b"):
            conn.execute(statement, ("prueba", tipo, '{"quien": "ana"}'))
    conn.execute("""select cauce.publicar_evento('prueba', 'a', '{"quien": "ana"}', 'eva', 1::smallint)""")
    rows = conn.execute("select tipo, prioridad, carril, clave from cauce.eventos order by id").fetchall()
    assert rows == [("a", 2, 2, "ana"), ("b", 8, 8, None)] * 3 + [("a", 1, 1, "eva")]


def test_no_lane_starves_whatever_lies_in_the_others(conn: Conn) -> None:
    """None of ten lanes is ever empty: nearly all claims take of the lowest, some of every other.

    A lane gets one claim in 200 at least, so that 5,000 pass by it once in 10^10 runs.
    """
    conn.execute(
        "insert into cauce.eventos (origen, tipo, payload, prioridad, carril)"
        " select 'prueba', 'x', '{}', lane, lane from generate_series(0, 9) lane, generate_series(1, 5000);"
        "create temporary table tomados (id bigint);"
    )
    conn.execute(
        "set plan_cache_mode = force_generic_plan; set enable_bitmapscan = off; set enable_sort = off"
    )  # as in tomar
    conn.execute(
        "do $$ begin for i in 1..5000 loop"
        " insert into tomados select unnest(cauce.siguientes('principal', 1)); commit; end loop; end $$"
    )
    shares = dict(
        conn.execute("select e.carril::integer, count(*) from tomados natural join cauce.eventos e group by 1")
    )
    assert shares.keys() == set(range(10))
    assert shares[0] > 4500  # 4,775 are expected


def test_no_lot_is_drawn_in_a_group_that_has_hardly_begun(conn: Conn) -> None:
    """Nothing can starve yet, so an application's tests always get the urgent events first."""
    publish(conn, prioridad=9)
    urgent = publish(conn, prioridad=0)
    conn.execute("begin")
    for _ in range(300):  # if the lot decided, all of them would agree once in 500,000 runs
        conn.execute("savepoint antes")
        assert value(conn, "select cauce.siguientes('principal', 10)") == urgent
        conn.execute("rollback to antes")
    conn.execute("rollback")


def test_no_retry_starves_below_a_lane_that_is_never_empty(conn: Conn) -> None:
    """An urgent delivery fails again and again, and is due at once: the other one is claimed nevertheless."""
    (late,), urgent = publish(conn, prioridad=9), publish(conn, prioridad=0)
    batch = claim(conn)
    for _ in range(2000):  # one claim in 22 begins at a lane from 1 to 9, once the lane's marks have moved 20 times
        due = [outcome(row.id, "s", "reintentar", row.intento, espera=0) for row in batch.rows]
        settle(conn, batch, due)
        batch = claim(conn, 1)
        if batch.ids == [late]:
            break
        assert batch.ids == urgent
    else:
        raise AssertionError


def test_a_straggler_does_not_starve_below_a_lane_that_is_never_empty(conn: Conn, connect: Callable[..., Conn]) -> None:
    """It commits behind the position of its lane, while all claims find events in a more urgent one."""
    late = connect()
    late.execute("begin")
    (straggler,) = publish(late, prioridad=9)
    published = publish(conn, prioridad=9)
    assert drain(conn) == published  # the lane's position goes past the straggler
    late.execute("commit")
    turns = 0
    while straggler not in (ids := drain_one(conn)):
        turns += 1
        assert turns < 1000, ids  # 45 in 1,000 begin at a lane from 1 to 9


def drain_one(conn: Conn) -> list[int]:
    """Publish an urgent event, claim and settle one; return it."""
    publish(conn, prioridad=0)
    batch = claim(conn, 1)
    settle(conn, batch)
    return batch.ids


def test_groups_read_the_same_events_each_at_its_own_pace(conn: Conn) -> None:
    """Two groups: each gets every event once."""
    conn.execute("select cauce.crear_grupo('otro')")
    published = publish(conn, 5)
    assert drain(conn) == published
    published += publish(conn, 5)
    assert drain(conn, grupo="otro", size=3) == published
    assert drain(conn) == published[5:]


def test_a_new_group_starts_at_now_and_one_from_the_beginning_reads_all(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """What is in progress when a group is made is still to come for it."""
    old = publish(conn)
    late = connect()
    late.execute("begin")
    in_progress = publish(late)
    conn.execute("select cauce.crear_grupo('ahora'), cauce.crear_grupo('todo', true)")
    late.execute("commit")
    new = publish(conn)
    assert drain(conn, grupo="ahora") == in_progress + new
    assert sorted(drain(conn, grupo="todo")) == old + in_progress + new


def test_a_group_gets_what_its_own_making_transaction_publishes(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Making a group and publishing in one transaction: the own transaction counts as unfinished (as in review A2)."""
    with conn.transaction():
        conn.execute("select pg_current_xact_id()")
        connect().execute("select pg_current_xact_id()")
        conn.execute("select cauce.crear_grupo('otro')")
        published = publish(conn)
    assert drain(conn, grupo="otro") == published


def test_only_principal_writes_the_state_of_an_event(conn: Conn) -> None:
    """Another group's success, failure or lease does not change the state (review A7)."""
    conn.execute("select cauce.crear_grupo('otro')")
    good, bad, dead = publish(conn, 3)
    batch = claim(conn, grupo="otro")
    settle(conn, batch, [outcome(bad, "s", "reintentar", espera=0), outcome(dead, "s", "muerta")])
    assert states(conn) == {"pendiente": 3}
    assert column(conn, "select intentos + coalesce(length(ultimo_error), 0) from cauce.eventos") == [0, 0, 0]
    settle(conn, claim(conn))
    assert states(conn) == {"procesado": 3}
    settle(conn, (retry := claim(conn, grupo="otro")), [outcome(bad, "s", "muerta", retry.rows[0].intento)])
    assert states(conn) == {"procesado": 3}
    assert state(conn, good) == "procesado"


def test_operating_on_another_groups_delivery_leaves_the_event_alone(conn: Conn) -> None:
    """Dismissing a delivery of a side group does not change the event's state."""
    conn.execute("select cauce.crear_grupo('otro')")
    (evento,) = publish(conn)
    settle(conn, claim(conn))
    settle(conn, claim(conn, grupo="otro"), [outcome(evento, "s", "muerta")])
    assert value(conn, "select cauce.descartar(%s, 'otro')", evento) == 1
    assert conn.execute("select estado::text, ignorado from cauce.eventos").fetchone() == ("procesado", False)


def test_groups_do_not_wait_for_each_others_open_settlement(conn: Conn, connect: Callable[..., Conn]) -> None:
    """While one group's settling transaction is open, the other claims and settles the same events (review A7)."""
    conn.execute("select cauce.crear_grupo('otro')")
    publish(conn, 3)
    principal = connect()
    with principal.transaction():
        settle(principal, claim(conn))
        conn.execute("set lock_timeout = '2s'")
        settle(conn, claim(conn, grupo="otro"))


def test_claims_of_one_group_do_not_wait_for_an_open_settlement(conn: Conn, connect: Callable[..., Conn]) -> None:
    """A long transaction that has settled holds up no claim of its own group."""
    publish(conn, 2)
    slow = connect()
    with slow.transaction():
        settle(slow, claim(conn, 1))
        conn.execute("set lock_timeout = '2s'")
        assert claim(conn, 1)
