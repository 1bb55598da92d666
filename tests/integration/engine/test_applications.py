"""Retries belong to an application: the one whose worker claimed the event, unless the report names another."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from tests.integration.engine.kit import Conn, claim, outcome, publish, settle, until, value

SLOW_HANDS = """
create or replace view cauce.en_mano as
    select l.id lote, l.grupo, u.evento, u.suscriptor, l.trabajador, l.tomado_en, l.arriendo_hasta
      from (select pg_advisory_xact_lock(4711) offset 0) once
     cross join cauce.lotes l cross join lateral unnest(l.reintentos, l.suscriptores) u(evento, suscriptor)
"""


def deploy(conn: Conn, aplicacion: str, *grupos: str) -> None:
    """Say that the application has a subscriber in each of these groups, and nothing else."""
    subscriptions = [{"grupo": g, "suscriptor": aplicacion, "origen": "prueba", "tipo": "hecha"} for g in grupos]
    conn.execute("select cauce.guardar_catalogo(%s, '[]', %s, true)", (aplicacion, json.dumps(subscriptions)))


@pytest.mark.parametrize("size", [1, 10])
def test_a_retry_comes_only_to_its_application(conn: Conn, size: int) -> None:
    """The one that claimed the event; another one finds nothing due, however often it asks."""
    (event,) = publish(conn)
    settle(conn, claim(conn, aplicacion="tienda"), [outcome(event, "s", "reintentar", espera=0)])
    assert not any(claim(conn, size, aplicacion="otra") or claim(conn, size) for _ in range(10))
    again = claim(conn, size, aplicacion="tienda")
    assert [(row.id, row.suscriptor) for row in again.rows] == [(event, "s")]


def test_a_retry_of_another_application_does_not_come_along(conn: Conn) -> None:
    """Each finds its own, where both have one that is due."""
    first, second = publish(conn, 2)
    for event, aplicacion in ((first, "tienda"), (second, "otra")):
        settle(conn, claim(conn, 1, aplicacion=aplicacion), [outcome(event, "s", "reintentar", espera=0)])
    assert [claim(conn, 10, aplicacion=aplicacion).ids for aplicacion in ("otra", "tienda")] == [[second], [first]]


def test_a_report_can_leave_a_delivery_to_another_application(conn: Conn) -> None:
    """What a worker does not know it gives back to those who do; their application keeps it from then on."""
    (event,) = publish(conn)
    settle(conn, claim(conn, aplicacion="a"), [outcome(event, "s", "devuelta", espera=0, aplicacion="b")])
    assert not claim(conn, aplicacion="a")
    settle(conn, claim(conn, aplicacion="b"), [outcome(event, "s", "reintentar", espera=0)])
    assert not claim(conn, aplicacion="a")
    assert claim(conn, aplicacion="b").ids == [event]


def test_what_a_dead_worker_held_stays_with_its_application(conn: Conn) -> None:
    """Both an event that came for the first time and a retry are handed out again to workers of the same one."""
    retried, new = publish(conn, 2)
    settle(conn, claim(conn, 1, aplicacion="tienda"), [outcome(retried, "s", "reintentar", espera=0)])
    assert claim(conn, 2, aplicacion="tienda", lease=0).ids == [retried, new]
    assert value(conn, "select cauce.rescatar(3)") == 1
    assert not any(claim(conn, aplicacion="otra") for _ in range(10))
    assert {tuple(claim(conn, worker=w, aplicacion="tienda").ids) for w in "ab"} == {(retried,), (new,)}


def test_what_an_application_left_in_a_group_goes_to_one_that_is_in_it(conn: Conn) -> None:
    """The application lives on, but its workers do not come into that group any more; nor do those of a third one."""
    for aplicacion, *grupos in (("a", "aparte", "principal"), ("b", "aparte"), ("c", "principal")):
        deploy(conn, aplicacion, *grupos)
    (event,) = publish(conn)
    settle(conn, claim(conn, grupo="aparte", aplicacion="a"), [outcome(event, "a", "reintentar", espera=0)])
    deploy(conn, "c", "principal")
    assert not claim(conn, grupo="aparte", aplicacion="b")
    deploy(conn, "a", "principal")
    assert claim(conn, grupo="aparte", aplicacion="b").ids == [event]


def test_what_is_being_claimed_is_not_given_to_another_application(conn: Conn, connect: Callable[..., Conn]) -> None:
    """The claim commits while the deliveries of its application, which is gone, are looked for."""
    deploy(conn, "b", "principal")
    (event,) = publish(conn)
    settle(conn, claim(conn, aplicacion="a"), [outcome(event, "s", "reintentar", espera=0)])
    conn.execute(SLOW_HANDS)
    claiming, adopting, gate = connect(autocommit=False), connect(), connect()
    gate.execute("select pg_advisory_lock(4711)")
    held = claim(claiming, aplicacion="a")
    thread = threading.Thread(target=adopting.execute, args=("select cauce.adoptar_entregas('b')",))
    thread.start()
    waits = "select cardinality(pg_blocking_pids(%s)) > 0"
    until(lambda: not thread.is_alive() or value(conn, waits, adopting.info.backend_pid), "the end, or the gate")
    claiming.commit()
    gate.execute("select pg_advisory_unlock(4711)")
    thread.join()
    assert (held.ids, claim(conn, aplicacion="b").ids) == ([event], [])
