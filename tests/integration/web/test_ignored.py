"""A webhook that comes before its handler: ignored, kept, and delivered after the deploy that brings the handler."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, Subscriber
from cauce.cli.app import run
from cauce.database import schema
from cauce.web import create_app
from tests.integration.web.conftest import BUS, CRON_SECRET, Inbox, Sign, StripeEvents, checkout_session_completed


class InvoiceEvents(Catalog, origen="stripe", prioridad=0):
    """What the new program knows as well."""

    invoice_paid = EventType("invoice.paid", dict[str, Any])


async def invoice_paid(evento: Evento[dict[str, Any]], tx: AsyncConnection[Any]) -> None:
    """Leave a row."""
    await tx.execute("insert into facturas values (%s, %s)", [evento.payload["id"], "manejador"])


async def bookkeeping(evento: Evento[dict[str, Any]], tx: AsyncConnection[Any]) -> None:
    """Leave another."""
    await tx.execute("insert into facturas values (%s, %s)", [evento.payload["id"], "contabilidad"])


NEWER = Bus(
    catalogs=[StripeEvents, InvoiceEvents],
    event_handlers=EventHandlers(
        StripeEvents.checkout_session_completed.handled_by(checkout_session_completed),
        InvoiceEvents.invoice_paid.handled_by(invoice_paid),
    ),
    subscribers=[Subscriber("contabilidad", InvoiceEvents.invoice_paid.handled_by(bookkeeping))],
)


@pytest.fixture
def cauce(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The command, in this process: its exit code, and what it printed after what it complained about."""
    monkeypatch.setenv("DATABASE_URL", inbox.settings.database_url)

    def command(*arguments: str, given: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        code = run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.err + captured.out

    return command


def work(inbox: Inbox) -> dict[str, int]:
    """Have the cron come by; what it counted."""
    answer = inbox.request(
        "POST", "/api/trabajadores/procesar_lote", headers={"authorization": f"Bearer {CRON_SECRET}"}
    )
    counted: dict[str, int] = answer.json()
    return counted


def test_an_ignored_webhook_is_handled_once_its_handler_is_there(
    inbox: Inbox, signed: Sign, cauce: Callable[..., tuple[int, str]]
) -> None:
    """Ignored; still so while nobody listens; after the deploy one pipe delivers it, to each subscriber once."""
    with psycopg.connect(inbox.settings.database_url, autocommit=True) as conn:
        conn.execute("create table facturas (evento text, quien text)")
        schema.migrate(conn, BUS)
        inbox.deliver(signed({"id": "evt_1", "type": "invoice.paid"}))
        inbox.deliver(signed({"id": "evt_2", "type": "never.heard.of"}))
        assert work(inbox)["ignorados"] == 2
        code, said = cauce("retry", "1")
        assert code == 1
        assert "event 1 has nothing to retry: nobody handles stripe/invoice.paid yet: deploy a handler" in said
        assert "principal  *           ignorado  nobody handled it" in cauce("show", "1")[1]

        schema.migrate(conn, NEWER)
        inbox.app = create_app(NEWER, inbox.settings)
        assert "principal/manejador, principal/contabilidad" in cauce("retry", "1", "--suscriptor", "otro")[1]
        _, page = cauce("events", "--ignored", "--json")
        assert [evento["id"] for evento in json.loads(page)["eventos"]] == [2, 1]
        code, said = cauce("retry", "-", given=page)
        assert code == 0
        assert said.endswith("2 deliveries of event 1 due now\n")
        assert "event 2 has nothing to retry: nobody handles stripe/never.heard.of yet" in said

        assert (work(inbox)["procesados"], work(inbox)["procesados"]) == (2, 0)
        assert conn.execute("select * from facturas order by 2").fetchall() == [
            ("evt_1", "contabilidad"), ("evt_1", "manejador"),
        ]  # fmt: skip
        assert [(evento["estado"], evento["ignorado"]) for evento in inbox.events()] == [
            ("procesado", False), ("procesado", True),
        ]  # fmt: skip
        assert cauce("retry", "1") == (1, "cauce: event 1 has nothing to retry: no delivery failed or waits\n")
        assert cauce("events", "--ignored", "--tipo", "invoice.paid") == (0, "No such event.\n")
