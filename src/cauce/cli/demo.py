"""``cauce demo``: a small shop, webhooks over real HTTP, a worker, and what becomes of every event.

Whatever it prints was answered over HTTP or read from the database; it fails if the outcome is not what it should be.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib import request as http
from urllib.error import HTTPError

import psycopg
from psycopg import AsyncConnection
from pydantic import BaseModel, SecretStr
from rich.console import Console
from rich.table import Column, Table

from cauce.bus import Bus
from cauce.catalog import Catalog, EventHandlers, EventType, Subscriber
from cauce.config import Settings
from cauce.database import operations, schema
from cauce.embedded import EmbeddedPostgres
from cauce.engine.worker import Worker
from cauce.errors import CauceError
from cauce.evento import Evento  # noqa: TC001 - the bus reads the handlers' annotations
from cauce.outcome import Attempt  # noqa: TC001 - likewise
from cauce.publishing import publicar_evento
from cauce.retry import RetryPolicy
from cauce.stripe import StripeEvent
from cauce.web.serving import HttpServer, serve
from cauce.webhooks import PROVIDERS, Draft, Secret

if TYPE_CHECKING:
    from cauce.database.operations import Detail

SECONDS: Final = 20.0
"""How long the demo waits for its events to come to their end."""


class Session(BaseModel):
    """What the demo uses of Stripe's object."""

    id: str
    client_reference_id: str | None = None


class ReservaCreada(BaseModel):
    """A reservation was made and paid."""

    reserva_id: int


class StripeEvents(Catalog, origen="stripe", prioridad=0):
    """Stripe's events come before the rest."""

    checkout_session_completed = EventType("checkout.session.completed", StripeEvent[Session])
    payment_intent_succeeded = EventType("payment_intent.succeeded", StripeEvent[Session])


class ReservaEvents(Catalog, origen="reserva"):
    """The shop's own."""

    reserva_creada = EventType("reserva.creada", ReservaCreada, clave="reserva_id")
    reserva_cancelada = EventType("reserva.cancelada", ReservaCreada, clave="reserva_id")


async def checkout_session_completed(evento: Evento[StripeEvent[Session]], tx: AsyncConnection[Any]) -> None:
    """Pay the reservation and say so, in the transaction that settles this event."""
    reserva_id = int(evento.payload.data.object.client_reference_id or 0)
    await tx.execute("update reservas set estado = 'pagada' where id = %s", [reserva_id])
    await publicar_evento(tx, ReservaEvents.reserva_creada, ReservaCreada(reserva_id=reserva_id))


async def payment_intent_succeeded(evento: Evento[StripeEvent[Session]], attempt: Attempt) -> None:
    """Fail twice, as the network does."""
    if attempt.number < 3:  # noqa: PLR2004 - the third time
        raise ConnectionError(f"the bank did not answer about {evento.payload.data.object.id}")


async def reserva_creada(evento: Evento[ReservaCreada]) -> None:
    """Do nothing more: subscribers do."""


async def reserva_cancelada(evento: Evento[ReservaCreada]) -> None:
    """Do nothing more."""


async def bitacora(evento: Evento[ReservaCreada], tx: AsyncConnection[Any]) -> None:
    """Write the log book, exactly once."""
    await tx.execute("insert into bitacora values (%s, %s)", [evento.id, evento.payload.reserva_id])


def correo(evento: Evento[ReservaCreada]) -> None:  # noqa: ARG001 - the handlers' shape
    """Fail always: the mail server of the demo is down."""
    raise ConnectionError("the mail server is down")


bus = Bus(
    catalogs=[StripeEvents, ReservaEvents],
    event_handlers=EventHandlers(
        StripeEvents.checkout_session_completed.handled_by(checkout_session_completed),
        StripeEvents.payment_intent_succeeded.handled_by(payment_intent_succeeded),
        ReservaEvents.reserva_creada.handled_by(reserva_creada),
        ReservaEvents.reserva_cancelada.handled_by(reserva_cancelada),
    ),
    subscribers=[
        Subscriber("bitacora", ReservaEvents.reserva_creada.handled_by(bitacora)),
        Subscriber(
            "correo", ReservaEvents.reserva_creada.handled_by(correo, retry=RetryPolicy(max_attempts=3, base=0.2))
        ),
    ],
)


@dataclass
class Stage:
    """What the demo plays on, and what it has found wrong so far."""

    settings: Settings
    url: str
    """Where Stripe would send."""
    out: Console
    faults: list[str] = field(default_factory=list[str])
    stopped: bool = False
    """Somebody pressed Ctrl-C: the play ends where it is."""

    def check(self, fact: object, fault: str) -> None:
        """Remember what is not as it should be."""
        if not fact:
            self.faults.append(fault)


def play(*, stay: bool) -> None:
    """Play the demo; with ``stay``, serve on until a signal.

    Raises:
        CauceError: something did not come to the end that it should.
        EmbeddedError: PostgreSQL cannot be started.
    """
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    out.print("[bold]1.[/] an embedded PostgreSQL, migrated; HTTP on loopback; a worker")
    with EmbeddedPostgres() as server:
        settings = Settings(
            database_url=server.dsn,
            stripe_webhook_secret=SecretStr(f"whsec_{secrets.token_hex(16)}"),
            backoff_base_seconds=0.2,
            max_attempts=12,
            pooler=False,
        )
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            schema.migrate(conn, bus)
            conn.execute("create table reservas (id int primary key, estado text not null)")
            conn.execute("create table bitacora (evento bigint, reserva_id int)")
            conn.execute("insert into reservas values (42, 'apartada'), (43, 'apartada')")
        http_server, worker = HttpServer(bus, settings, "127.0.0.1", 0), Worker(bus, settings)
        stage = Stage(settings, f"{http_server.url}/api/webhooks/stripe", out)
        serve(http_server, worker, _Script(stage, worker, stay=stay))
    if stage.faults:
        raise CauceError("the demo did not end as it should: " + "; ".join(stage.faults))


