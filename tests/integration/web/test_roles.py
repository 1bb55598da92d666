"""Least privilege: an inbox whose database role may work, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg

from cauce.database import quarantine
from cauce.testing import Database
from cauce.webhooks import PROVIDERS, Secret
from tests.integration.engine.kit import role
from tests.integration.web.conftest import Inbox, Sign

STRIPE = PROVIDERS["stripe"]
BEARER = {"authorization": "Bearer cron secret"}


def test_an_inbox_serves(db: Database, make_inbox: Callable[[str], Inbox], signed: Sign) -> None:
    """Stores, knows what came before and what differs, keeps what it refuses, verifies it again; works; is well."""

    async def reverify(dsn: str, number: int) -> str:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            return (await quarantine.reverify(conn, number, STRIPE, [Secret("whsec_new")])).resultado

    with role(db.dsn, "permitir_trabajar") as dsn:
        inbox = make_inbox(dsn)
        event: dict[str, Any] = {"id": "evt_1", "type": "checkout.session.completed"}
        answers = [inbox.deliver(signed(body)) for body in (event, event, {**event, "n": 1})]
        assert [answer.json().get("duplicado") for answer in answers] == [False, True, True]
        assert inbox.deliver(signed(body='{"id": "evt_2", "n": "\\u0000"}')).status_code == 200
        assert inbox.deliver(signed({**event, "id": "evt_3"}, secrets=("whsec_new",))).status_code == 400
        (refused,) = inbox.query("select id from cauce.rechazados")
        with psycopg.connect(dsn, autocommit=True) as conn:
            assert quarantine.find(conn, refused["id"]).origen == "stripe"
            assert [row.id for row in quarantine.page(conn).rechazados] == [refused["id"]]
        assert asyncio.run(reverify(dsn, refused["id"])) == "guardado"
        assert [(row["id_externo"], row["estado"]) for row in inbox.events()] == [
            ("evt_1", "pendiente"),
            ("evt_2", "error"),
            ("evt_3", "pendiente"),
        ]
        assert inbox.request("GET", "/api/salud").status_code == 200
        lote = inbox.request("POST", "/api/trabajadores/procesar_lote", headers=BEARER)
        assert lote.json()["procesados"] == 2
