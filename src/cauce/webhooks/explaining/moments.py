"""Reads the time at which a request claims to be signed. It reads leniently: for explanations, not for verification."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from cauce.webhooks.payload import at, read_json
from cauce.webhooks.provider import Provider
from cauce.webhooks.providers.mailgun import Mailgun
from cauce.webhooks.providers.mercadopago import MercadoPago
from cauce.webhooks.providers.standard import StandardWebhooks
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.signing import Pairs, TemplateProvider, read_pairs
from cauce.webhooks.verdict import Refusal

_MILLISECONDS: Final = 12
"""Fewest digits of a timestamp in milliseconds."""


def signed_at(provider: Provider, request: WebhookRequest) -> float | None:
    """Return when the request claims to be signed (Unix seconds), verified or not."""
    with suppress(Refusal):
        return moment_of(_text(provider, request))
    return None


def moment_of(text: str) -> float | None:
    """Read Unix seconds, Unix milliseconds, or ISO 8601 with an offset; None for any other text."""
    if re.fullmatch("[0-9]{1,15}", text):
        return float(text) / (1000 if len(text) >= _MILLISECONDS else 1)
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo else None
    return None


def iso(moment: float) -> str:
    """Format Unix seconds as ISO 8601 in UTC."""
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{moment:.0f} s after 1970"


def _text(provider: Provider, request: WebhookRequest) -> str:
    """Return the text of the request's timestamp; empty if it has none."""
    headers, body = request.headers, ""
    if isinstance(provider, TemplateProvider) and provider.pairs:
        return read_pairs(headers.get(provider.header) or "", provider.pairs, provider.header)[0]
    if isinstance(provider, MercadoPago):
        return read_pairs(headers.get("x-signature") or "", Pairs(",", "ts", "v1"), "x-signature")[0]
    if isinstance(provider, TemplateProvider):
        name, body = provider.timestamp_header or "", provider.timestamp_path or ""
    elif isinstance(provider, StandardWebhooks):
        name = f"{provider.family_of(request)}-timestamp"
    else:
        name = next((one for one in provider.keep_headers if one.endswith(("-timestamp", "-time"))), "")
        body = "signature.timestamp" if isinstance(provider, Mailgun) else ""
    return str(at(read_json(request.body).value, body)) if body else headers.get(name) or ""
