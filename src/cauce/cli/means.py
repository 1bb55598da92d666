"""The verification options that ``verify``, ``rejected`` and ``reverify`` share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - the command line is made from the annotations

from cyclopts import Parameter

from cauce.cli.loading import load_provider
from cauce.cli.secrets import called_at_of, given_secrets, secrets_of
from cauce.database.quarantine import SIGNED, Moment
from cauce.webhooks import PROVIDERS, Provider, Secret
from cauce.webhooks.explaining.moments import moment_of
from cauce.webhooks.trying.keys import trusting


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Options:
    """The options as given on the command line."""

    provider: str | None = None
    """The provider, by name or as module:name; by default the one in its address."""
    secret: str | None = None
    """The secret, or several separated by commas; by default the provider's setting. @FILE reads a file."""
    at: str | None = None
    """The moment to judge it at, ISO 8601, Unix seconds, or signed: its signature's; by default when it came."""
    url: str | None = None
    """The address that the provider called, for those that sign it; by default that of CAUCE_PUBLIC_URL."""
    certificate: Path | None = None
    """The PEM file behind PAYPAL-CERT-URL."""
    app_dir: str = "."
    """Where modules are looked for first."""


@dataclass(frozen=True, slots=True)
class Means:
    """The options, read and loaded."""

    provider: Provider | None
    given: tuple[Secret, ...] | None
    at: Moment
    url: str | None
    pem: bytes

    @classmethod
    def read(cls, options: Options | None) -> Means:
        """Read the options; None: none was given.

        Raises:
            ValueError: one is invalid.
            OSError: a file cannot be read.
            ConfigError: the application's provider cannot be loaded.
        """
        said = options or Options()
        provider = load_provider(said.provider, said.app_dir) if said.provider else None
        moment: Moment = SIGNED if said.at == SIGNED else moment_of(said.at or "")
        if said.at is not None and moment is None:
            raise ValueError(f"--at {said.at} is not a time; write 2026-11-24T05:00:00Z, Unix seconds, or {SIGNED}")
        pem = said.certificate.read_bytes() if said.certificate else b""
        return cls(provider, given_secrets(said.secret), moment, said.url, pem)

    def provider_of(self, origen: str) -> Provider | None:
        """Return the provider of an origin; None if only the application knows it."""
        found = self.provider or PROVIDERS.get(origen)
        return None if found is None else self.trusted(replace(found, origen=origen))

    def trusted(self, provider: Provider) -> Provider:
        """Return a provider that trusts the certificate, if one was given."""
        return trusting(provider, self.pem) if self.pem else provider

    def secrets_of(self, provider: Provider) -> tuple[Secret, ...]:
        """Return its secrets: those given, or those in its setting.

        Raises:
            ValueError: they cannot be read.
        """
        return secrets_of(provider.secret_setting) if self.given is None else self.given

    def called_at(self, url: str) -> str:
        """Return the address that was called: the one given, or that of ``CAUCE_PUBLIC_URL`` now."""
        return self.url or called_at_of(url)
