"""docs/frameworks.md to the letter: each example in a process of its own, signed for by the providers' libraries."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import psycopg
import pytest
import stripe
from standardwebhooks import Webhook

from cauce.testing import Database, wait_for

TOP: Final = Path(__file__).parents[2]
EXAMPLES: Final = {
    name: (kind, prefix, text)
    for name, kind, prefix, text in re.findall(
        r"<!-- file: (\w+)\.py (\w+) (\S*) -->\n```python\n(.*?)```",
        (TOP / "docs" / "frameworks.md").read_text(),
        re.DOTALL,
    )
}
STRIPE_SECRET: Final = "whsec_acceptance"
STANDARD_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECONDS: Final = 30.0

SERVE: Final = {
    "asgi": """
import socket, sys
from importlib import import_module
import uvicorn
app = import_module(sys.argv[1]).app
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[socket.socket(fileno=int(sys.argv[2]))])
""",
    "wsgi": """
import signal, sys
from importlib import import_module
from werkzeug.serving import make_server
app = import_module(sys.argv[1]).app
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
make_server("127.0.0.1", 0, app, threaded=True, fd=int(sys.argv[2])).serve_forever()
""",
}
DJANGO: Final = """
import django
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="en_django", SECRET_KEY="of tests")
django.setup()
from django.core.handlers.{kind} import {handler}
app = {handler}()
"""
RUNS: Final = [
    *[(name, name, kind) for name, (kind, _, _) in EXAMPLES.items() if kind != "django"],
    ("en_django", "django_wsgi", "wsgi"),
    ("en_django", "django_asgi", "asgi"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All examples, and the application of README.md that they import."""
    shop = re.search(r"<!-- file: tienda.py -->\n```python\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    assert shop
    (tmp_path / "tienda.py").write_text(shop[1])
    for name, (_, _, text) in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(text)
    for kind, handler in (("wsgi", "WSGIHandler"), ("asgi", "ASGIHandler")):
        (tmp_path / f"django_{kind}.py").write_text(DJANGO.format(kind=kind, handler=handler))
    return tmp_path


def by_stripe(body: bytes) -> dict[str, str]:
    """Sign as Stripe's library does."""
    return {"stripe-signature": stripe.WebhookSignature.generate_signature_header(body.decode(), STRIPE_SECRET)}


def by_standard(body: bytes) -> dict[str, str]:
    """Sign as the library of Standard Webhooks does."""
    now = datetime.now(UTC)
    signature = Webhook(STANDARD_SECRET).sign("msg_1", now, body.decode())
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }


@pytest.mark.parametrize(("example", "module", "kind"), RUNS, ids=[module for _, module, _ in RUNS])
def test_the_example_works_to_the_letter(folder: Path, db: Database, example: str, module: str, kind: str) -> None:
    """What the providers' libraries sign is stored once, all else refused; SIGTERM ends it, its connections with it."""
    environment = {
        **os.environ,
        "DATABASE_URL": db.dsn,
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
        "STANDARD_WEBHOOK_SECRET": STANDARD_SECRET,
        "CRON_SECRET": "cron secret",
    }
    event = json.dumps({"id": "evt_1", "object": "event", "type": "checkout.session.completed"}).encode()
    message = json.dumps({"type": "user.created", "data": {"id": 1}}).encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{EXAMPLES[example][1]}/api"
        arguments = [sys.executable, "-c", SERVE[kind], module, str(listener.fileno())]
        process = subprocess.Popen(arguments, cwd=folder, env=environment, pass_fds=[listener.fileno()])
    try:
        with httpx.Client(timeout=SECONDS) as client:
            answers = [
                client.post(f"{url}/webhooks/{origen}", content=body, headers=headers)
                for origen, body, headers in (
                    ("stripe", event, by_stripe(event)),
                    ("stripe", event, by_stripe(event)),
                    ("stripe", event, by_stripe(event + b" ")),
                    ("standard", message, by_standard(message)),
                    ("standard", message + b" ", by_standard(message)),
                )
            ]
            bearer = {"authorization": "Bearer cron secret"}
            lote = client.post(f"{url}/trabajadores/procesar_lote", headers=bearer)
            health = client.get(f"{url}/salud")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(SECONDS)
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 400]
    assert [answer.json().get("duplicado") for answer in answers] == [False, True, None, False, None]
    assert (lote.json()["ignorados"], health.json()["estado"]) == (2, "bien")
    assert code in (0, -signal.SIGTERM)
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        rows = conn.execute("select origen, id_externo from cauce.eventos order by id").fetchall()
        assert rows == [("stripe", "evt_1"), ("standard", "msg_1")]
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        wait_for(lambda: conn.execute(others).fetchone() == (0,), "its connections are closed")


def test_every_face_has_an_example() -> None:
    """The document shows each of them."""
    assert set(EXAMPLES) == {"en_starlette", "en_fastapi", "en_django", "en_flask", "en_wsgi"}
