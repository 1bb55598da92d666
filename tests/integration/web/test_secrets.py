"""Secrets in the real inbox: windows, vaults that fail, and what is stored about which secret it was."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from cauce import Bus, ConfigError, Settings
from cauce.web import SecretSource, create_app, secrets
from cauce.web.blocking import Blocking
from cauce.web.endpoints import Endpoints
from cauce.webhooks import Secret
from cauce.webhooks.providers.stripe import Stripe
from tests.integration.web.conftest import Inbox, Sign

HOUR = timedelta(hours=1)


def iso(moment: datetime) -> str:
    """Write a moment as a setting has it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def test_a_rotation_by_windows(inbox: Inbox, signed: Sign) -> None:
    """The old secret counts until its moment, the new one from its own; the event says which it was."""
    now = datetime.now(UTC)
    for held in (f"old;until={iso(now + HOUR)}, new", f"old;until={now.timestamp() + 3600:.0f}, new;since=0"):
        inbox.configure(stripe_webhook_secret=held)
        for position, secret in enumerate(("old", "new")):
            assert inbox.deliver(signed({"id": f"evt_{secret}", "type": "t"}, secrets=[secret])).status_code == 200
            evento = inbox.query("select * from cauce.eventos where id_externo = %s", f"evt_{secret}")[0]
            assert evento["cabeceras"]["webhook"]["secreto"] == position
    assert len(inbox.events()) == 2


def test_a_secret_out_of_its_window(inbox: Inbox, signed: Sign, caplog: pytest.LogCaptureFixture) -> None:
    """It is an ordinary 400, whose text and whose line in the log say which secret and since when."""
    over, opens = (iso(datetime.now(UTC) + distance) for distance in (-HOUR, HOUR))
    inbox.configure(stripe_webhook_secret=f"new, old;until={over}, next;since={opens}")
    old, early, wrong = (inbox.deliver(signed(secrets=[secret])) for secret in ("old", "next", "other"))
    whose = "it is signed with secret {} of 3 in STRIPE_WEBHOOK_SECRET, which"
    expired = f"expired_secret: {whose.format(2)} expired at {over}"
    assert (old.status_code, old.json()) == (400, {"error": "firma_invalida", "detalle": expired})
    detalle = f"early_secret: {whose.format(3)} is accepted from {opens} on"
    assert (early.status_code, early.json()["detalle"]) == (400, detalle)
    assert (wrong.status_code, wrong.json()["detalle"].partition(":")[0]) == (400, "bad_signature")
    assert inbox.events() == []
    assert expired in caplog.text


def test_no_secret_that_counts_is_our_fault(inbox: Inbox, signed: Sign) -> None:
    """A genuine delivery may be signed with one that is not configured yet: the provider must try again."""
    inbox.configure(stripe_webhook_secret=f"old;until={iso(datetime.now(UTC) - HOUR)}")
    answer = inbox.deliver(signed(secrets=["new"]))
    detalle = "STRIPE_WEBHOOK_SECRET has no secret that is accepted now"
    assert (answer.status_code, answer.json()) == (503, {"error": "sin_secreto", "detalle": detalle})
    assert inbox.deliver(signed(secrets=["old"])).status_code == 400


@pytest.mark.parametrize("setting", ["SLACK_SIGNING_SECRET", "STRIPE_WEBHOOK_SECRET", "CONNECT_SECRET"])
def test_an_unreadable_setting_is_no_application(
    inbox: Inbox, bus: Bus, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known providers, Stripe's own setting, providers of the application's: named, not quoted, whatever the face."""
    monkeypatch.setenv(setting, "hush;until=never")
    settings = Settings(database_url=inbox.settings.database_url)
    connect = Stripe(origen="connect", secret_setting="CONNECT_SECRET")
    for make in (create_app, Endpoints, Blocking):
        with pytest.raises(ConfigError, match=rf"^{setting} cannot be read: until of secret 1 of 1") as raised:
            make(bus, settings, providers=[connect])
        assert "hush" not in str(raised.value)


def test_secrets_come_from_a_vault(inbox: Inbox, signed: Sign) -> None:
    """A coroutine function, which returns secrets with windows; it is asked once for the requests of a while."""
    asked: list[str] = []
    now = datetime.now(UTC)

    async def vault(setting: str) -> list[Secret]:
        asked.append(setting)
        await asyncio.sleep(0)  # awaited, and no more: others run first
        return [Secret("new", since=now - HOUR), Secret("old", until=now - HOUR)]

    inbox.configure(secrets=vault)

    async def work(client: httpx.AsyncClient) -> list[int]:
        deliveries = [
            signed({"id": f"evt_{secret}", "type": "t"}, secrets=[secret]) for secret in ("new", "old", "new")
        ]
        return [
            (await client.post("/api/webhooks/stripe", content=one.body, headers=one.headers)).status_code
            for one in deliveries
        ]

    assert inbox.run(work) == [200, 400, 200]
    assert asked == ["STRIPE_WEBHOOK_SECRET"]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source gets a moment only."""
    monkeypatch.setattr(secrets, "SOURCE_SECONDS", 0.01)


async def sealed(_: str) -> str:
    """Raise as a client of a vault may."""
    raise ConnectionError("the vault is sealed: token hush")


def broken(_: str) -> str:
    """Raise at once."""
    raise KeyError("hush")


async def hanging(_: str) -> str:
    """Never return."""
    await asyncio.Event().wait()
    return ""


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("source", "logged"),
    [
        (sealed, "the source of STRIPE_WEBHOOK_SECRET failed"),
        (broken, "the source of STRIPE_WEBHOOK_SECRET failed"),
        (hanging, "the source of STRIPE_WEBHOOK_SECRET did not answer within 0.01 s"),
        (lambda _: ["hush"], "STRIPE_WEBHOOK_SECRET cannot be read: the source returned a list"),
        (lambda _: "whsec_one;until=never", "STRIPE_WEBHOOK_SECRET cannot be read: until of secret 1 of 1"),
    ],
    ids=["sealed", "broken", "hanging", "no secrets", "no window"],
)
def test_a_source_that_fails_is_a_503(
    inbox: Inbox, signed: Sign, source: SecretSource, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Never a 400, after which the provider may give up, and never a 500; the log says which setting it was."""
    inbox.configure(secrets=source)
    answer = inbox.deliver(signed())
    assert (answer.status_code, answer.json()["error"]) == (503, "verificacion_no_disponible")
    assert "hush" not in answer.text
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert error.startswith(logged)
    assert inbox.events() == []
    inbox.configure(secrets=lambda _: "whsec_one")
    assert inbox.deliver(signed()).status_code == 200


def test_a_slow_source_makes_nobody_else_wait(inbox: Inbox, signed: Sign) -> None:
    """While one setting's secret is awaited, the deliveries of another are stored."""
    asked, stored = asyncio.Event(), asyncio.Event()

    async def vault(setting: str) -> str:
        if setting == "SLACK_SIGNING_SECRET":
            asked.set()
            await stored.wait()
        return "whsec_one"

    inbox.configure(secrets=vault)

    async def work(client: httpx.AsyncClient) -> tuple[int, int]:
        slow = asyncio.create_task(client.post("/api/webhooks/slack", content=b"{}"))
        await asked.wait()
        delivery = signed()
        quick = await client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers)
        stored.set()
        return quick.status_code, (await slow).status_code

    assert inbox.run(work) == (200, 400)
