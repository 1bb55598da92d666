"""Secrets and the inbox's address, which webhook commands read from the environment and from files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cauce.webhooks import PROVIDERS, Secret
from cauce.webhooks.urls import called_at


def text_of(given: str | None) -> str | None:
    """Read a secret, from a file if it is given as @FILE: neither `ps` nor a shell's history shows it there.

    Raises:
        OSError: the file cannot be read.
    """
    if given is None or not given.startswith("@"):
        return given
    return Path(given[1:]).read_text("utf-8").strip()


def given_secrets(given: str | None) -> tuple[Secret, ...] | None:
    """Return the secrets of the option ``--secret``; None if it was not given.

    Raises:
        OSError: the file they stand in cannot be read.
        ValueError: they cannot be read.
    """
    text = text_of(given)
    if given is None or text is None:
        return None
    return _several(f"--secret {given}" if given.startswith("@") else "--secret", text)


def secrets_of(setting: str) -> tuple[Secret, ...]:
    """Return the secrets in a setting.

    Raises:
        ValueError: they cannot be read.
    """
    return _several(setting, os.environ.get(setting))


def other_secrets() -> Mapping[str, tuple[Secret, ...]]:
    """Return the secrets of all providers, by setting.

    Raises:
        ValueError: those of a setting cannot be read.
    """
    settings = {provider.secret_setting for provider in PROVIDERS.values()}
    return {name: secrets_of(name) for name in settings if os.environ.get(name)}


def _several(where: str, text: str | None) -> tuple[Secret, ...]:
    try:
        return Secret.several(text)
    except ValueError as error:
        raise ValueError(f"{where} cannot be read: {error}") from None


def called_at_of(url: str) -> str:
    """Return the address as the inbox sees it, by CAUCE_PUBLIC_URL."""
    public = os.environ.get("CAUCE_PUBLIC_URL", "").strip().rstrip("/")
    return called_at(public, url) if public else url
