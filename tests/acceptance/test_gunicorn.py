"""The faces that block, under gunicorn: loaded, and used, before the workers are forked."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import psycopg
import pytest
import stripe

from cauce.testing import Database, wait_for

SECRET: Final = "whsec_acceptance"
SECONDS: Final = 30.0
WORKERS: Final = 2
APP: Final = """
import os
from flask import Flask
from cauce import Bus, EventHandlers, Settings
from cauce.web.flask import create_blueprint

app = Flask(__name__)
app.register_blueprint(create_blueprint(Bus(catalogs=[], event_handlers=EventHandlers()), Settings()))
answer = app.test_client().get("/api/salud")  # so that gunicorn forks a process with a thread and a connection
assert answer.status_code == 200, answer.data
"""


class Gunicorn:
    """A master with its workers, behind a listening socket that outlives it."""

    def __init__(self, folder: Path, dsn: str, kind: str) -> None:
        (folder / "de_gunicorn.py").write_text(APP)
        self._log = folder / "log"
        self.dsn = dsn
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, self._log.open("wb") as log:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/webhooks/stripe"
            descriptor = listener.fileno()
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("gunicorn"),
                    "de_gunicorn:app",
                    "--preload",
                    "--bind",
                    f"fd://{descriptor}",
                    "--workers",
                    str(WORKERS),
                    "--worker-class",
                    kind,
                    "--threads",
                    "4",
                    "--no-control-socket",
                ],
                cwd=folder,
                pass_fds=[descriptor],
                stdout=log,
                stderr=log,
                env={**os.environ, "DATABASE_URL": dsn, "STRIPE_WEBHOOK_SECRET": SECRET},
            )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def workers(self) -> list[str]:
        """All workers that have begun, by their process ids."""
        return re.findall(r"Booting worker with pid: (\d+)", self.log)

    def deliver(self, id_externo: str, *, chunked: bool = False, size: int = 10) -> int:
        """Send one delivery as Stripe does; return the status of the answer."""
        body = json.dumps({"id": id_externo, "type": "t", "text": "x" * size}).encode()
        signature = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET)
        content = (body[start : start + 1000] for start in range(0, len(body), 1000)) if chunked else body
        headers = {"stripe-signature": signature}
        return httpx.post(self.url, content=content, headers=headers, timeout=SECONDS).status_code

    def stored(self) -> Counter[str]:
        """How often each id is in the table."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return Counter(row[0] for row in conn.execute("select id_externo from cauce.eventos"))


@pytest.fixture(params=["sync", "gthread"])
def gunicorn(request: pytest.FixtureRequest, db: Database, tmp_path: Path) -> Iterator[Gunicorn]:
    """A server of each kind, which is there when its workers are."""
    server = Gunicorn(tmp_path, db.dsn, request.param)
    try:
        wait_for(lambda: len(server.workers()) == WORKERS, "the workers begin", seconds=SECONDS)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_preloaded_workers_store_everything_once(gunicorn: Gunicorn) -> None:
    """Doubled, in chunks, too long, while workers are replaced: each is stored once, and SIGTERM leaves no trace."""
    ids = [f"evt_{number}" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        begun = pool.map(gunicorn.deliver, [*ids[:20], *["evt_0"] * 20])
        assert set(begun) == {200}
        gunicorn.process.send_signal(signal.SIGHUP)
        assert set(pool.map(gunicorn.deliver, ids[20:])) == {200}
    wait_for(lambda: len(gunicorn.workers()) == 2 * WORKERS, "other workers begin", seconds=SECONDS)
    assert gunicorn.deliver("evt_chunked", chunked=True, size=5000) == 200
    assert gunicorn.deliver("evt_large", size=2_000_000) == 413
    assert gunicorn.deliver("evt_large_chunked", chunked=True, size=2_000_000) == 413
    gunicorn.process.terminate()
    assert gunicorn.process.wait(SECONDS) == 0
    assert gunicorn.stored() == Counter([*ids, "evt_chunked"])
    assert "Traceback" not in gunicorn.log
    assert "ERROR" not in gunicorn.log
    with psycopg.connect(gunicorn.dsn, autocommit=True) as conn:
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        wait_for(lambda: conn.execute(others).fetchone() == (0,), "all connections are closed", seconds=SECONDS)
