"""The command line as a user meets it: real processes, a real database."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from cauce.testing import wait_for

if TYPE_CHECKING:
    from cauce.testing import Database

TOP = Path(__file__).parents[2]
CAUCE = [str(Path(sys.executable).with_name("cauce"))]


def cauce(*arguments: str, dsn: str = "", cwd: Path = TOP, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        [*CAUCE, *arguments], env={**os.environ, "DATABASE_URL": dsn}, cwd=cwd, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The first bus of README.md, as a reader would copy it."""
    text = (TOP / "README.md").read_text()
    files = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in files] == ["tienda.py", "vender.py"]
    for name, content in files:
        (tmp_path / name).write_text(content)
    return tmp_path


def test_the_readme_works_to_the_letter(shop: Path, dsn: str) -> None:
    """Migrate, sell, work: the event is processed, the invoice is there, and SIGTERM ends the worker with 0."""
    run = re.findall(r"<!-- run -->\n```sh\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)[0]
    migrate, sell, work = (line.split("#")[0].split() for line in run.strip().splitlines())
    assert "applied 0001_tables" in cauce(*migrate[1:], dsn=dsn, cwd=shop).stdout
    assert "up to date" in cauce(*migrate[1:], dsn=dsn, cwd=shop).stdout
    environment = {**os.environ, "DATABASE_URL": dsn}
    subprocess.run([sys.executable, *sell[1:]], cwd=shop, env=environment, check=True, timeout=60)
    with (
        psycopg.connect(dsn, autocommit=True) as conn,
        subprocess.Popen([*CAUCE, *work[1:]], cwd=shop, env=environment, stdout=subprocess.PIPE, text=True) as worker,
    ):
        wait_for(
            lambda: conn.execute("select 1 from cauce.eventos where estado = 'procesado'").fetchone(),
            "the event is processed", seconds=30,
        )  # fmt: skip
        worker.send_signal(signal.SIGTERM)
        output, _ = worker.communicate(timeout=30)
        assert worker.returncode == 0
        assert output == "pedido 42: 1:principal:avisos\n"
        assert conn.execute("select * from facturas").fetchall() == [(42, 1900)]


def test_looking_and_mending(shop: Path, dsn: str) -> None:
    """Publish, list, show, retry and discard, for people and for scripts."""
    cauce("migrate", "tienda:bus", dsn=dsn, cwd=shop)
    published = cauce("publish", "pedido", "pedido.creado", '{"pedido_id": 1, "total": 2}', "--json", dsn=dsn)
    assert json.loads(published.stdout) == {"id": 1}
    page = json.loads(cauce("events", "--estado", "pendiente", "--json", dsn=dsn).stdout)
    assert [(e["id"], e["tipo"], e["clave"]) for e in page["eventos"]] == [(1, "pedido.creado", "1")]
    shown = json.loads(cauce("show", "1", "--json", dsn=dsn).stdout)
    assert [step["suscriptor"] for step in shown["camino"]] == ["manejador", "avisos"]
    assert json.loads(cauce("status", "--json", dsn=dsn).stdout)["estados"]["pendiente"] == 1
    for command in ("status", "events", "show 1"):
        assert cauce(*command.split(), dsn=dsn).stdout
    nothing = cauce("retry", "1", dsn=dsn, ok=False)
    assert (nothing.returncode, nothing.stderr) == (
        1, "cauce: event 1 has nothing to retry: no delivery failed or waits\n",
    )  # fmt: skip
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en)"
            " values (1, 'principal', 'avisos', 5, 'error', 3, now())"
        )
        assert json.loads(cauce("retry", "1", "--json", dsn=dsn).stdout) == {"id": 1, "entregas": 1}
        assert "--yes" in cauce("discard", "1", dsn=dsn, ok=False).stderr
        assert "1 delivery of event 1 discarded" in cauce("discard", "1", "--yes", dsn=dsn).stdout
        assert conn.execute("select count(*) from cauce.entregas").fetchone() == (0,)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("status", 1, "DATABASE_URL is not set"),
        ("worker nowhere:bus", 1, "there is no module nowhere"),
        ("worker json:bus", 1, "has no 'bus'"),
        ("worker json", 1, "write module:bus"),
        ("status --nonsense", 2, "--nonsense"),
        ("show one", 2, "one"),
    ],
)
def test_mistakes_are_told_in_one_line(command: str, code: int, said: str) -> None:
    """Each mistake has its exit code and one line that says what to do; no traceback."""
    done = cauce(*command.split(), ok=False)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unmigrated_database_is_told(dsn: str) -> None:
    """Looking at a database without tables says which command makes them."""
    assert "run: cauce migrate" in cauce("status", dsn=dsn, ok=False).stderr


def test_serve_with_worker_answers_and_stops(shop: Path, db: Database) -> None:
    """One process serves HTTP and works; SIGTERM ends both with 0."""
    cauce("migrate", "tienda:bus", dsn=db.dsn, cwd=shop)
    environment = {**os.environ, "DATABASE_URL": db.dsn, "CRON_SECRET": "s"}
    command = [*CAUCE, "serve", "tienda:bus", "--port", "0", "--worker"]
    with subprocess.Popen(command, cwd=shop, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if "listening on" in line:
                break
        with db.connect(autocommit=True) as conn:
            wait_for(lambda: conn.execute("select 1 from cauce.trabajadores").fetchone(), "a worker shows itself")
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait(timeout=30) == 0


def test_the_demo_ends_by_itself() -> None:
    """Without a terminal the demo plays to its end and finds everything as it should be."""
    played = cauce("demo")
    assert "every event's journey" in played.stdout
    assert "not as it should be" not in played.stdout
