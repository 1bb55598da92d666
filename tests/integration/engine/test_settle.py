"""Settling: every outcome of a delivery, and what it makes of its event (the state machine of DESIGN section 3)."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.integration.engine.kit import Claimed, Conn, claim, outcome, publish, settle, state, states, value


def entrega(conn: Conn, suscriptor: str = "s") -> tuple[Any, ...] | None:
    """Return (estado, intentos, caidas, held, due) of a stored delivery."""
    return conn.execute(
        "select d.estado::text, d.intentos, d.caidas, m.lote is not null, d.proximo_en <= clock_timestamp()"
        " from cauce.entregas d left join cauce.en_mano m using (evento, grupo, suscriptor) where d.suscriptor = %s",
        (suscriptor,),
    ).fetchone()


def evento(conn: Conn) -> tuple[Any, ...] | None:
    """Return (estado, intentos, ignorado, error) of the only event."""
    return conn.execute("select estado::text, intentos, ignorado, ultimo_error from cauce.eventos").fetchone()


def claimed(conn: Conn) -> tuple[int, Claimed]:
    """Publish one event and claim it."""
    (event,) = publish(conn)
    return event, claim(conn)


def test_done(conn: Conn) -> None:
    """An event without a report is `procesado`, at its first attempt, and leaves no rows."""
    _, batch = claimed(conn)
    settle(conn, batch)
    assert evento(conn) == ("procesado", 1, False, None)
    assert value(conn, "select procesado_en is not null from cauce.eventos")
    assert value(conn, "select count(*) from cauce.lotes") == value(conn, "select count(*) from cauce.entregas") == 0


def test_failed(conn: Conn) -> None:
    """`reintentar`: due again after its wait; the event is `en_proceso` and knows the error; the failure is kept."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "s", "reintentar", espera=60)])
    assert entrega(conn) == ("pendiente", 1, 0, False, False)
    assert evento(conn) == ("en_proceso", 1, False, "ValueError: no")
    assert conn.execute(
        "select f.evento, f.grupo, f.suscriptor, f.intento, f.error, c.traza, f.trabajador"
        "  from cauce.fallos f join cauce.causas c using (huella)"
    ).fetchall() == [(event, "principal", "s", 1, "ValueError: no", "...", "w")]
    assert not claim(conn)


def test_failed_and_due_again(conn: Conn) -> None:
    """A retry comes under the subscriber's name, counts on, and when it is done its row goes."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "s", "reintentar", espera=0)])
    again = claim(conn)
    assert [(r.id, r.suscriptor, r.intento) for r in again.rows] == [(event, "s", 2)]
    assert entrega(conn) == ("pendiente", 1, 0, True, True)
    settle(conn, again, [outcome(event, "s", "reintentar", 2, espera=0)])
    third = claim(conn)
    settle(conn, third, [outcome(event, "s", "hecha", 3)])
    assert entrega(conn) is None
    assert evento(conn) == ("procesado", 3, False, "ValueError: no")
    assert value(conn, "select count(*) from cauce.fallos") == 2


def test_dead(conn: Conn) -> None:
    """`muerta`: no more attempts; the event is in `error`."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "s", "muerta")])
    assert entrega(conn) == ("error", 1, 0, False, True)
    assert evento(conn) == ("error", 1, False, "ValueError: no")
    assert not claim(conn)


def test_one_dead_subscriber_outweighs_those_that_still_try(conn: Conn) -> None:
    """`error` while one is dead, whatever the others do; their attempts go on."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "a", "muerta"), outcome(event, "b", "reintentar", espera=0)])
    assert state(conn, event) == "error"
    again = claim(conn)
    assert [r.suscriptor for r in again.rows] == ["b"]
    settle(conn, again, [outcome(event, "b", "hecha", 2)])
    assert state(conn, event) == "error"
    assert value(conn, "select cauce.descartar(%s)", event) == 1
    assert evento(conn) == ("procesado", 2, True, "ValueError: no")


def test_given_back_whole(conn: Conn) -> None:
    """`devuelta` for all: the event is `pendiente` again, no attempt is spent, and it comes whole."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "*", "devuelta", espera=0)])
    assert evento(conn) == ("pendiente", 0, False, None)
    again = claim(conn)
    assert [(r.suscriptor, r.intento, r.caidas) for r in again.rows] == [("*", 1, 0)]
    settle(conn, again, [outcome(event, "*", "hecha", 1)])
    assert evento(conn) == ("procesado", 1, False, None)


