"""What these tests share: the application in the test database, a mail server, the web application as a process."""

from __future__ import annotations

import email
import hmac
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cauce.testing import Database, wait_for
from events import bus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message

    from cauce import Bus

HERE = Path(__file__).parents[1]
CRON_SECRET = "the-cron-s-secret"  # noqa: S105 - known to the tests only
STRIPE_SECRET = "whsec_of_the_tests"  # noqa: S105 - known to the tests only


@pytest.fixture(scope="session")
def cauce_bus() -> Bus:
    """The application's bus: its catalog and groups are in every `cauce_db`."""
    return bus


@pytest.fixture(scope="session")
def cauce_schema() -> str:
    """The application's tables, which ``cauce_db`` creates."""
    return (HERE / "schema.sql").read_text()


class Mailbox(socketserver.ThreadingTCPServer):
    """An SMTP server that keeps what it gets, and refuses whom it is told to refuse."""

    daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.refused: dict[str, int] = {}
        """Address -> SMTP's reply."""
        super().__init__(("127.0.0.1", 0), Delivery)

    @property
    def address(self) -> str:
        """Host and port."""
        return "{}:{}".format(*self.server_address)


class Delivery(socketserver.StreamRequestHandler):
    """One client's conversation (RFC 5321), as much of it as `smtplib` speaks."""

    server: Mailbox

    def handle(self) -> None:
        """Answer until the client leaves."""
        self.reply(220)
        for line in self.rfile:
            verb = line.decode().strip().partition(" ")[0].upper()
            if verb == "RCPT":
                found = re.search("<(.*)>", line.decode())
                self.reply(self.server.refused.get(found[1] if found else "", 250))
            elif verb == "DATA":
                self.reply(354)
                self.server.messages.append(email.message_from_bytes(self.data()))
                self.reply(250)
            else:
                self.reply(221 if verb == "QUIT" else 250)

    def data(self) -> bytes:
        """Read a message, up to the line with the dot."""
        return b"".join(iter(self.rfile.readline, b".\r\n"))

    def reply(self, code: int) -> None:
        """Send a reply."""
        self.wfile.write(b"%d so be it\r\n" % code)


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    """The server that `SMTP_SERVER` names during the test."""
    with Mailbox() as server:
        monkeypatch.setenv("SMTP_SERVER", server.address)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def start(cauce_db: Database, mailbox: Mailbox, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Starts a Python module of the application as a process of its own; returns the file that it logs to."""
    environment = {
        **os.environ,
        "PYTHONPATH": "src",
        "DATABASE_URL": cauce_db.dsn,
        "SMTP_SERVER": mailbox.address,
        "CRON_SECRET": CRON_SECRET,
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
    }
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> Path:
        log = tmp_path / f"{len(processes)}.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", *arguments]
            processes.append(subprocess.Popen(command, cwd=HERE, env=environment, stdout=output, stderr=output))
        return log

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(timeout=30)


@dataclass(frozen=True)
class Web:
    """The web application, served at an address."""

    address: str

    def cron(self, secret: str = CRON_SECRET, **parameters: int) -> httpx.Response:
        """Call `procesar_lote` as a cron does."""
        headers = {"authorization": f"Bearer {secret}"}
        url = f"{self.address}/api/trabajadores/procesar_lote"
        return httpx.get(url, params=parameters, headers=headers, timeout=30)

    def deliver(self, event: dict[str, Any], secret: str = STRIPE_SECRET) -> httpx.Response:
        """Send an event as Stripe does, signed (https://docs.stripe.com/webhooks#verify-manually)."""
        body, moment = json.dumps(event), int(time.time())
        signature = hmac.new(secret.encode(), f"{moment}.{body}".encode(), "sha256").hexdigest()
        headers = {"stripe-signature": f"t={moment},v1={signature}"}
        return httpx.post(f"{self.address}/api/webhooks/stripe", content=body, headers=headers, timeout=30)


@pytest.fixture
def web(start: Callable[..., Path]) -> Web:
    """The web application in a process of its own, served by uvicorn."""
    log = start("uvicorn", "app.main:app", "--port", "0")
    found = wait_for(
        lambda: re.search(r"running on (http://\S+)", log.read_text()), f"uvicorn's address in {log}", seconds=30
    )
    assert found
    return Web(found[1])
