"""What commands about webhooks take from the environment and from files: secrets, and the address of the inbox."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cauce.webhooks import PROVIDERS, Secret
from cauce.webhooks.urls import called_at

if TYPE_CHECKING:
    from collections.abc import Mapping


def text_of(given: str | None) -> str | None:
    """Read a secret that may stand in a file, where neither `ps` nor a shell's history shows it.

    Raises:
        OSError: the file cannot be read.
    """
    if given is None or not given.startswith("@"):
        return given
    return Path(given[1:]).read_text("utf-8").strip()


def secrets_of(setting: str, text: str | None = None) -> tuple[Secret, ...]:
    """Return the secrets in a text or, without one, in a setting.

    Raises:
        ValueError: they cannot be read.
    """
    try:
        return Secret.several(os.environ.get(setting) if text is None else text)
    except ValueError as error:
        raise ValueError(f"{setting} cannot be read: {error}") from None


def other_secrets() -> Mapping[str, tuple[Secret, ...]]:
    """Return the secrets of all providers, by setting.

    Raises:
        ValueError: those of a setting cannot be read.
    """
    settings = {provider.secret_setting for provider in PROVIDERS.values()}
    return {name: secrets_of(name) for name in settings if os.environ.get(name)}


def called_at_of(url: str) -> str:
    """Return the address as the inbox would have it, by the setting."""
    public = os.environ.get("CAUCE_PUBLIC_URL", "").strip().rstrip("/")
    return called_at(public, url) if public else url
