"""The example application lies as the seed describes it, and is reached as its README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from cauce.testing import Database

EXAMPLE = Path(__file__).parents[2] / "examples" / "reservas"
README = (EXAMPLE / "README.md").read_text()


@pytest.mark.parametrize(
    "name",
    [
        "src/events/types/eventos.py",
        "src/events/stripe/handlers/checkout_session_completed.py",
        "src/events/stripe/handlers/payment_intent_succeeded.py",
        "src/events/reserva/handlers/reserva_creada.py",
        "src/events/reserva/handlers/reserva_cancelada.py",
        "src/events/subscribers",
        "src/events/__init__.py",
        "app/api/webhooks/stripe/route.py",
        "app/api/trabajadores/procesar_lote/route.py",
        "app/trabajadores",
    ],
)
def test_every_file_of_the_seed_is_there(name: str) -> None:
    """The contract names files; each is where it says, in Python's spelling."""
    assert (EXAMPLE / name).exists()


def test_the_map_fits_a_screen() -> None:
    """`src/events/__init__.py` is read at a glance."""
    assert len((EXAMPLE / "src/events/__init__.py").read_text().splitlines()) <= 50


@pytest.mark.parametrize("name", re.findall(r"`((?:src|app|tests|schema)[\w./]*)`", README))
def test_the_readme_names_what_is_there(name: str) -> None:
    """Its table of files has no file that is gone."""
    assert (EXAMPLE / name).exists()


def test_the_schema_can_be_applied_again(dsn: str) -> None:
    """The README applies it with psql, and a second time does no harm."""
    with psycopg.connect(dsn) as conn:
        for _ in range(2):
            conn.execute((EXAMPLE / "schema.sql").read_bytes())


def test_the_bus_is_found_from_anywhere(db: Database) -> None:
    """`events:bus` needs nothing but `examples/reservas/src` on the path, and its catalog can be written."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import psycopg\nfrom cauce.database.schema import migrate\nfrom events import bus\n"
        "migrate(psycopg.connect(sys.argv[1], autocommit=True), bus)\n"
    )
    command = [sys.executable, "-c", program, db.dsn, str(EXAMPLE / "src")]
    subprocess.run(command, cwd="/", check=True, timeout=60)
    with db.connect() as conn:
        rows = conn.execute("select tipo, prioridad from cauce.catalogo where tipo <> '*' order by prioridad, tipo")
        assert rows.fetchall() == [
            ("checkout.session.completed", 0),
            ("payment_intent.succeeded", 0),
            ("reserva.cancelada", 5),
            ("reserva.creada", 5),
        ]
