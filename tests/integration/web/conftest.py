"""An inbox to post to: the real application on a migrated database, called over ASGI in this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import httpx
import psycopg
import pytest
import stripe
from psycopg.rows import dict_row

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, Settings
from cauce.testing import Database
from cauce.web import SecretSource, create_app
from cauce.webhooks import Provider

SECRET = "whsec_one"
CRON_SECRET = "cron secret"
EVENT = {"id": "evt_1", "object": "event", "type": "checkout.session.completed", "data": {"object": {"id": "cs_1"}}}


class StripeEvents(Catalog, origen="stripe", prioridad=0):
    """The one Stripe event that somebody handles here."""

    checkout_session_completed = EventType("checkout.session.completed", dict[str, Any])


async def checkout_session_completed(evento: Evento[dict[str, Any]]) -> None:
    """Fail if the payload says so."""
    if evento.payload.get("fail"):
        raise ValueError("as asked")


BUS = Bus(
    catalogs=[StripeEvents],
    event_handlers=EventHandlers(StripeEvents.checkout_session_completed.handled_by(checkout_session_completed)),
)


class Delivery(NamedTuple):
    """A request to the inbox of Stripe."""

    body: bytes
    headers: dict[str, str]


class Inbox:
    """The application and its database."""

    def __init__(self, dsn: str) -> None:
        self.settings = Settings(
            database_url=dsn,
            stripe_webhook_secret=SECRET,  # type: ignore[arg-type] # pydantic makes a SecretStr of it
            cron_secret=CRON_SECRET,  # type: ignore[arg-type] # pydantic makes a SecretStr of it
        )
        self.app = create_app(BUS, self.settings)

    def configure(
        self, *, providers: Iterable[Provider] = (), secrets: SecretSource | None = None, **settings: object
    ) -> None:
        """Create the application again, with other settings."""
        self.settings = Settings.model_validate({**self.settings.model_dump(), **settings})
        self.app = create_app(BUS, self.settings, providers=providers, secrets=secrets)

    def run(self, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        """Run work with a client, inside the application's lifespan."""

        async def session() -> Any:
            transport = httpx.ASGITransport(self.app)
            async with (
                self.app.router.lifespan_context(self.app),
                httpx.AsyncClient(transport=transport, base_url="http://test") as client,
            ):
                return await work(client)

        return asyncio.run(session())

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Make one request."""

        async def work(client: httpx.AsyncClient) -> httpx.Response:
            return await client.request(method, path, **more)

        response: httpx.Response = self.run(work)
        return response

    def deliver(self, delivery: Delivery, origen: str = "stripe") -> httpx.Response:
        """Post one delivery."""
        return self.request("POST", f"/api/webhooks/{origen}", content=delivery.body, headers=delivery.headers)

    def query(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Ask the database."""
        with psycopg.connect(self.settings.database_url, autocommit=True, row_factory=dict_row) as conn:
            return conn.execute(query, values).fetchall()

    def events(self) -> list[dict[str, Any]]:
        """Return the table ``eventos``, oldest first."""
        return self.query("select * from cauce.eventos order by id")


class Sign(Protocol):
    """Signs as Stripe's own library does."""

    def __call__(
        self, event: object = ..., *, secrets: Sequence[str] = ..., age: float = ..., body: str | None = ...
    ) -> Delivery:
        """Make a delivery signed ``age`` seconds ago, with one ``v1`` for each secret."""


def _signed(
    event: object = EVENT, *, secrets: Sequence[str] = (SECRET,), age: float = 0, body: str | None = None
) -> Delivery:
    content = json.dumps(event) if body is None else body
    timestamp = int(time.time() - age)
    headers = [stripe.WebhookSignature.generate_signature_header(content, secret, timestamp) for secret in secrets]
    signatures = ",".join(header.partition(",")[2] for header in headers)
    return Delivery(
        content.encode(),
        {"stripe-signature": f"t={timestamp},{signatures}", "content-type": "application/json; charset=utf-8"},
    )


@pytest.fixture(scope="session")
def signed() -> Sign:
    """Stripe's signing."""
    return _signed


@pytest.fixture(scope="session")
def bus() -> Bus:
    """The application's events and their handler."""
    return BUS


@pytest.fixture(scope="session")
def make_inbox() -> Callable[[str], Inbox]:
    """Makes an inbox of a database's address."""
    return Inbox


@pytest.fixture
def inbox(db: Database) -> Inbox:
    """An inbox without any event."""
    return Inbox(db.dsn)
