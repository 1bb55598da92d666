"""The application as a whole: alone, mounted, with and without its lifespan; and what it says when it does not know."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from cauce import Bus, ConfigError
from cauce.testing import wait_for
from cauce.web import ErrorCode, create_app
from cauce.webhooks import NuevoWebhook, Verified, WebhookRequest
from cauce.webhooks.signing import HmacProvider
from tests.integration.web.conftest import Inbox, Sign

OPEN = (
    "select count(*) n from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)


def parent(inbox: Inbox, *, lifespan: bool) -> Starlette:
    """Another application, that has the inbox under ``/pagos``."""

    @contextlib.asynccontextmanager
    async def both(_: Starlette) -> AsyncGenerator[None]:
        async with inbox.app.router.lifespan_context(inbox.app):
            yield

    return Starlette(routes=[Mount("/pagos", app=inbox.app)], lifespan=both if lifespan else None)


@pytest.mark.parametrize("lifespan", [True, False], ids=["its lifespan is run", "its lifespan is not run"])
def test_it_can_be_mounted(inbox: Inbox, signed: Sign, *, lifespan: bool) -> None:
    """Every endpoint works under another path; with the lifespan no connection outlives it."""
    app = parent(inbox, lifespan=lifespan)
    delivery = signed()

    async def work() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test/pagos") as client,
        ):
            answers = [
                await client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers),
                await client.get("/api/salud"),
                await client.get("/api/trabajadores/procesar_lote", headers={"authorization": "Bearer cron secret"}),
                await client.get("/api/nothing"),
            ]
            return [answer.status_code for answer in answers]

    assert asyncio.run(work()) == [200, 200, 200, 404]
    assert [(evento["id_externo"], evento["estado"]) for evento in inbox.events()] == [("evt_1", "procesado")]
    wait_for(lambda: inbox.query(OPEN) == [{"n": 0 if lifespan else 1}])  # a server takes note of an end when it can
    # The connection that was left over serves the next event loop too, and ends with its lifespan.
    assert inbox.deliver(delivery).json()["duplicado"] is True
    wait_for(lambda: inbox.query(OPEN) == [{"n": 0}])


@pytest.mark.parametrize("path", ["/", "/api/webhooks", "/api/webhooks/stripe/", "/api/webhooks/stripe/x", "/docs"])
def test_an_address_that_is_none(inbox: Inbox, signed: Sign, path: str) -> None:
    """404 in JSON, and no redirection, which no sender of webhooks would follow."""
    delivery = signed()
    answer = inbox.request("POST", path, content=delivery.body, headers=delivery.headers)
    assert (answer.status_code, answer.json()["error"]) == (404, "ruta_desconocida")
    assert inbox.events() == []


@dataclass(frozen=True, kw_only=True)
class Broken(HmacProvider):
    """A provider with a fault."""

    def describe(self, request: WebhookRequest, verified: Verified) -> tuple[NuevoWebhook, ...]:
        """Fail."""
        raise RuntimeError(f"the fault, of {request.body!r}, {verified}")


def test_a_fault_of_ours(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    """500 that says nothing of it to the sender; the log has the traceback."""
    provider = Broken(origen="broken", secret_setting="BROKEN", header="X-Signature")
    inbox.configure(providers=[provider], secrets={"BROKEN": "s"}.get)
    signature = "143ca8d517ba1b181025d732b1cf275d90104fca57bb02a565542978aa18c4b6"  # HMAC-SHA256 of b"{}" under "s"
    with caplog.at_level(logging.ERROR, "cauce.web"):
        answer = inbox.request("POST", "/api/webhooks/broken", content=b"{}", headers={"x-signature": signature})
    detalle = "something went wrong here; the log of the server says what"
    assert (answer.status_code, answer.json()) == (500, {"error": "interno", "detalle": detalle})
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "the fault" in str(record.exc_info[1])
    assert inbox.events() == []


def test_without_a_database_there_is_no_application(inbox: Inbox, bus: Bus) -> None:
    """A missing ``DATABASE_URL`` is said when the application is made, not to the first sender."""
    with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
        create_app(bus, inbox.settings.model_copy(update={"database_url": ""}))


def test_every_code_is_documented() -> None:
    """The table in docs/adr/0011-http.md has the codes and their statuses, all of them and no other."""
    text = (Path(__file__).parents[3] / "docs" / "adr" / "0011-http.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
    assert sorted(documented) == sorted((code.value, str(int(code.status))) for code in ErrorCode)
