"""What people see of a family: ``operations.why`` and the commands, on events that the database holds."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from cauce import NotFound
from cauce.cli.families import of_family
from cauce.cli.tables import show
from cauce.database import operations
from cauce.testing import Database

Conn = psycopg.Connection[Any]


def publish(conn: Conn, tipo: str, causa: int | None = None) -> int:
    """Publish an event in the name of its cause."""
    statement = "select cauce.publicar_evento('prueba', %s, '{}', causa => %s)"
    row = conn.execute(statement, (tipo, causa)).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def conn(cauce_db: Database) -> Any:
    """A connection in autocommit."""
    with cauce_db.connect(autocommit=True) as conn:
        yield conn


def outline(family: operations.Family) -> list[tuple[int, int]]:
    """Return each event with its depth."""
    return [(event.id, event.nivel) for event in family.eventos]


def test_a_family_is_a_tree_whoever_of_it_is_asked_for(conn: Conn) -> None:
    """Each event stands behind its cause, before its cause's next effect; strangers are not there."""
    root = publish(conn, "raiz")
    publish(conn, "ajeno")
    first, second = publish(conn, "uno", root), publish(conn, "dos", root)
    grandchild = publish(conn, "nieto", first)
    for asked in (root, first, second, grandchild):
        family = operations.why(conn, asked)
        assert (family.evento, family.raiz, family.hay_mas) == (asked, root, False)
        assert outline(family) == [(root, 0), (first, 1), (grandchild, 2), (second, 1)]


def test_a_large_family_is_cut_and_says_so(conn: Conn) -> None:
    """The oldest are shown, and the causes of the event that was asked for, however young it is."""
    root = publish(conn, "raiz")
    children = [publish(conn, "hijo", root) for _ in range(5)]
    youngest = publish(conn, "nieto", children[-1])
    family = operations.why(conn, youngest, limit=2)
    assert family.hay_mas
    assert outline(family) == [(root, 0), (children[0], 1), (children[-1], 1), (youngest, 2)]
    assert not operations.why(conn, root, limit=7).hay_mas


def test_what_retention_took_is_named(conn: Conn, capsys: pytest.CaptureFixture[str]) -> None:
    """The root may be gone, or a cause in the middle: the rest is still a family."""
    root = publish(conn, "raiz")
    child = publish(conn, "hijo", root)
    grandchild = publish(conn, "nieto", child)
    conn.execute("delete from cauce.eventos where id in (%s, %s)", (root, child))
    for asked in (root, grandchild):
        family = operations.why(conn, asked)
        assert (family.raiz, outline(family)) == (root, [(grandchild, 0)])
        show(family, of_family, json=False)
        printed = capsys.readouterr().out
        assert f"Event {root}, the first of the family, is not stored any more." in printed
        assert f"caused by event {child}, which is not shown" in printed


def test_a_circle_ends(conn: Conn) -> None:
    """Only somebody who writes the table by hand can make one."""
    one = publish(conn, "uno")
    two = publish(conn, "dos", one)
    conn.execute("alter table cauce.eventos disable trigger user")
    conn.execute("update cauce.eventos set causa = %s, correlacion = %s where id = %s", (two, one, one))
    assert sorted(outline(operations.why(conn, two))) == [(one, 0), (two, 1)]


def test_an_unknown_event_is_named(conn: Conn) -> None:
    """It has no family, and no cause."""
    with pytest.raises(NotFound, match="no event 77"):
        operations.why(conn, 77)
