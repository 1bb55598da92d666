"""The secrets of the inbox: from the environment, or from a function of the application that reads a vault.

An error here is not the sender's fault. The answer is 503, so that the provider tries again, and the log names the
setting. Without a secret nothing is accepted. See docs/adr/0016-secrets.md.
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
"""The text of a setting for ``Secret.several``; or one or several ``Secret``; or None."""
SecretSource: TypeAlias = "Callable[[str], Secrets | Awaitable[Secrets]]"
"""A function, sync or async, from the name of a setting to its secrets. A sync one must not block."""

SOURCE_SECONDS: Final = 2.0
"""Seconds that an async source may take. Some providers wait only 3 s for an answer."""
KEPT_SECONDS: Final = 5.0
"""Seconds that the result of an async source is cached. Otherwise anybody who knows the address of an inbox could cause
a call to the vault with every request. So a secret removed from the vault is accepted for up to this long."""

logger = logging.getLogger("cauce.web")


class _Kept(NamedTuple):
    secrets: tuple[Secret, ...]
    until: float


class Keyring:
    """The secrets of all settings, read again at every delivery, so that a rotation needs no restart.

    Args:
        source: the ``secrets`` of ``create_app``, or ``secrets_in(settings)``.
    """

    def __init__(self, source: SecretSource) -> None:
        self._source = source
        self._kept: dict[str, _Kept] = {}
        self._texts: dict[str, tuple[str, tuple[Secret, ...]]] = {}
        """The last text of each setting and its secrets, so that an unchanged text is parsed once."""

    async def secrets(self, setting: str) -> tuple[Secret, ...] | Rejected:
        """Return the secrets of a setting, or why they are not available; it never raises."""
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
            logger.error("the source of %s did not answer within %g s", setting, SOURCE_SECONDS)  # noqa: TRY400 - a traceback would not help
            return Rejected(Reason.UNAVAILABLE, f"the source of {setting} did not answer in time")
        except Exception:
            logger.exception("the source of %s failed", setting)
            return Rejected(Reason.UNAVAILABLE, f"the source of {setting} failed")
        try:
            secrets = _read(held)
        except (TypeError, ValueError) as problem:
            logger.error("%s cannot be read: %s", setting, problem)  # noqa: TRY400 - a traceback would not help
            return Rejected(Reason.MALFORMED_SECRET, f"{setting} cannot be read")
        if isinstance(held, str):
            self._texts[setting] = (held, secrets)
        if awaited:
            self._kept[setting] = _Kept(secrets, time.monotonic() + KEPT_SECONDS)
        return secrets


def secrets_in(settings: Settings, providers: Iterable[Provider] = ()) -> SecretSource:
    """Return the source that reads Stripe's secret from the settings, and the others from the environment.

    Args:
        settings: the application's settings.
        providers: the application's own providers, in addition to ``cauce.webhooks.PROVIDERS``.

    Raises:
        ConfigError: a provider's setting cannot be read. The message names all of those and quotes no secret.
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
    """Check and read what a source returned.

    Raises:
        TypeError: it is not one of ``Secrets``.
        ValueError: it is text with an invalid ``since=`` or ``until=``.
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
    raise TypeError(f"the source returned a {kind}; it must return text, a Secret, or a list or tuple of Secret")
