"""Webhooks of a self-made provider, as in docs/webhooks.md: real commands, real HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from cauce.testing import Database, wait_for

CAUCE: Final = str(Path(sys.executable).with_name("cauce"))
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "webhooks.md"
NAMED: Final = ", providers=[acme]"
SECONDS: Final = 30.0


@pytest.mark.parametrize("command", ["serve", "dev"])
@pytest.mark.parametrize("given", ["on the bus", "on the command line"])
def test_the_documented_provider_is_served(tmp_path: Path, db: Database, command: str, given: str) -> None:
    """What is signed as the document says is stored once, under its name, and a forgery is refused."""
    example = re.search(r"<!-- file: taller.py -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example
    assert NAMED in example[1]
    option = given == "on the command line"
    (tmp_path / "taller.py").write_text(example[1].replace(NAMED, "") if option else example[1])
    (tmp_path / "order.json").write_text('{"id": "pedido_1", "type": "order.paid"}')
    environment = {**os.environ, "DATABASE_URL": db.dsn, "ACME_WEBHOOK_SECRET": "acme's", "PYTHONUNBUFFERED": "1"}
    options = ["--port", "0", *(["--provider", "taller:acme"] if option else [])]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [CAUCE, command, "taller:bus", *options], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    try:
        listening = re.compile(r"listening on (\S+)")
        wait_for(lambda: listening.search((tmp_path / "log").read_text()), f"cauce {command} listens", seconds=SECONDS)
        found = listening.search((tmp_path / "log").read_text())
        assert found
        send = [CAUCE, "webhook", "send", "taller:acme", "order.paid", "--body", "order.json", "--url", found[1]]
        for extra in (["--twice"], ["--bad-signature"]):
            done = subprocess.run(
                [*send, *extra], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        with db.connect() as conn:
            rows = conn.execute("select origen, tipo, id_externo from cauce.eventos").fetchall()
        assert rows == [("acme", "order.paid", "pedido_1")]
        if command == "dev":
            wait_for(lambda: "paid: pedido_1" in (tmp_path / "log").read_text(), "it is handled", seconds=SECONDS)
            assert f"{found[1]}/api/webhooks/acme\n" in (tmp_path / "log").read_text()
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_what_is_no_provider_is_said_at_the_start(tmp_path: Path, db: Database) -> None:
    """In one line, whichever way it is wrong."""
    (tmp_path / "taller.py").write_text(
        "from cauce import Bus, EventHandlers\nbus = Bus(catalogs=[], event_handlers=EventHandlers())\nacme = 'acme'\n"
    )
    for name, said in (
        ("taller:acme", "taller:acme is a str, not a cauce.webhooks.Provider"),
        ("acme", "--provider: no provider is called acme"),
    ):
        done = subprocess.run(
            [CAUCE, "serve", "taller:bus", "--port", "0", "--provider", name], cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": db.dsn}, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
