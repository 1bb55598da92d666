"""``cauce demo``: the example application with webhooks over real HTTP, a worker, and the outcome of every event.

The application is ``examples/reservas``, which is in the wheel. All that is printed was answered over HTTP or read from
the database, and the demo fails if the outcome is not the expected one.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
from pydantic import SecretStr
from rich.console import Console
from rich.table import Column, Table

from cauce.cli.loading import load_bus
from cauce.cli.simulator import Answered, send
from cauce.config import Settings
from cauce.database import operations, schema
from cauce.embedded import EmbeddedPostgres
from cauce.engine.worker import Worker
from cauce.errors import CauceError
from cauce.web.serving import HttpServer, serve
from cauce.webhooks import PROVIDERS, Draft, Secret

if TYPE_CHECKING:
    from cauce.database.operations import Detail

SECONDS: Final = 20.0
"""How long the demo waits until its events are done or dead."""
PACKED: Final = Path(__file__).parents[1] / "example"
"""The application in a wheel."""
CHECKOUT: Final = Path(__file__).parents[3] / "examples" / "reservas"
"""Where it is beside the sources."""
OUTCOME: Final = {
    "checkout.session.completed": ("procesado", 1),
    "payment_intent.succeeded": ("procesado", 1),
    "reserva.creada": ("procesado", 3),
    "reserva.cancelada": ("error", 1),
}
"""Each event's state and attempts in the end."""
BUSY: Final = 2
"""How often the mail server defers Ana's message."""


class MailServer(socketserver.ThreadingTCPServer):
    """A mail server that is too busy at first, and does not know Bruno."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked = Counter[str]()
        """Messages for each recipient, taken or not."""
        super().__init__(("127.0.0.1", 0), _Conversation)

    def reply_to(self, recipient: str) -> str:
        """Return SMTP's reply (RFC 5321) to a message for somebody."""
        self.asked[recipient] += 1
        if recipient.startswith("bruno"):
            return "550 no such mailbox"
        return "451 busy, try again" if self.asked[recipient] <= BUSY else "250 ok"


