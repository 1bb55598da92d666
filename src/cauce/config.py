"""The settings: read from the environment, each with its unit, its default and its reason.

``DATABASE_URL``, ``CRON_SECRET`` and ``STRIPE_WEBHOOK_SECRET`` keep the names the field uses; all others begin with
``CAUCE_``.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cauce.arguments import FIRST_STEPS, SETTINGS, expect
from cauce.bus import Bus
from cauce.errors import ConfigError
from cauce.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

Seconds = Annotated[float, Field(gt=0)]
_PUBLIC_URL: Final = re.compile(r'https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!"$->@-~]*)?')


FOREIGN: Final = ("CAUCE_TEST_", "CAUCE_SERVICE_", "CAUCE_PORT_")
"""Variables that begin so are others': the tests', and those that Kubernetes makes of a service called cauce."""
OTHERS: Final = ("CAUCE_DEBUG", "CAUCE_BUS", "CAUCE_PORT")
"""The command line's own, and one more of Kubernetes'."""


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Return the variables that begin with ``CAUCE_`` and are no setting, each with the nearest name of one, or ""."""
    known = [f"CAUCE_{name.upper()}" for name, field in Settings.model_fields.items() if field.validation_alias is None]
    strange = sorted(
        name
        for name in names
        if name.upper().startswith("CAUCE_")
        and not name.upper().startswith(FOREIGN)
        and name.upper() not in (*known, *OTHERS)
    )
    return {name: next(iter(get_close_matches(name.upper(), [*known, *OTHERS[:2]], 1, 0.7)), "") for name in strange}


class Settings(BaseSettings):
    """Every setting of worker, HTTP and CLI."""

    model_config = SettingsConfigDict(env_prefix="CAUCE_", extra="ignore", populate_by_name=True, frozen=True)

    database_url: str = Field(default="", validation_alias=AliasChoices("DATABASE_URL", "database_url"))
    """The database, as libpq reads it: ``postgresql://user:password@host:port/name``."""
    cron_secret: SecretStr = Field(default=SecretStr(""), validation_alias=AliasChoices("CRON_SECRET", "cron_secret"))
    """The bearer secret of ``procesar_lote``; without it the endpoint answers 503."""
    stripe_webhook_secret: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("STRIPE_WEBHOOK_SECRET", "stripe_webhook_secret")
    )
    """The endpoint's signing secret (``whsec_...``), or several, each with its time, during rotation."""

    batch_size: int = Field(default=500, ge=1, le=10_000)
    """Events in a batch at most. Large batches are what makes the log fast."""
    batch_seconds: Seconds = 1.0
    """Seconds a batch should take: slow handlers get smaller batches."""
    slots: int = Field(default=2, ge=1, le=32)
    """Batches of a group that a worker has in hand at once: while one is settled and the next claimed, the handlers of
    another run."""
    concurrency: int = Field(default=10, ge=1, le=1000)
    """Handlers without ``tx`` that run at once, for each slot: a group runs ``slots`` times as many, of any batch.
    Sync handlers run in as many threads."""
    lease_seconds: Seconds = 30.0
    """Seconds after which the deliveries of a silent worker are handed to another."""
    poll_seconds: Seconds = 1.0
    """Seconds between looks at the log while nothing rings."""
    handler_timeout_seconds: Seconds = 60.0
    """Seconds an attempt may take, where the binding does not say."""
    grace_seconds: float = Field(default=20.0, ge=0)
    """Seconds that running handlers get to finish after SIGTERM; the rest is given back at once."""
    max_attempts: int = Field(default=12, ge=1)
    """Attempts of a delivery, where the binding does not say."""
    backoff_base_seconds: float = Field(default=1.0, ge=0)
    """Seconds: the longest delay after the first failure; doubled after each."""
    backoff_cap_seconds: float = Field(default=3600.0, ge=0)
    """Seconds: no delay is longer."""
    crash_limit: int = Field(default=3, ge=1)
    """Workers that may die holding a delivery before it ends in ``error``."""
    retention_days: float | None = Field(default=None, ge=0)
    """Days that processed events are kept; without it, for ever."""
    pooler: bool = False
    """A pooler in transaction mode (PgBouncer) stands before the database: no LISTEN, no prepared statements."""
    max_body_bytes: int = Field(default=1_048_576, ge=1)
    """Bytes of a webhook's body at most; more is answered 413."""
    public_url: str = ""
    """What senders have before ``/api/webhooks/...`` in their addresses, behind a proxy: ``https://hooks.example.com``.
    Providers that sign the address need it (Square, Twilio); ``X-Forwarded-*`` is never believed."""
    keep_raw_bodies: bool = True
    """Keep each webhook's bytes as they came, beside the JSON that was read from them."""
    quarantine_days: float = Field(default=30, ge=0)
    """Days that refused webhooks are kept, to be explained and verified again; 0 keeps none."""

    @field_validator("public_url")
    @classmethod
    def _without_slash(cls, text: str) -> str:
        """Check it, and take the slash from its end."""
        bare = text.strip().rstrip("/")
        if bare and (not _PUBLIC_URL.fullmatch(bare) or "/api/webhooks" in bare):
            raise ValueError(
                "write http:// or https://, a host and, if there is one, what stands before /api/webhooks in the"
                " address; no query and no password"
            )
        return bare

    def retry_policy(self) -> RetryPolicy:
        """Return the policy for handlers that have none of their own."""
        return RetryPolicy(self.max_attempts, self.backoff_base_seconds, self.backoff_cap_seconds)

    def require_database_url(self) -> str:
        """Return the database's address.

        Raises:
            ConfigError: there is none.
        """
        if not self.database_url:
            raise ConfigError("DATABASE_URL is not set; for example postgresql://user:password@localhost:5432/name")
        return self.database_url


def expect_application(bus: object, settings: object, what: str) -> None:
    """Make sure that what works for an application was given its bus and its settings.

    Args:
        bus: what it was given as the bus.
        settings: what it was given as the settings.
        what: its name, as its caller wrote it.

    Raises:
        WrongArgument: one is something else.
    """
    expect(bus, Bus, f"the bus of {what}", "a cauce.Bus: the object itself, not its name", FIRST_STEPS)
    expect(
        settings, Settings, f"the settings of {what}", "a cauce.Settings: Settings() reads the environment", SETTINGS
    )
