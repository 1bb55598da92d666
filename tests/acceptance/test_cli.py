"""The command line as a user meets it: real processes, a real database."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import psycopg
import pytest

from cauce.testing import Database, wait_for
from tests.acceptance.commands import run_command

TOP = Path(__file__).parents[2]
EXAMPLE = TOP / "examples" / "reservas" / "src"
SOME = "insert into cauce.eventos (origen, tipo, payload) select 'prueba', 'una', '{}' from generate_series(1, %s)"
CAUCE = [str(Path(sys.executable).with_name("cauce"))]


def cauce(*arguments: str, dsn: str = "", cwd: Path = TOP, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = run_command(arguments, {**os.environ, "DATABASE_URL": dsn}, cwd=cwd)
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
    """Publish, list, show, retry and dismiss, for people and for scripts."""
    cauce("migrate", "tienda:bus", dsn=dsn, cwd=shop)
    published = cauce("publish", "pedido", "pedido.creado", '{"pedido_id": 1, "total": 2}', "--json", dsn=dsn)
    assert json.loads(published.stdout) == {"id": 1}
    page = json.loads(cauce("events", "--estado", "pendiente", "--json", dsn=dsn).stdout)
    assert [(e["id"], e["tipo"], e["clave"]) for e in page["eventos"]] == [(1, "pedido.creado", "1")]
    shown = json.loads(cauce("show", "1", "--json", dsn=dsn).stdout)
    assert [step["suscriptor"] for step in shown["camino"]] == ["manejador", "avisos"]
    assert json.loads(cauce("status", "--json", dsn=dsn).stdout)["estados"]["pendiente"] == 1
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into cauce.rechazados (origen, razon, detalle, url, cabeceras, tamano)"
            " values ('stripe', 'stale', '', '', '[]', 0)"
        )
    refused = cauce("status", dsn=dsn).stdout
    assert re.search(r"^Refused  webhooks 1, the newest \d+ s ago: cauce webhook rejected$", refused, re.MULTILINE)
    assert json.loads(cauce("status", "--json", dsn=dsn).stdout)["cuarentena"]["rechazados"] == 1
    for command in ("events", "show 1"):
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
        assert json.loads(cauce("retry", "1", "--json", dsn=dsn).stdout) == {
            "entregas": 1, "eventos": [{"id": 1, "entregas": 1}], "desconocidos": [],
        }  # fmt: skip
        assert "--yes" in cauce("dismiss", "1", dsn=dsn, ok=False).stderr
        assert "1 delivery of event 1 dismissed" in cauce("dismiss", "1", "--yes", dsn=dsn).stdout
        assert conn.execute("select count(*) from cauce.entregas").fetchone() == (0,)


def test_a_subscriber_is_removed_and_an_application_moves(shop: Path, dsn: str) -> None:
    """`migrate` says what it removes, `status` what that has left, `dismiss` ends it; `--take-over` and `--forget`."""
    cauce("migrate", "tienda:bus", dsn=dsn, cwd=shop)
    cauce("publish", "pedido", "pedido.creado", '{"pedido_id": 1, "total": 2}', dsn=dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en)"
            " values (1, 'principal', 'avisos', 5, 'error', 3, now())"
        )
    code = (shop / "tienda.py").read_text()
    (shop / "tienda.py").write_text(
        f'{code}\nbus = Bus(catalogs=bus.catalogs, event_handlers=bus.event_handlers, application="t")\n'
    )
    refused = cauce("migrate", "tienda:bus", dsn=dsn, cwd=shop, ok=False)
    assert (
        "manejador of pedido/pedido.creado in group principal belongs to application ''; this one is 't'"
        in refused.stderr
    )
    assert "cauce migrate module:bus --take-over" in refused.stderr
    cauce("migrate", "tienda:bus", "--take-over", dsn=dsn, cwd=shop)
    forgotten = cauce("migrate", "--forget", "", dsn=dsn).stdout
    assert "removed avisos of pedido/pedido.creado in group principal\n" in forgotten
    assert json.loads(cauce("migrate", "tienda:bus", "--json", dsn=dsn, cwd=shop).stdout)["retiradas"] == []
    said = cauce("status", dsn=dsn).stdout
    assert "Removed  principal/avisos left 0 to retry, 1 dead: cauce dismiss --suscriptor NAME" in said
    done = cauce("dismiss", "--suscriptor", "avisos", "--yes", dsn=dsn)
    assert done.stdout == "1 delivery of subscriber avisos dismissed\n"
    again = cauce("dismiss", "--suscriptor", "avisos", "--yes", "--json", dsn=dsn, ok=False)
    assert (json.loads(again.stdout), again.returncode) == ({"suscriptor": "avisos", "entregas": 0}, 1)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("status", 1, "DATABASE_URL is not set"),
        ("worker nowhere:bus", 1, "there is no module nowhere"),
        ("worker json:bus", 1, "has no 'bus'"),
        ("worker json", 1, "write module:bus, for example json:bus"),
        ("worker tienda.py:bus", 1, "tienda.py is a path, not a module: write tienda:bus"),
        ("worker src/shop/tienda.py", 1, "write tienda:bus --app-dir src/shop"),
        (f"worker events:correo --app-dir {EXAMPLE}", 1, "is a function, not a cauce.Bus; it has events:bus"),
        ("worker events:bus --app-dir nowhere", 1, "there is no folder"),
        ("status --nonsense", 2, "--nonsense"),
        ("show one", 2, "one"),
        ("events --grupo a", 2, "--grupo goes with --dead"),
        ("events --dead --tipo a --clave b", 2, "--tipo, --clave cannot go with --dead"),
        ("events --limit 0", 2, "--limit"),
        ("dismiss 1", 2, "say --yes"),
        ("dismiss -", 2, "say --yes"),
        ("show 1.5", 2, "1.5"),
        ("serve events:bus --port 99999", 2, "--port"),
        ("publish a b {} --prioridad 10", 2, "--prioridad"),
        ("publish a b {n:1} --bus no:bus", 1, "is not JSON: Expecting property name"),
        ("worker tests.bus", 1, "for example tests:bus"),
        ("retry", 2, "Say which events"),
        ("retry 1 x", 2, "'x' is not the id of an event"),
        ("retry 0", 2, "'0' is not the id of an event"),
        ("retry 9223372036854775808", 2, "is not the id of an event"),
        ("dismiss --yes", 2, "Say which events"),
        ("dismiss --suscriptor a", 2, "say --yes"),
        ("migrate --take-over", 2, "--take-over needs a bus"),
    ],
)
def test_mistakes_are_told_in_one_line(command: str, code: int, said: str) -> None:
    """Each mistake has its exit code and one line that says what to do; no traceback."""
    done = cauce(*command.split(), ok=False)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://user:hush@127.0.0.1:1/x", "cannot reach the database of DATABASE_URL: "),
        ("user:hush@localhost", "DATABASE_URL is not an address that libpq can read"),
        ("postgresql+psycopg://user:hush@localhost/x", "leave out the + and the driver's name"),
        ("'postgresql://user:hush@localhost/x'", "begins with a quotation mark"),
    ],
)
def test_a_database_that_is_not_there_is_told_without_its_password(dsn: str, said: str) -> None:
    """One line; and no part of the address that must not be seen."""
    done = cauce("status", dsn=dsn, ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr
    assert "hush" not in done.stderr


def test_settings_that_make_no_sense_are_all_named() -> None:
    """Each with its variable's name and what it is."""
    environment = {**os.environ, "CAUCE_SLOTS": "99", "CAUCE_POOLER": "perhaps"}
    done = subprocess.run([*CAUCE, "status"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "CAUCE_SLOTS: " in done.stderr
    assert "(it is '99')" in done.stderr
    assert "CAUCE_POOLER: " in done.stderr


def test_a_misspelt_setting_is_said_at_the_start() -> None:
    """With the nearest name; the command goes on, for another program may read the variable."""
    environment = {**os.environ, "CAUCE_BATCHSIZE": "7", "DATABASE_URL": ""}
    done = subprocess.run([*CAUCE, "status"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    said = "cauce: CAUCE_BATCHSIZE is not a setting; did you mean CAUCE_BATCH_SIZE? All settings: cauce docs settings"
    assert done.stderr.splitlines()[0] == said


def test_status_says_that_no_worker_runs(db: Database) -> None:
    """After a clean stop nothing is left of a worker; one that is silent is shown, and does not run either."""
    assert "No worker runs. Start one: cauce worker module:bus" in cauce("status", dsn=db.dsn).stdout
    with db.connect(autocommit=True) as conn:
        conn.execute("select cauce.presentar_trabajador('w', '{principal}', 'host', 1)")
        assert "No worker runs" not in cauce("status", dsn=db.dsn).stdout
        conn.execute("update cauce.trabajadores set visto_en = visto_en - interval '1 min'")
    assert re.search(r"silent.*\nNo worker runs", cauce("status", dsn=db.dsn).stdout, re.DOTALL)


BROKEN = {
    "it cannot be imported": (
        "import nowhere_to_be_found",
        ["app.py, line 1", "No module named 'nowhere_to_be_found'"],
    ),
    "it raises": ("x = 1\nx / 0", ["ZeroDivisionError: division by zero", "app.py, line 2"]),
    "a library raises": (
        "import json\n\njson.loads('{')",
        ["JSONDecodeError", "app.py, line 3)"],
    ),
    "it is no Python": ("x = = 1", ["SyntaxError: invalid syntax (app.py, line 1)\n"]),
    "it gives a dict": (
        "from cauce import EventHandlers\n\nEventHandlers({})",
        ["is a dict, and should be a binding", "while app was imported (", "app.py, line 3)."],
    ),
    "its handler has no shape": (
        """
from cauce import Bus, Catalog, EventHandlers, EventType

class Cosas(Catalog, origen="prueba"):
    una = EventType("una", dict)

def handler():
    pass

bus = Bus(catalogs=[Cosas], event_handlers=EventHandlers(Cosas.una.handled_by(handler)))
""",
        ["handler takes 0 parameters", "app.py, line 7)", "app.py, line 10)."],
    ),
    "its bus has faults": (
        """
from cauce import Bus, Catalog, EventHandlers, EventType, Subscriber

class Cosas(Catalog, origen="prueba"):
    una = EventType("una", dict)
    otra = EventType("otra", dict)

bus = Bus(catalogs=[Cosas], event_handlers=EventHandlers(), subscribers=[Subscriber("sordo")])
""",
        ["prueba/una has no handler", "prueba/otra has no handler", "subscriber 'sordo' listens to nothing"],
    ),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN)
def test_an_application_with_faults_is_told_which(tmp_path: Path, text: str, said: list[str]) -> None:
    """Where it broke, or every fault of its bus; and the traceback only if asked for."""
    (tmp_path / "app.py").write_text(text)
    done = cauce("migrate", "app:bus", cwd=tmp_path, dsn="postgresql://", ok=False)
    assert done.returncode == 1
    assert [words for words in said if words not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert "Traceback" in cauce("migrate", "app:bus", "--debug", cwd=tmp_path, dsn="postgresql://", ok=False).stderr


def test_what_strangers_sent_neither_breaks_nor_colours_anything(db: Database) -> None:
    """Brackets are no markup here, escape sequences are shown and not obeyed, and a pipe gets whole lines."""
    with db.connect(autocommit=True) as conn:
        conn.execute(
            "insert into cauce.eventos (origen, tipo, payload, clave, ultimo_error) values"
            """ ('prueba', 'a[/red]', '{"n": "\\u001b[2J \\u009b2J"}', 'c[bold]', E'KeyError: [/x] \x1b[2J\nthe end')"""
        )
    for command in ("events", "show 1", "status"):
        said = cauce(*command.split(), dsn=db.dsn).stdout
        assert not set(said) & {"\x1b", "\x9b"}
    line = cauce("events", dsn=db.dsn).stdout.splitlines()[1]
    assert re.fullmatch(
        r" 1 +prueba +a\[/red\] +c\[bold\] +pendiente +0 +\d+ s ago +KeyError: \[/x\] \\x1b\[2J the end *", line
    )


def test_the_dead_are_listed_mended_and_explained(db: Database) -> None:
    """What is dead in any group is found; retry and dismiss say why there is nothing to do."""
    with db.connect(autocommit=True) as conn:
        conn.execute(
            "insert into cauce.eventos (origen, tipo, payload) select 'prueba', 'una', '{}' from generate_series(1, 2)"
        )
        conn.execute("select cauce.crear_grupo('paneles')")
        conn.execute(
            "insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en, error)"
            " values (1, 'paneles', 'panel', 5, 'error', 3, now(), 'ValueError: no panel')"
        )
    found = json.loads(cauce("events", "--dead", "--json", dsn=db.dsn).stdout)
    assert ([evento["id"] for evento in found["eventos"]], found["siguiente"]) == ([1], None)
    assert json.loads(cauce("events", "--dead", "--grupo", "principal", "--json", dsn=db.dsn).stdout)["eventos"] == []
    assert "given up after 0 failed attempts: ValueError: no panel" in cauce("show", "1", dsn=db.dsn).stdout
    done = cauce("retry", "1", "--grupo", "principal", "--json", dsn=db.dsn, ok=False)
    assert json.loads(done.stdout) == {"entregas": 0, "eventos": [{"id": 1, "entregas": 0}], "desconocidos": []}
    assert done.stderr == "cauce: event 1 has nothing to retry: what failed or waits is paneles/panel\n"
    assert "there is no event 99" in cauce("retry", "99", dsn=db.dsn, ok=False).stderr


def test_the_failures_of_an_event_are_shown_with_their_workers(db: Database) -> None:
    """An event that failed in a worker, and killed another, is shown whole: who had it, and what went wrong."""
    with db.connect(autocommit=True) as conn:
        conn.execute(SOME, (1,))
        conn.execute(
            "insert into cauce.causas values (7, 'ValueError', 'x', E'Traceback\nValueError: x');"
            "insert into cauce.fallos (evento, grupo, suscriptor, intento, error, huella, trabajador) values"
            " (1, 'principal', 'manejador', 1, 'ValueError: x', 7, 'host-1'),"
            " (1, 'principal', 'manejador', 2, 'ValueError: y', 7, 'host-1')"
        )
        conn.execute("select from cauce.tomar('principal', 10, 'host-2', interval '-1 s')")
        assert conn.execute("select cauce.rescatar(3)").fetchone() == (1,)
    shown = cauce("show", "1", dsn=db.dsn).stdout
    assert re.search(r"principal/manejador, attempt 1, worker host-1\s+Traceback\s+ValueError: x\s", shown)
    assert re.search(
        r"attempt 2, worker host-1\s+ValueError: y\s+The traceback is that of principal/manejador, attempt 1\.\s", shown
    )
    assert shown.count("Traceback") == 1
    assert re.search(r"principal/\*, attempt 1, worker host-2\s+worker host-2 died or lost its lease", shown)


def give_up(db: Database, count: int) -> None:
    """Leave so many events whose handler has spent its attempts."""
    with db.connect(autocommit=True) as conn:
        conn.execute(SOME, (count,))
        conn.execute("update cauce.eventos set estado = 'error'")
        conn.execute(
            "insert into cauce.entregas (evento, grupo, suscriptor, prioridad, estado, intentos, proximo_en, error)"
            " select id, 'principal', 'manejador', 5, 'error', 12, now(), 'OSError' from cauce.eventos"
        )


def piped(command: str, dsn: str, text: str) -> subprocess.CompletedProcess[str]:
    """Run a command with something on its standard input."""
    return run_command(command.split(), {**os.environ, "DATABASE_URL": dsn}, stdin=text.encode())


def test_what_a_bad_deploy_left_dead_is_retried_and_dismissed_in_one_call(db: Database) -> None:
    """Five thousand dead events: `events --dead --json` says which, `retry -` and `dismiss -` take them."""
    give_up(db, 5_000)
    dead = cauce("events", "--dead", "--limit", "10000", "--json", dsn=db.dsn).stdout
    retried = piped("retry -", db.dsn, dead)
    assert (retried.returncode, retried.stdout, retried.stderr) == (0, "5,000 deliveries of 5,000 events due now\n", "")
    dismissed = piped("dismiss - --yes --json", db.dsn, "\n".join(map(str, range(1, 5_002))))
    counted = json.loads(dismissed.stdout)
    assert (counted["entregas"], len(counted["eventos"]), counted["desconocidos"]) == (5_000, 5_000, [5_001])
    assert (dismissed.returncode, dismissed.stderr.count("\n")) == (1, 1)
    assert "there is no event 5001; it may have been pruned" in dismissed.stderr
    with db.connect() as conn:
        assert conn.execute("select estado, count(*) from cauce.eventos group by 1").fetchall() == [
            ("procesado", 5_000)
        ]


def test_many_ids_are_told_apart(db: Database) -> None:
    """Events with something to retry, without, events that do not exist, and a page with a next one."""
    give_up(db, 3)
    done = cauce("retry", "3", "1", "3", "8", "9", dsn=db.dsn, ok=False)
    assert done.stdout == "2 deliveries of 2 events due now\n"
    assert done.stderr == "cauce: there is no event 8, 9; it may have been pruned: cauce events lists what there is\n"
    cauce("dismiss", "1", "2", "--yes", dsn=db.dsn)
    done = cauce("retry", "1", "2", "3", dsn=db.dsn)
    assert done.stdout == "1 delivery of event 3 due now\n"
    assert [line.partition(":")[2] for line in done.stderr.splitlines()] == [
        f" event {evento} has nothing to retry: no delivery failed or waits" for evento in (1, 2)
    ]
    page = cauce("events", "--limit", "1", "--json", dsn=db.dsn).stdout
    assert "names no event: there is nothing to retry" in piped("retry -", db.dsn, '{"eventos": []}').stderr
    assert piped("retry -", db.dsn, page).stderr == "cauce: these are not all: go on with --before 3\n"


@pytest.mark.parametrize("text", ['{"eventos": 3}', '{"eventos": [{}], "siguiente": null}', "[[1]]", '{"id": 1}', "[1"])
def test_what_is_no_list_of_events_is_refused(text: str) -> None:
    """With what it should be, and before anything is done."""
    done = piped("retry -", "", text)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Standard input is JSON, but not" in done.stderr or "is not the id of an event" in done.stderr


def test_documents_are_at_hand() -> None:
    """They are listed, found by their short name, and a misspelt one is told the nearest."""
    assert "guides/publishing        Publishing\n" in cauce("docs").stdout
    assert cauce("docs", "publishing").stdout == (TOP / "docs/guides/publishing.md").read_text()
    assert "there is no document publishin, but publishing;" in cauce("docs", "publishin", ok=False).stderr


def test_publish_checks_the_payload_where_the_bus_is_known(shop: Path, dsn: str) -> None:
    """A wrong one is refused before it is stored; without a bus it is said that nothing was checked."""
    cauce("migrate", "tienda:bus", dsn=dsn, cwd=shop)
    command = ["publish", "pedido", "pedido.creado"]
    known = ["--bus", "tienda:bus"]
    done = cauce(*command, '{"pedido_id": "x"}', *known, dsn=dsn, cwd=shop, ok=False)
    assert "pedido/pedido.creado was not published: 2 validation errors" in done.stderr
    assert "it has pedido/pedido.creado" in cauce("publish", "a", "b", "{}", *known, dsn=dsn, cwd=shop, ok=False).stderr
    done = cauce(*command, '{"pedido_id": 1, "total": 2}', *known, dsn=dsn, cwd=shop)
    assert (done.stdout, done.stderr) == ("published event 1\n", "")
    assert "is not checked against its type; to check it, give --bus" in cauce(*command, "{}", dsn=dsn, cwd=shop).stderr


def test_publish_reads_standard_input(shop: Path, dsn: str) -> None:
    """`-` stands for what a pipe brings."""
    cauce("migrate", "tienda:bus", dsn=dsn, cwd=shop)
    done = subprocess.run(
        [*CAUCE, "publish", "pedido", "pedido.creado", "-"], env={**os.environ, "DATABASE_URL": dsn},
        input='{"pedido_id": 7, "total": 1}', capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "published event 1\n"
    assert json.loads(cauce("show", "1", "--json", dsn=dsn).stdout)["evento"]["payload"]["pedido_id"] == 7


def test_a_reader_that_had_enough_is_no_error_to_tell(db: Database) -> None:
    """`cauce events | head` says nothing on stderr."""
    with db.connect(autocommit=True) as conn:
        conn.execute(SOME, (1500,))  # more than a pipe holds
    command = f"{CAUCE[0]} events --limit 1500 | head -1"
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "DATABASE_URL": db.dsn}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


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


def test_the_demo_needs_nothing_but_the_wheel(tmp_path: Path) -> None:
    """Whoever has only installed it sees the same: the wheel holds the application, too."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=TOP, capture_output=True, timeout=60, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    where = [sys.executable, "-c", "import cauce; print(cauce.__file__)"]
    used = subprocess.run(where, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert used.stdout.startswith(str(tmp_path))
    demo = [*CAUCE, "demo", "--no-stay"]
    done = subprocess.run(demo, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "every event's journey" in done.stdout) == (0, True), done.stderr


def test_a_terminal_that_lacks_letters_is_shown_their_numbers() -> None:
    """Documents and payloads hold any letter, and some terminals are in ASCII."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*CAUCE, "docs", "glosario"], env=environment, capture_output=True, timeout=60, check=True)
    assert b"\\xf1" in done.stdout