class _Conversation(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        mail = cast("MailServer", self.server)
        self._reply("220 mail")
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(":")
            if verb.upper() == "RCPT TO":
                self._reply(mail.reply_to(rest.strip("<>")))
            elif verb.upper() == "DATA":
                self._reply("354 go on")
                for text in self.rfile:
                    if text == b".\r\n":
                        break
                self._reply("250 taken")
            else:
                self._reply("221 bye" if verb.upper() == "QUIT" else "250 ok")

    def _reply(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@dataclass
class Stage:
    """The demo's settings and output, and the faults found so far."""

    settings: Settings
    url: str
    """The address for Stripe's webhooks."""
    out: Console
    faults: list[str] = field(default_factory=list[str])
    stopped: bool = False
    """Ctrl-C was pressed."""

    def check(self, fact: object, fault: str) -> None:
        """Note a fault unless ``fact`` holds."""
        if not fact:
            self.faults.append(fault)


def play(*, stay: bool) -> None:
    """Run the demo; with ``stay``, keep serving until a signal.

    Raises:
        CauceError: an outcome was not the expected one.
        EmbeddedError: PostgreSQL cannot be started.
    """
    example = PACKED if PACKED.is_dir() else CHECKOUT
    bus = load_bus("events:bus", str(example / "src"))
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    out.print("[bold]1.[/] an embedded PostgreSQL, migrated; HTTP on loopback; a worker; a small hotel's application")
    with EmbeddedPostgres() as server, _mail_server():
        settings = Settings(
            database_url=server.dsn,
            stripe_webhook_secret=SecretStr(f"whsec_{secrets.token_hex(16)}"),
            backoff_base_seconds=0.2,
            max_attempts=12,
            pooler=False,
        )
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            schema.migrate(conn, bus)
            conn.execute((example / "schema.sql").read_bytes())
        http_server, worker = HttpServer(bus, settings, "127.0.0.1", 0), Worker(bus, settings)
        stage = Stage(settings, f"{http_server.url}/api/webhooks/stripe", out)
        serve(http_server, worker, _Script(stage, worker, stay=stay))
    if stage.faults:
        raise CauceError("the demo did not end as it should: " + "; ".join(stage.faults))


@contextmanager
def _mail_server() -> Generator[None]:
    """Run the mail server that the application finds in its environment."""
    with MailServer() as server:
        threading.Thread(target=server.serve_forever, name="cauce-demo-mail", daemon=True).start()
        os.environ["SMTP_SERVER"] = "{}:{}".format(*server.server_address)
        try:
            yield
        finally:
            server.shutdown()


class _Script:
    """The demo's steps, as a part beside the server and the worker, which stop when it ends."""

    def __init__(self, stage: Stage, worker: Worker, *, stay: bool) -> None:
        self._stage, self._worker, self._stay = stage, worker, stay
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Run the steps."""
        stage = self._stage
        await self._worker.ready.wait()
        await asyncio.to_thread(_do_business, stage)
        await asyncio.to_thread(_send_webhooks, stage)
        details = await asyncio.to_thread(_wait_for_the_end, stage)
        if stage.stopped:
            return
        _show(stage, details)
        await asyncio.to_thread(_check, stage, details)
        if self._stay and not stage.faults:
            stage.out.print(f"   serving on {stage.url}")
            stage.out.print(f"   the database: psql '{stage.settings.database_url}'", soft_wrap=True)
            stage.out.print("   Ctrl-C ends it, and removes all of it")
            await self._stopped.wait()

    def stop(self) -> None:
        """End the demo."""
        self._stage.stopped = True
        self._stopped.set()


def _do_business(stage: Stage) -> None:
    """Make three reservations; cancel the second, and begin to cancel the third."""
    stage.out.print("[bold]2.[/] Ana and Bruno reserve; Bruno cancels, and the event is published in that transaction;")
    stage.out.print("   another cancellation is rolled back, and its event with it")
    business = import_module("services.reservas")
    with psycopg.connect(stage.settings.database_url, autocommit=True) as conn:
        for guest in ("Ana", "Bruno", "Carla"):
            business.apartar_reserva(conn, guest, f"{guest.lower()}@example.com", noches=2, importe=18_000)
        business.cancelar_reserva(conn, 2, "otros planes")
        with conn.transaction(force_rollback=True):
            business.cancelar_reserva(conn, 3, "un error")


def _send_webhooks(stage: Stage) -> None:
    out = stage.out
    out.print("[bold]3.[/] Ana pays: Stripe sends signed webhooks to", stage.url)
    session = {"id": "cs_1", "payment_status": "paid", "client_reference_id": "1"}
    payment = {"id": "pi_1", "amount_received": 18_000, "currency": "eur", "metadata": {"reserva_id": "1"}}
    checkout = _event("evt_1", "checkout.session.completed", session)
    secret = stage.settings.stripe_webhook_secret.get_secret_value()
    for what, body, key, expected in (
        ("payment_intent.succeeded", _event("evt_2", "payment_intent.succeeded", payment), secret, 200),
        ("checkout.session.completed", checkout, secret, 200),
        ("the same again, as Stripe does", checkout, secret, 200),
        ("one signed with another secret", checkout, "whsec_wrong", 400),
    ):
        answer = _post(stage, body, key)
        out.print(f"   {answer.status} {answer.text or answer.problem}  [dim]{what}[/]")
        stage.check(answer.status == expected, f"{what}: answered {answer.status}, not {expected}")


def _wait_for_the_end(stage: Stage) -> list[Detail]:
    """Wait until every event is done or dead, and read each."""
    ends = time.monotonic() + SECONDS
    with psycopg.connect(stage.settings.database_url, autocommit=True) as conn:
        while True:
            eventos = operations.events(conn, limit=100).eventos
            ended = len(eventos) >= len(OUTCOME) and all(e.estado in ("procesado", "error") for e in eventos)
            if ended or stage.stopped or time.monotonic() > ends:
                break
            time.sleep(0.05)
        stage.check(ended or stage.stopped, f"after {SECONDS:g} s some events have not come to their end")
        return [operations.show(conn, evento.id) for evento in reversed(eventos)]


def _show(stage: Stage, details: list[Detail]) -> None:
    event = Column("event", overflow="fold")
    table = Table("id", event, "estado", "intentos", "who: what became of it", "took", title="every event's journey")
    for detail in details:
        evento = detail.evento
        style = {"procesado": "green", "error": "red"}.get(evento.estado, "yellow")
        steps = [
            f"{step.suscriptor}: {step.estado}" + (f" (failed {step.fallos}x: {step.error})" if step.fallos else "")
            for step in detail.camino
        ]
        took = (
            f"{(evento.procesado_en - evento.creado_en).total_seconds() * 1000:.0f} ms" if evento.procesado_en else ""
        )
        table.add_row(
            str(evento.id), f"{evento.origen}/{evento.tipo}", f"[{style}]{evento.estado}[/]", str(evento.intentos),
            "\n".join(steps), took,
        )  # fmt: skip
    stage.out.print(table)


def _check(stage: Stage, details: list[Detail]) -> None:
    """Compare with the expected outcome."""
    found = {detail.evento.tipo: (detail.evento.estado, detail.evento.intentos) for detail in details}
    stage.check(found == OUTCOME and len(details) == len(OUTCOME), f"the events ended as {found}, not as {OUTCOME}")
    states = {step.suscriptor: step.estado for d in details for step in d.camino if d.evento.estado == "error"}
    stage.check(
        states == {"manejador": "procesado", "bitacora": "procesado", "correo": "error"},
        f"one subscriber's failure affected others; found {states}",
    )
    with psycopg.connect(stage.settings.database_url) as conn:
        reservas = conn.execute("select estado, localizador is not null from reservas order by id").fetchall()
        lines = conn.execute("select count(*), count(distinct evento) from bitacora").fetchone()
        paid = conn.execute("select reserva_id, importe from pagos").fetchall()
    wanted = [("pagada", True), ("cancelada", False), ("pendiente", False)]
    stage.check(reservas == wanted, f"the reservations are {reservas}, not {wanted}")
    stage.check(lines == (4, 4), f"the log book has {lines} lines and events, not four of each")
    stage.check(paid == [(1, 18_000)], f"the payments are {paid}, not Ana's one")
    if not stage.faults:
        stage.out.print("   the duplicate was stored once, the forgery and the rolled-back event never;")
        stage.out.print("   Ana's e-mail left at the third attempt; the server refuses Bruno's, so that one is dead;")
        stage.out.print("   neither kept anybody else: bitacora has a line an event, exactly once")
        stage.out.print("   next: cauce docs first-steps  has a bus of your own, step by step")


def _event(number: str, tipo: str, thing: dict[str, Any]) -> bytes:
    return json.dumps(
        {"id": number, "object": "event", "type": tipo, "created": int(time.time()), "data": {"object": thing}}
    ).encode()


def _post(stage: Stage, body: bytes, secret: str) -> Answered:
    return send(PROVIDERS["stripe"].sign(Draft(body, url=stage.url), Secret(secret), time.time()), timeout=10)