def test_one_delivery_given_back(conn: Conn) -> None:
    """`devuelta` for one subscriber of several: the others are done and do not run again."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "s", "devuelta", espera=0)])
    assert evento(conn) == ("en_proceso", 0, False, None)
    again = claim(conn)
    assert [(r.suscriptor, r.intento) for r in again.rows] == [("s", 1)]
    settle(conn, again, [outcome(event, "s", "devuelta", 1, espera=0)])
    assert entrega(conn) == ("pendiente", 0, 0, False, True)


def test_kept_in_hand(conn: Conn) -> None:
    """`retenida`: a row of its own under the same lease, so that no other worker gets it and a crash frees only it."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "a", "retenida"), outcome(event, "b", "retenida")])
    assert entrega(conn, "a") == entrega(conn, "b") == ("pendiente", 0, 0, True, False)
    assert evento(conn) == ("en_proceso", 1, False, None)
    assert not claim(conn)
    settle(conn, batch, [outcome(event, "a", "hecha")], ids=[])
    settle(conn, batch, [outcome(event, "b", "reintentar", espera=0)], ids=[])
    assert value(conn, "select count(*) from cauce.lotes") == 0
    again = claim(conn)
    assert [(r.suscriptor, r.intento) for r in again.rows] == [("b", 2)]
    settle(conn, again, [outcome(event, "b", "hecha", 2)])
    assert state(conn, event) == "procesado"


def test_ignored(conn: Conn) -> None:
    """`ignorada`: the event is `procesado` and says that nobody handles it."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "*", "ignorada", error="nobody handles it")])
    assert evento(conn) == ("procesado", 1, True, "nobody handles it")
    assert value(conn, "select count(*) from cauce.entregas") == 0


def test_a_retry_that_nobody_handles_any_more_is_ignored_too(conn: Conn) -> None:
    """`ignorada` for a stored delivery: its row goes."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "*", "devuelta", espera=0)])
    settle(conn, claim(conn), [outcome(event, "*", "ignorada", error="nobody handles it")])
    assert evento(conn) == ("procesado", 1, True, "nobody handles it")
    assert value(conn, "select count(*) from cauce.entregas") == 0


def test_a_batch_of_every_outcome(conn: Conn) -> None:
    """One settlement says everything at once, each of its own event."""
    events = publish(conn, 6)
    done, failed, dead, back, ignored, two = events
    settle(
        conn,
        claim(conn),
        [
            outcome(failed, "s", "reintentar", espera=60),
            outcome(dead, "s", "muerta"),
            outcome(back, "*", "devuelta", espera=60),
            outcome(ignored, "*", "ignorada", error="nobody"),
            outcome(two, "a", "reintentar", espera=60),
            outcome(two, "b", "reintentar", espera=60),
        ],
    )
    assert [state(conn, e) for e in (done, failed, dead, back, ignored, two)] == [
        "procesado",
        "en_proceso",
        "error",
        "pendiente",
        "procesado",
        "en_proceso",
    ]


def test_attempts_of_an_event_are_those_of_its_most_tried_delivery(conn: Conn) -> None:
    """`intentos` is the highest attempt of any subscriber."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "a", "reintentar", espera=0), outcome(event, "b", "reintentar", espera=60)])
    settle(conn, claim(conn), [outcome(event, "a", "reintentar", 2, espera=0)])
    settle(conn, claim(conn), [outcome(event, "a", "hecha", 3)])
    assert evento(conn) == ("en_proceso", 3, False, "ValueError: no")


def test_a_retry_reported_twice_counts_once(conn: Conn) -> None:
    """After a lost connection the same report may come again: the fence refuses it."""
    event, batch = claimed(conn)
    settle(conn, batch, [outcome(event, "a", "retenida"), outcome(event, "b", "retenida")])
    settle(conn, batch, [outcome(event, "a", "hecha")], ids=[])
    with pytest.raises(psycopg.DatabaseError, match="no longer holds a delivery") as refused:
        settle(conn, batch, [outcome(event, "a", "hecha")], ids=[])
    assert refused.value.sqlstate == "CA001"


def test_due_retries_take_at_most_half_of_a_claim(conn: Conn) -> None:
    """A storm of retries does not stop new events, nor new events the retries."""
    events = publish(conn, 20)
    settle(conn, claim(conn), [outcome(e, "s", "reintentar", espera=0) for e in events])
    new = publish(conn, 20)
    batch = claim(conn, 10)
    assert [r.suscriptor for r in batch.rows] == ["s"] * 5 + [None] * 5
    assert batch.new == new[:5]


def test_a_claim_that_a_ring_woke_looks_for_new_events_first(conn: Conn) -> None:
    """Retries wait for the next claim, which settles that batch; where there is nothing new they come at once."""
    retried = publish(conn, 3)
    settle(conn, claim(conn), [outcome(e, "s", "reintentar", espera=0) for e in retried])
    new = publish(conn, 5)
    first, second = claim(conn, 10, rung=True), claim(conn, 2, rung=True)
    assert first.new == new
    assert [row.suscriptor for row in first.rows] == [None] * 5
    assert [(row.id, row.suscriptor) for row in second.rows] == [(retried[0], "s")]
    settle(conn, first)
    last = publish(conn, 1)
    assert [row.id for row in claim(conn, 10).rows] == [*retried[1:], *last]


def test_a_claim_that_a_ring_woke_hands_out_suspects_where_there_is_nothing_else(conn: Conn) -> None:
    """What a dead worker held does not wait for a claim that nobody rang for."""
    event = publish(conn, 1)
    claim(conn, worker="dead", lease="-1 s")
    conn.execute("select cauce.rescatar(3)")
    assert [row.id for row in claim(conn, 1, rung=True).rows] == event


def test_due_retries_leave_every_second_claim_of_one_to_new_events(conn: Conn) -> None:
    """Also where a worker claims one at a time, because its handlers are slow."""
    events = publish(conn, 30)
    settle(conn, claim(conn), [outcome(e, "s", "reintentar", espera=0) for e in events])
    publish(conn, 30)
    new = 0
    for _ in range(30):
        batch = claim(conn, 1)
        new += len(batch.new)
        settle(conn, batch, [outcome(r.id, "s", "hecha", r.intento) for r in batch.rows if r.suscriptor])
    assert 5 <= new <= 25


def test_due_retries_come_urgent_ones_first_then_the_longest_due(conn: Conn) -> None:
    """By priority, then by when they were due."""
    late, early, urgent = *publish(conn, 2), *publish(conn, prioridad=0)
    conn.execute("select setseed(0)")  # no claim begins at another lane: the mark of this one would pass the retries by
    for _ in range(2):
        batch = claim(conn)
        settle(conn, batch, [outcome(e, "s", "reintentar", espera=0) for e in batch.ids])
    conn.execute("update cauce.entregas set proximo_en = proximo_en - interval '1 h' where evento = %s", (early,))
    order = []
    while batch := claim(conn, 2):
        order += batch.ids
        settle(conn, batch, [outcome(r.id, "s", "hecha", r.intento) for r in batch.rows])
    assert order == [urgent, early, late]


@pytest.mark.parametrize(
    "statement",
    [
        "update cauce.eventos set estado = 'procesado'",
        "update cauce.eventos set procesado_en = now()",
        "update cauce.eventos set estado = 'otro'",
        "update cauce.eventos set payload = null",
        "update cauce.eventos set prioridad = 10",
        "update cauce.eventos set origen = ''",
        """insert into cauce.lotes (id, grupo, ids, trabajador, arriendo_hasta) values (-1, 'g', '{}', 'w', now())""",
        """insert into cauce.lotes (id, grupo, ids, reintentos, trabajador, arriendo_hasta)
           values (-1, 'g', '{}', '{1}', 'w', now())""",
        """insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en)
           values (1, 'g', 's', 5, 'procesado', 0, now())""",
        """insert into cauce.entregas (evento, grupo, suscriptor, prioridad, intentos, proximo_en)
           values (1, 'g', 's', 5, -1, now())""",
    ],
)
def test_the_tables_refuse_a_state_that_makes_no_sense(conn: Conn, statement: Any) -> None:
    """The invariants are the database's: `procesado` exactly with its time, no lote that does not add up."""
    publish(conn)
    with pytest.raises((psycopg.errors.IntegrityError, psycopg.errors.DataError)):
        conn.execute(statement)
    assert states(conn) == {"pendiente": 1}


