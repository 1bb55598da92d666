"""The settings, which are read from the environment, with their units and defaults.

``DATABASE_URL``, ``CRON_SECRET`` and ``STRIPE_WEBHOOK_SECRET`` keep their common names; all others begin with
``CAUCE_``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cauce.arguments import FIRST_STEPS, SETTINGS, expect
from cauce.bus import Bus
from cauce.errors import ConfigError
from cauce.retry import RetryPolicy

Seconds = Annotated[float, Field(gt=0)]
_PUBLIC_URL: Final = re.compile(r'https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!"$->@-~]*)?')


FOREIGN: Final = ("CAUCE_TEST_", "CAUCE_SERVICE_", "CAUCE_PORT_")
"""Prefixes of variables that are not settings: the tests', and Kubernetes' for a service called cauce."""
OTHERS: Final = ("CAUCE_DEBUG", "CAUCE_BUS", "CAUCE_PORT")
"""Variables that are not settings: two of the command line, and one of Kubernetes."""


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Return the variables that begin with ``CAUCE_`` but are not settings, each with the most similar name, or ""."""
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
    """Every setting of the worker, the HTTP endpoints and the command line."""

    model_config = SettingsConfigDict(env_prefix="CAUCE_", extra="ignore", populate_by_name=True, frozen=True)

    database_url: str = Field(default="", validation_alias=AliasChoices("DATABASE_URL", "database_url"))
    """The address of the database, as libpq reads it: ``postgresql://user:password@host:port/name``."""
    cron_secret: SecretStr = Field(default=SecretStr(""), validation_alias=AliasChoices("CRON_SECRET", "cron_secret"))
    """The bearer token of ``procesar_lote``; without it the endpoint answers 503."""
    stripe_webhook_secret: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("STRIPE_WEBHOOK_SECRET", "stripe_webhook_secret")
    )
    """The signing secret of the Stripe endpoint (``whsec_...``); during a rotation several, each with its period."""

    batch_size: int = Field(default=500, ge=1, le=10_000)
    """The largest number of events in a batch. Large batches are faster."""
    batch_seconds: Seconds = 1.0
    """Seconds that a batch should take. The worker claims smaller batches for slow handlers."""
    slots: int = Field(default=2, ge=1, le=32)
    """Batches of a group that a worker processes at once: while one is settled and the next is claimed, the handlers of
    another run."""
    concurrency: int = Field(default=10, ge=1, le=1000)
    """Handlers without ``tx`` that run at once for each slot. A group runs ``slots`` times as many, and as many threads
    for sync handlers."""
    lease_seconds: Seconds = 30.0
    """Seconds without a heartbeat after which a worker's deliveries are given to another worker."""
    poll_seconds: Seconds = 1.0
    """Polling interval in seconds while no NOTIFY arrives."""
    handler_timeout_seconds: Seconds = 60.0
    """Seconds that an attempt may take, if the binding has no ``timeout``."""
    grace_seconds: float = Field(default=20.0, ge=0)
    """Seconds that running handlers may take to finish after SIGTERM. Deliveries that have not begun are given back at
    once."""
    max_attempts: int = Field(default=12, ge=1)
    """Attempts of a delivery before it is dead, if the binding has no ``retry``."""
    backoff_base_seconds: float = Field(default=1.0, ge=0)
    """The longest delay after the first failure, in seconds; it doubles with each failure."""
    backoff_cap_seconds: float = Field(default=3600.0, ge=0)
    """The longest delay between two attempts, in seconds."""
    crash_limit: int = Field(default=3, ge=1)
    """Workers that may die while they process a delivery before it ends in ``error``."""
    retention_days: float | None = Field(default=None, ge=0)
    """Days that processed events are kept; by default they are never deleted."""
    pooler: bool = False
    """The database is behind a pooler in transaction mode (PgBouncer): no LISTEN, no prepared statements."""
    max_body_bytes: int = Field(default=1_048_576, ge=1)
    """The largest body of a webhook, in bytes; a larger one is answered 413."""
    public_url: str = ""
    """The public address before ``/api/webhooks/...``, if the endpoints are behind a proxy:
    ``https://hooks.example.com``. Providers that sign the address need it (Square, Twilio); ``X-Forwarded-*`` headers
    are ignored."""
    keep_raw_bodies: bool = True
    """Keep each webhook's body as it was received, in addition to the JSON read from it."""
    quarantine_days: float = Field(default=30, ge=0)
    """Days that refused webhooks are kept, so that they can be explained and verified again; 0 keeps none."""

    @field_validator("public_url")
    @classmethod
    def _without_slash(cls, text: str) -> str:
        """Check the address and remove a slash at its end."""
        bare = text.strip().rstrip("/")
        if bare and (not _PUBLIC_URL.fullmatch(bare) or "/api/webhooks" in bare):
            raise ValueError(
                "write http:// or https://, a host and, if there is one, the path before /api/webhooks;"
                " no query and no password"
            )
        return bare

    def retry_policy(self) -> RetryPolicy:
        """Return the policy for handlers that have none of their own."""
        return RetryPolicy(self.max_attempts, self.backoff_base_seconds, self.backoff_cap_seconds)

    def require_database_url(self) -> str:
        """Return the database's address.

        Raises:
            ConfigError: ``DATABASE_URL`` is not set.
        """
        if not self.database_url:
            raise ConfigError("DATABASE_URL is not set; for example postgresql://user:password@localhost:5432/name")
        return self.database_url


def expect_application(bus: object, settings: object, what: str) -> None:
    """Check that a function was called with a ``Bus`` and ``Settings``.

    Args:
        bus: the argument that should be a ``Bus``.
        settings: the argument that should be ``Settings``.
        what: the name of the called function or class.

    Raises:
        WrongArgument: one of them is something else.
    """
    expect(bus, Bus, f"the bus of {what}", "a cauce.Bus: the object itself, not its name", FIRST_STEPS)
    expect(
        settings, Settings, f"the settings of {what}", "a cauce.Settings: Settings() reads the environment", SETTINGS
    )
