"""``cauce serve`` with few descriptors: more connections than there may be do not close the door on anybody."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import psycopg
import pytest
import stripe

from cauce.testing import Database, wait_for

DESCRIPTORS: Final = 300
FLOOD: Final = 400
"""Connections that send half of their header fields, and are held open."""
SECONDS: Final = 30.0
SECRET: Final = "whsec_acceptance"
SERVE: Final = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))
for name in {missing}:
    sys.modules[name] = None
from cauce.cli.app import main
sys.argv = ["cauce", "serve", "cli_app:bus", "--app-dir", {folder!r}, "--port", "0"]
main()
"""


@pytest.mark.parametrize("missing", [(), ("httptools", "uvloop")], ids=["httptools on uvloop", "h11 on asyncio"])
def test_half_requests_do_not_close_the_door(tmp_path: Path, db: Database, missing: tuple[str, ...]) -> None:
    """More of them than descriptors: new clients are served, and the process never runs out of descriptors."""
    code = SERVE.format(descriptors=DESCRIPTORS, missing=missing, folder=str(Path(__file__).parent))
    log = tmp_path / "log"
    with ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "DATABASE_URL": db.dsn, "STRIPE_WEBHOOK_SECRET": SECRET},
            stdout=subprocess.DEVNULL, stderr=stack.enter_context(log.open("wb")),
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.kill)
        listening = re.compile(r"listening on http://([\d.]+):(\d+)")
        wait_for(lambda: listening.search(log.read_text()), "cauce serve listens", seconds=SECONDS)
        found = listening.search(log.read_text())
        assert found
        address = found[1], int(found[2])
        for _ in range(FLOOD):
            half = stack.enter_context(socket.create_connection(address, timeout=SECONDS))
            half.sendall(b"POST /api/webhooks/stripe HTTP/1.1\r\nhost: localhost\r\n")
        for number in range(3):
            body = f'{{"id": "evt_{number}", "type": "t"}}'
            signature = stripe.WebhookSignature.generate_signature_header(body, SECRET)
            answer = httpx.post(
                f"http://{address[0]}:{address[1]}/api/webhooks/stripe",
                content=body, headers={"stripe-signature": signature}, timeout=SECONDS,
            )  # fmt: skip
            assert answer.status_code == 200
    said = log.read_text()
    assert "connections are open" in said
    assert "Too many open files" not in said
    with psycopg.connect(db.dsn) as conn:
        assert conn.execute("select count(*) from cauce.eventos").fetchone() == (3,)
