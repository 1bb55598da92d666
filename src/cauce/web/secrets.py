"""The secrets of the inbox: from the environment, or from a function of the application that asks a vault.

An error here is not the sender's fault: it is answered 503, so that the provider tries again, and the log names the
setting. Without a secret nothing is accepted. docs/adr/0016-secrets.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from cauce.errors import ConfigError
from cauce.webhooks import PROVIDERS, Provider, Reason, Rejected, Secret

if TYPE_CHECKING:
    from cauce.config import Settings

Secrets: TypeAlias = "str | Secret | list[Secret] | tuple[Secret, ...] | None"
"""A setting's text, as ``Secret.several`` reads it; or secrets taken as they are; or none."""
SecretSource: TypeAlias = "Callable[[str], Secrets | Awaitable[Secrets]]"
"""From the name of a setting to what it holds, at once or awaited. A plain function must not wait for anything."""

SOURCE_SECONDS: Final = 2.0
"""Seconds that an awaited source may take. The least patient providers wait 3 s for their answer."""
KEPT_SECONDS: Final = 5.0
"""Seconds that what was awaited is used again. Whoever knows the address of an inbox can post to it, and would make a
call to the vault with every post. So a secret that was taken out of a vault counts for as long as this."""

logger = logging.getLogger("cauce.web")


class _Kept(NamedTuple):
    secrets: tuple[Secret, ...]
    until: float


class Keyring:
    """The secrets of every setting, asked for at every delivery, so that a rotation needs no restart.

    Args:
        source: what ``create_app`` was given, or ``secrets_in(settings)``.
    """

    def __init__(self, source: SecretSource) -> None:
        self._source = source
        self._kept: dict[str, _Kept] = {}
        self._texts: dict[str, tuple[str, tuple[Secret, ...]]] = {}
        """The last text of each setting, and what it says: it is the same for a million deliveries."""

    async def secrets(self, setting: str) -> tuple[Secret, ...] | Rejected:
        """Return what a setting holds, or why that cannot be known; it never raises."""
        kept = self._kept.get(setting)
        if kept is not None and time.monotonic() < kept.until:
            return kept.secrets
        try:
            held = self._source(setting)
            text, read = self._texts.get(setting, (None, ()))
            if text is not None and held == text:
                return read
            awaited = isinstance(held, Awaitable)
            if isinstance(held, Awaitable):
                async with asyncio.timeout(SOURCE_SECONDS):
                    held = await held
        except TimeoutError:
            logger.error("the source of %s did not answer within %g s", setting, SOURCE_SECONDS)  # noqa: TRY400 - no traceback of ours helps
            return Rejected(Reason.UNAVAILABLE, f"the source of {setting} did not answer in time")
        except Exception:
            logger.exception("the source of %s failed", setting)
            return Rejected(Reason.UNAVAILABLE, f"the source of {setting} failed")
        try:
            secrets = _read(held)
        except (TypeError, ValueError) as problem:
            logger.error("%s cannot be read: %s", setting, problem)  # noqa: TRY400 - no traceback of ours helps
            return Rejected(Reason.MALFORMED_SECRET, f"{setting} cannot be read")
        if isinstance(held, str):
            self._texts[setting] = (held, secrets)
        if awaited:
            self._kept[setting] = _Kept(secrets, time.monotonic() + KEPT_SECONDS)
        return secrets


def secrets_in(settings: Settings, providers: Iterable[Provider] = ()) -> SecretSource:
    """Return the source that looks into the settings, for Stripe's, and into the environment.

    Args:
        settings: the application's.
        providers: those it has beside ``cauce.webhooks.PROVIDERS``.

    Raises:
        ConfigError: a provider's setting cannot be read; all of those are named, and nothing they hold is quoted.
    """
    stripe = settings.stripe_webhook_secret.get_secret_value()

    def source(name: str) -> str | None:
        return stripe if name == "STRIPE_WEBHOOK_SECRET" else os.environ.get(name)

    problems: list[str] = []
    for name in sorted({provider.secret_setting for provider in (*PROVIDERS.values(), *providers)}):
        try:
            Secret.several(source(name))
        except ValueError as problem:
            problems.append(f"{name} cannot be read: {problem}")
    if problems:
        raise ConfigError("; ".join(problems))
    return source


def _read(held: object) -> tuple[Secret, ...]:
    """Read what a source returned, which its type cannot promise.

    Raises:
        TypeError: it is none of ``Secrets``.
        ValueError: it is text, and a window in it cannot be read.
    """
    kind = type(held).__name__
    if held is None or isinstance(held, str):
        return Secret.several(held)
    if isinstance(held, Secret):
        return (held,)
    if isinstance(held, list | tuple):
        several = cast("Sequence[object]", held)
        secrets = tuple(one for one in several if isinstance(one, Secret))
        if len(secrets) == len(several):
            return secrets
    raise TypeError(f"a {kind} was returned, which is neither text nor a Secret nor several of them")
