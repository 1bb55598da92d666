"""Settings: read from the environment, each with a unit and a reason, refused where they make no sense."""

from __future__ import annotations

import ast
import inspect

import pytest
from pydantic import ValidationError

from cauce import ConfigError, RetryPolicy, Settings
from cauce.config import misspelt

OWN_NAMES = {
    "database_url": "DATABASE_URL",
    "cron_secret": "CRON_SECRET",
    "stripe_webhook_secret": "STRIPE_WEBHOOK_SECRET",
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting from the surroundings of the test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(OWN_NAMES.get(name, f"CAUCE_{name}".upper()), raising=False)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_at_its_place(name: str) -> None:
    """The string below it says its unit and its reason."""
    body = ast.parse(inspect.getsource(Settings)).body[0]
    assert isinstance(body, ast.ClassDef)
    documented = {
        node.target.id
        for node, following in zip(body.body, body.body[1:], strict=False)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
    }  # fmt: skip
    assert name in documented


def test_names_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three have the names that the field uses, all others begin with CAUCE_."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://x/y")
    monkeypatch.setenv("CRON_SECRET", "c")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_1,whsec_2")
    monkeypatch.setenv("CAUCE_BATCH_SIZE", "7")
    monkeypatch.setenv("CAUCE_RETENTION_DAYS", "30")
    settings = Settings()
    assert settings.database_url == "postgresql://x/y"
    assert settings.cron_secret.get_secret_value() == "c"
    assert settings.stripe_webhook_secret.get_secret_value() == "whsec_1,whsec_2"
    assert (settings.batch_size, settings.retention_days) == (7, 30)


def test_secrets_are_not_printed() -> None:
    """Neither by repr nor by str."""
    settings = Settings(cron_secret="hush", stripe_webhook_secret="whsec_hush")  # type: ignore[arg-type]  # pydantic makes it
    assert "hush" not in repr(settings) + str(settings)


def test_defaults_that_are_promised() -> None:
    """12 attempts, 1 s doubling to 1 h, three crashes, a body of 1 MiB."""
    settings = Settings()
    assert settings.retry_policy() == RetryPolicy(12, 1.0, 3600.0)
    assert (settings.crash_limit, settings.max_body_bytes) == (3, 1_048_576)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"batch_size": 10_001}, {"slots": 0}, {"slots": 33}, {"concurrency": 0},
        {"lease_seconds": 0},
        {"poll_seconds": -1}, {"handler_timeout_seconds": 0}, {"grace_seconds": -1}, {"max_attempts": 0},
        {"backoff_base_seconds": -1}, {"crash_limit": 0}, {"retention_days": -1}, {"max_body_bytes": 0},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """At start-up, by name."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Settings.model_validate(wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("https://hooks.example.com", "https://hooks.example.com"),
        (" https://Example.com:8443/cauce/ ", "https://Example.com:8443/cauce"),
        ("http://[::1]:8000/a/b%20c", "http://[::1]:8000/a/b%20c"),
    ],
)
def test_the_public_url(text: str, value: str) -> None:
    """What stands before /api/webhooks, letter for letter but for the slash at its end."""
    assert Settings(public_url=text).public_url == value


@pytest.mark.parametrize(
    "text",
    [
        "hooks.example.com", "ftp://a.example", "HTTPS://a.example", "https://", "https:///a", "https://a.example?b=1",
        "https://a.example/c#d", "https://user:secret@a.example", "https://a.example:port", "https://a b", "https://\xf1",
        "https://a.example/\u2028b", "https://a.example/api/webhooks", "https://a.example/api/webhooks/twilio",
    ],
)  # fmt: skip
def test_a_public_url_that_is_none_is_refused(text: str) -> None:
    """With what it should be: a wrong one would refuse every delivery of those who sign the address."""
    with pytest.raises(ValidationError, match="the path before /api/webhooks"):
        Settings(public_url=text)


def test_a_missing_database_is_said_with_an_example() -> None:
    """What is missing, and what it looks like."""
    with pytest.raises(ConfigError, match="DATABASE_URL is not set; for example postgresql://"):
        Settings().require_database_url()
    assert Settings(database_url="x").require_database_url() == "x"


def test_settings_do_not_change() -> None:
    """A worker's settings are those it started with."""
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.batch_size = 1


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CAUCE_BATCHSIZE", "CAUCE_BATCH_SIZE"),
        ("CAUCE_POLER", "CAUCE_POOLER"),
        ("cauce_slot", "CAUCE_SLOTS"),
        ("CAUCE_DATABASE_URL", ""),
        ("CAUCE_XYZZY", ""),
    ],
)
def test_a_misspelt_variable_is_found_with_the_nearest_name(name: str, near: str) -> None:
    """Whatever begins with CAUCE_ and is no setting."""
    assert misspelt([name, "PATH"]) == {name: near}


@pytest.mark.parametrize(
    "name",
    ["CAUCE_SLOTS", "cauce_slots", "CAUCE_DEBUG", "CAUCE_TEST_DATABASE_URL", "CAUCE_PORT", "CAUCE_SERVICE_HOST"],
)
def test_settings_and_the_variables_of_others_are_left_alone(name: str) -> None:
    """Those of the tests, of the command line, and those that Kubernetes makes of a service."""
    assert misspelt([name]) == {}