class _Script:
    """What happens on the stage, as a part beside the server and the worker: they stop when it ends."""

    def __init__(self, stage: Stage, worker: Worker, *, stay: bool) -> None:
        self._stage, self._worker, self._stay = stage, worker, stay
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Play."""
        stage = self._stage
        await self._worker.ready.wait()
        await asyncio.to_thread(_send_webhooks, stage)
        await asyncio.to_thread(_do_business, stage)
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
        """End the play, or stay no longer."""
        self._stage.stopped = True
        self._stopped.set()


def _send_webhooks(stage: Stage) -> None:
    out = stage.out
    out.print("[bold]2.[/] Stripe sends signed webhooks to", stage.url)
    checkout = _event("evt_1", "checkout.session.completed", {"id": "cs_1", "client_reference_id": "42"})
    payment = _event("evt_2", "payment_intent.succeeded", {"id": "pi_1"})
    secret = stage.settings.stripe_webhook_secret.get_secret_value()
    for what, body, key, expected in (
        ("checkout.session.completed", checkout, secret, 200),
        ("payment_intent.succeeded", payment, secret, 200),
        ("the first one again, as Stripe does", checkout, secret, 200),
        ("one signed with another secret", checkout, "whsec_wrong", 400),
    ):
        status, answer = _post(stage, body, key)
        out.print(f"   {status} {answer}  [dim]{what}[/]")
        stage.check(status == expected, f"{what}: answered {status}, not {expected}")


def _do_business(stage: Stage) -> None:
    stage.out.print(
        "[bold]3.[/] business code cancels reservation 43 and publishes in one transaction; another is rolled back"
    )
    with psycopg.connect(stage.settings.database_url) as conn:
        conn.execute("update reservas set estado = 'cancelada' where id = 43")
        publicar_evento(conn, ReservaEvents.reserva_cancelada, ReservaCreada(reserva_id=43))
        conn.commit()
        publicar_evento(conn, ReservaEvents.reserva_cancelada, ReservaCreada(reserva_id=42))
        conn.rollback()


def _wait_for_the_end(stage: Stage) -> list[Detail]:
    """Wait until no event can change any more, and read what became of each."""
    ends = time.monotonic() + SECONDS
    with psycopg.connect(stage.settings.database_url, autocommit=True) as conn:
        while time.monotonic() < ends and not stage.stopped:
            ids = [e.id for e in operations.events(conn, limit=100).eventos if e.estado in ("procesado", "error")]
            row = conn.execute("select count(*) from cauce.eventos").fetchone()
            if row and len(ids) == row[0] and len(ids) >= 4:  # noqa: PLR2004 - those sent, published and caused
                return [operations.show(conn, number) for number in sorted(ids)]
            time.sleep(0.05)
        page = operations.events(conn, limit=100)
        stage.check(stage.stopped, f"after {SECONDS:g} s some events have not come to their end")
        return [operations.show(conn, evento.id) for evento in page.eventos]


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
    """Compare with what this play must lead to."""
    by_type = {detail.evento.tipo: detail for detail in details}
    wanted = {
        "checkout.session.completed": ("procesado", 1),
        "payment_intent.succeeded": ("procesado", 3),
        "reserva.creada": ("error", 3),
        "reserva.cancelada": ("procesado", 1),
    }
    found = {tipo: (detail.evento.estado, detail.evento.intentos) for tipo, detail in by_type.items()}
    stage.check(found == wanted and len(details) == len(wanted), f"the events ended as {found}, not as {wanted}")
    creada = by_type.get("reserva.creada")
    states = {step.suscriptor: step.estado for step in creada.camino} if creada else {}
    stage.check(
        states == {"manejador": "procesado", "bitacora": "procesado", "correo": "error"},
        f"one subscriber's failure was to be its own; found {states}",
    )
    with psycopg.connect(stage.settings.database_url) as conn:
        rows = conn.execute("select count(*) from bitacora").fetchone()
        paid = conn.execute("select estado from reservas where id = 42").fetchone()
    stage.check(rows == (1,), f"the log book has {rows} rows, not one")
    stage.check(paid == ("pagada",), f"reservation 42 is {paid}, not paid")
    if not stage.faults:
        stage.out.print("   the duplicate was stored once, the forgery and the rolled-back event never;")
        stage.out.print("   the mail server's failure kept nobody else: bitacora has its row, exactly once")
        stage.out.print("   next: cauce docs first-steps  has a bus of your own, step by step")


def _event(number: str, tipo: str, thing: dict[str, str]) -> bytes:
    return json.dumps(
        {"id": number, "object": "event", "type": tipo, "created": int(time.time()), "data": {"object": thing}}
    ).encode()


def _post(stage: Stage, body: bytes, secret: str) -> tuple[int, str]:
    signed = PROVIDERS["stripe"].sign(Draft(body, url=stage.url), Secret(secret), time.time())
    sent = http.Request(stage.url, data=signed.body, headers=dict(signed.headers), method="POST")  # noqa: S310 - our own loopback address
    try:
        with http.urlopen(sent, timeout=10) as answer:  # noqa: S310 - likewise
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
