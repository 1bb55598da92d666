"""Where secrets come from: whatever a source does, nothing is accepted for want of a secret and nothing is raised."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cauce import ConfigError, Settings
from cauce.web import secrets
from cauce.web.secrets import KEPT_SECONDS, Keyring, secrets_in
from cauce.webhooks import PROVIDERS, Reason, Rejected, Secret
from cauce.webhooks.providers.stripe import Stripe

WINDOWED = Secret("old", until=datetime(2026, 12, 1, tzinfo=UTC))


def asked(source: Callable[[str], Any]) -> tuple[Secret, ...] | Rejected:
    """What one question is answered."""
    return asyncio.run(Keyring(source).secrets("ACME_SECRET"))


async def soon(held: object) -> Any:
    """Return it after others have run."""
    await asyncio.sleep(0)  # awaited, and no more: others run first
    return held


@pytest.mark.parametrize("wrap", [lambda held: held, soon], ids=["plain", "async"])
@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (None, ()),
        ("", ()),
        ("a, b", (Secret("a"), Secret("b"))),
        ("new,old;until=2026-12-01T00:00:00Z", (Secret("new"), WINDOWED)),
        (Secret("a,b;c"), (Secret("a,b;c"),)),
        ([Secret("new"), WINDOWED], (Secret("new"), WINDOWED)),
        ((WINDOWED,), (WINDOWED,)),
        ([], ()),
    ],
)
def test_a_source_returns_text_or_secrets(
    wrap: Callable[[object], object], held: object, expected: tuple[Secret, ...]
) -> None:
    """Text is read as a setting is, a Secret is taken as it is; all of it at once or awaited."""
    assert asked(lambda _: wrap(held)) == expected


def test_a_source_is_asked_by_the_name_of_the_setting() -> None:
    """It may hold as many as there are providers."""
    assert asked({"ACME_SECRET": "a"}.get) == (Secret("a"),)
    assert asked({"OTHER": "a"}.get) == ()


def fail(_: str) -> str:
    """Raise."""
    raise LookupError("the vault is sealed")


async def fail_later(_: str) -> str:
    """Raise after it was awaited."""
    await asyncio.sleep(0)  # awaited, and no more: others run first
    return fail("")


@pytest.mark.parametrize("source", [fail, fail_later])
def test_a_source_that_fails_is_our_fault(source: Callable[[str], Any], caplog: pytest.LogCaptureFixture) -> None:
    """The log has the setting and the traceback; the sender is told neither."""
    rejected = asked(source)
    assert isinstance(rejected, Rejected)
    assert rejected.reason is Reason.UNAVAILABLE
    assert "sealed" not in str(rejected)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "the source of ACME_SECRET failed")
    assert record.exc_info


def test_a_source_that_hangs_is_our_fault(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is given up after SOURCE_SECONDS, and cancelled."""
    cancelled: list[str] = []

    async def hang(name: str) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise
        return name

    monkeypatch.setattr(secrets, "SOURCE_SECONDS", 0.01)
    rejected = asked(hang)
    assert isinstance(rejected, Rejected)
    assert rejected.reason is Reason.UNAVAILABLE
    assert cancelled == ["ACME_SECRET"]
    assert "the source of ACME_SECRET did not answer within 0.01 s" in caplog.text


@pytest.mark.parametrize("held", [b"hush", 5, ["hush"], [Secret("a"), "hush"], {"hush": 1}, "hush;until=never"])
def test_what_is_no_secret_is_our_fault(held: object, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong type or an unreadable window makes no secret at all, not even of those that could be read."""
    rejected = asked(lambda _: held)
    assert isinstance(rejected, Rejected)
    assert rejected.reason is Reason.MALFORMED_SECRET
    assert "ACME_SECRET cannot be read: " in caplog.text
    assert "hush" not in caplog.text + str(rejected)


def test_what_was_awaited_is_used_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who floods an inbox does not flood the vault; after KEPT_SECONDS, and after a failure, it is asked again."""
    now, calls = [0.0], list[str]()
    monkeypatch.setattr("cauce.web.secrets.time.monotonic", lambda: now[0])
    answers: list[Callable[[str], Awaitable[Any]]] = [fail_later, lambda _: soon("one"), lambda _: soon("two")]

    def source(name: str) -> Awaitable[Any]:
        calls.append(name)
        return answers[len(calls) - 1](name)

    async def ask() -> list[object]:
        keyring, got = Keyring(source), list[object]()
        for moment in (0.0, 0.0, 0.0, KEPT_SECONDS - 0.001, KEPT_SECONDS):
            now[0] = moment
            got.append(await keyring.secrets("ACME_SECRET"))
        return got

    failed, *rest = asyncio.run(ask())
    assert isinstance(failed, Rejected)
    assert rest == [(Secret("one"),), (Secret("one"),), (Secret("one"),), (Secret("two"),)]
    assert calls == ["ACME_SECRET"] * 3


def test_what_was_not_awaited_is_asked_for_every_time() -> None:
    """A plain function is as cheap as remembering what it said."""
    answers = iter(["one", "two"])

    async def ask() -> list[object]:
        keyring = Keyring(lambda _: next(answers))
        return [await keyring.secrets("ACME_SECRET") for _ in range(2)]

    assert asyncio.run(ask()) == [(Secret("one"),), (Secret("two"),)]


def test_secrets_are_in_the_settings_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripe's is a setting like others; the rest are variables, read at every question."""
    source = secrets_in(Settings(stripe_webhook_secret="whsec_1"))  # type: ignore[arg-type]  # pydantic makes a SecretStr of it
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "g")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "ignored")
    assert (source("STRIPE_WEBHOOK_SECRET"), source("GITHUB_WEBHOOK_SECRET")) == ("whsec_1", "g")
    monkeypatch.delenv("GITHUB_WEBHOOK_SECRET")
    assert source("GITHUB_WEBHOOK_SECRET") is None


@pytest.mark.parametrize("setting", sorted({provider.secret_setting for provider in PROVIDERS.values()}))
def test_an_unreadable_setting_is_refused_at_the_start(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever provider's it is, by its name, and without what it holds."""
    monkeypatch.setenv(setting, "hush;until=never")
    with pytest.raises(ConfigError, match=f"^{setting} cannot be read: until of secret 1 of 1") as raised:
        secrets_in(Settings())
    assert "hush" not in str(raised.value)


def test_all_unreadable_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the application's own providers as well."""
    monkeypatch.setenv("CONNECT_SECRET", "a;until=never")
    monkeypatch.setenv("SLACK_SIGNING_SECRET", "a;b")
    with pytest.raises(ConfigError) as raised:
        secrets_in(Settings(), [Stripe(origen="connect", secret_setting="CONNECT_SECRET")])
    assert "CONNECT_SECRET cannot be read" in str(raised.value)
    assert "SLACK_SIGNING_SECRET cannot be read" in str(raised.value)
