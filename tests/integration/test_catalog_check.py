"""``cauce catalog check``: every stored event is read as the program would, and nothing is written."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cauce.cli.app import run
from cauce.database.retained import ends
from tests.integration.engine.kit import column

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cauce.testing import Database

PROGRAM = """
from typing import Any
from pydantic import BaseModel
from cauce import Bus, Catalog, EventHandlers, EventType, Evento

class Precio(BaseModel):
    importe: int

class TiendaEvents(Catalog, origen="tienda"):
    fijado = EventType("precio.fijado", Precio, version=2)
    quitado = EventType("precio.quitado", Precio)

@TiendaEvents.fijado.upcast(1)
def rename(payload: dict[str, Any]) -> dict[str, Any]:
    return {"importe": payload["precio"]}

def quiet(evento: Evento[Precio]) -> None: ...

bus = Bus(catalogs=[TiendaEvents], event_handlers=EventHandlers(
    TiendaEvents.fijado.handled_by(quiet), TiendaEvents.quitado.handled_by(quiet)))
"""
STORED = (
    ("tienda", "precio.fijado", '{"precio": 1}', None),
    ("tienda", "precio.fijado", '{"importe": 2}', '{"version": 2}'),
    ("tienda", "precio.fijado", '{"importe": 3}', None),
    ("tienda", "precio.fijado", '{"importe": 4}', '{"version": 3}'),
    ("tienda", "precio.quitado", '{"importe": "x"}', "[1]"),
    ("tienda", "precio.quitado", '{"importe": 6}', None),
    ("otra", "cosa", "{}", None),
)


@pytest.fixture
def stored(cauce_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    """Store the events, in pages of two, beside one without JSON; write the program."""
    (tmp_path / "tienda_revisada.py").write_text(PROGRAM)
    monkeypatch.setenv("DATABASE_URL", make_conninfo(cauce_db.dsn, options="-c default_transaction_read_only=on"))
    monkeypatch.setattr("cauce.database.retained.PAGE", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with psycopg.connect(cauce_db.dsn, autocommit=True) as conn:
        for each in STORED:
            conn.execute("select cauce.publicar_evento(%s, %s, %s::jsonb, cabeceras => %s::jsonb)", each)
        conn.execute("insert into cauce.eventos (origen, tipo, cuerpo) values ('tienda', 'precio.fijado', 'raw')")
        yield conn
    sys.modules.pop("tienda_revisada", None)


def check(*options: str) -> int:
    """Check the events."""
    return run(["catalog", "check", "tienda_revisada:bus", *options])


def test_what_cannot_be_read_is_counted_by_type_with_its_reason(
    stored: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The connection could not write anything, not even the catalog."""
    first, *ids = column(stored, "select id from cauce.eventos order by id")
    assert check("--json") == 1
    found = json.loads(capsys.readouterr().out)
    fixed, removed = found["tipos"]
    assert (found["eventos"], found["ilegibles"]) == (6, 3)
    assert [fixed[key] for key in ("tipo", "version", "eventos", "ilegibles")] == ["precio.fijado", 2, 4, 2]
    assert [example["id"] for example in fixed["ejemplos"]] == [ids[1], ids[2]]
    assert "raised KeyError: 'precio'" in fixed["ejemplos"][0]["error"]
    assert "has version 3, and tienda/precio.fijado here has version 2" in fixed["ejemplos"][1]["error"]
    assert "the payload is not a valid Precio" in removed["ejemplos"][0]["error"]
    assert found["desconocidos"] == [{"origen": "otra", "tipo": "cosa", "eventos": 1}]
    assert check() == 1
    told = capsys.readouterr().out
    assert f"  event {ids[1]}: the upcaster from version 1, rename" in told
    assert "otra/cosa: 1 event, not of this bus" in told
    assert told.endswith("3 of 6 events cannot be read\n")
    assert ends(stored) == (first, ids[-1])


def test_a_part_of_the_events_is_checked(stored: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Those of one origin, one name, and from a time on."""
    assert check("--origen", "otra") == 0
    assert check("--tipo", "precio.quitado") == 1
    stored.execute("update cauce.eventos set creado_en = '2001-01-01 10:00+00' where payload ->> 'importe' = '6'")
    stored.execute("update cauce.eventos set creado_en = '2000-01-01 10:00+00' where payload ->> 'importe' <> '6'")
    capsys.readouterr()
    assert check("--tipo", "precio.quitado", "--since", "2000-06-01", "--json") == 0
    assert json.loads(capsys.readouterr().out)["eventos"] == 1


def test_a_database_without_tables_says_to_migrate(
    dsn: str, stored: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As every look does."""
    assert stored.closed is False
    monkeypatch.setenv("DATABASE_URL", dsn)
    assert check() == 1
    assert "run: cauce migrate" in capsys.readouterr().err
