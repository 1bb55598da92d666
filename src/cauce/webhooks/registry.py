"""The providers known by name, each loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cauce.webhooks.provider import Provider

_WHERE: Final[dict[str, str]] = {
    "adyen": "adyen:Adyen",
    "adyen_platform": "adyen:AdyenPlatform",
    "anthropic": "standard:ANTHROPIC",
    "clerk": "standard:CLERK",
    "discord": "discord:Discord",
    "github": "github:GitHub",
    "gitlab": "standard:GITLAB",
    "gitlab_token": "gitlab:GitLabToken",
    "intercom": "intercom:Intercom",
    "lemonsqueezy": "lemonsqueezy:LemonSqueezy",
    "linear": "linear:Linear",
    "mailgun": "mailgun:Mailgun",
    "mercadopago": "mercadopago:MercadoPago",
    "openai": "standard:OPENAI",
    "paddle": "paddle:Paddle",
    "paypal": "paypal:PayPal",
    "redsys": "redsys:Redsys",
    "resend": "standard:RESEND",
    "sendgrid": "sendgrid:SendGrid",
    "shopify": "shopify:Shopify",
    "slack": "slack:Slack",
    "square": "square:Square",
    "standard": "standard:StandardWebhooks",
    "stripe": "stripe:Stripe",
    "supabase": "standard:SUPABASE",
    "svix": "standard:SVIX",
    "twilio": "twilio:Twilio",
    "zendesk": "zendesk:Zendesk",
}


class Registry(Mapping[str, "Provider"]):
    """Providers by ``origen``. Iterating it loads nothing; looking one up imports its module once."""

    def __init__(self, where: Mapping[str, str]) -> None:
        """Take ``module:Class`` or ``module:INSTANCE`` of ``cauce.webhooks.providers``, by name."""
        self._where = dict(where)
        self._loaded: dict[str, Provider] = {}

    def __getitem__(self, origen: str) -> Provider:
        """Return the provider, with its default settings.

        Raises:
            KeyError: no provider has that name.
        """
        if origen not in self._loaded:
            module, _, name = self._where[origen].partition(":")
            found = getattr(import_module(f"cauce.webhooks.providers.{module}"), name)
            self._loaded[origen] = found() if isinstance(found, type) else found
        return self._loaded[origen]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._where)

    def __len__(self) -> int:
        """Count the providers."""
        return len(self._where)


PROVIDERS: Final[Mapping[str, Provider]] = Registry(_WHERE)
"""Every provider with its default settings, by ``origen``."""
