"""Retries belong to an application: the one whose worker claimed the event, unless the report names another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.engine.kit import claim, outcome, publish, settle, value

if TYPE_CHECKING:
    from tests.integration.engine.kit import Conn


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
