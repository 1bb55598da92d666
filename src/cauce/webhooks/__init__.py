"""The signed inbox, as pure functions: verify a provider's request, describe it as an event, answer it.

No IO, no clock, no database, no web framework. Importing this package loads no provider and no cryptography;
``PROVIDERS[origen]`` loads a provider at its first use.
"""

from __future__ import annotations

from cauce.webhooks.provider import Answer, Draft, NuevoWebhook, Outcome, Provider
from cauce.webhooks.registry import PROVIDERS
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.verdict import Reason, Rejected, SignedScope, Verdict, Verified

__all__ = [
    "PROVIDERS",
    "Answer",
    "Draft",
    "Headers",
    "NuevoWebhook",
    "Outcome",
    "Provider",
    "Reason",
    "Rejected",
    "Secret",
    "SignedScope",
    "Verdict",
    "Verified",
    "WebhookRequest",
]