@pytest.mark.parametrize(
    ("reports", "why"),
    [
        ([("s", "perdida")], "has an unknown resultado, 'perdida'"),
        ([("s", "devuelta"), ("s", "devuelta")], "is reported twice"),
        ([("s", "devuelta"), ("*", "devuelta")], "stands for its whole event"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(conn: Conn, reports: list[tuple[str, str]], why: str) -> None:
    """It names what is wrong with which delivery, and nothing changes; the lease is still there to settle."""
    event, batch = claimed(conn)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=why) as refused:
        settle(conn, batch, [outcome(event, suscriptor, resultado) for suscriptor, resultado in reports])
    assert f"event {event}, subscriber" in str(refused.value)
    assert entrega(conn) is None
    settle(conn, batch)
    assert state(conn, event) == "procesado"


def test_an_incomplete_report_is_refused(conn: Conn) -> None:
    """No error for a failure, no subscriber, an attempt before the first."""
    event, batch = claimed(conn)
    for wrong in (
        {"evento": event, "suscriptor": "s", "resultado": "muerta", "intento": 1},
        {"evento": event, "resultado": "devuelta", "intento": 1},
        outcome(event, "s", "devuelta", 0),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="report of lote"):
            settle(conn, batch, [wrong])
    settle(conn, batch)


def test_a_settlement_names_each_event_once(conn: Conn) -> None:
    """An id that is given twice is refused."""
    event, batch = claimed(conn)
    with pytest.raises(psycopg.DatabaseError, match="each once"):
        settle(conn, batch, ids=[event, event])


def test_a_cause_is_stored_once_and_asked_for_when_it_is_missing(conn: Conn) -> None:
    """Its traceback comes with the first failure; of a cause that nobody has explained, the settlement says so."""
    told: list[list[int]] = []
    causes: list[dict[str, object]] = [{"huella": 7, "traza": "Traceback"}, {"huella": 8}]
    for event, more in zip(publish(conn, 2), causes, strict=True):
        batch = claim(conn, 1)
        report = {"evento": event, "suscriptor": "s", "resultado": "muerta", "intento": 1, "error": "E: x", **more}
        told.append(
            value(conn, "select cauce.terminar(%s, %s, null, %s::jsonb)", batch.lote, batch.ficha, json.dumps([report]))
        )
    assert told == [[], [8]]
    assert conn.execute("select huella, traza from cauce.causas").fetchall() == [(7, "Traceback")]
