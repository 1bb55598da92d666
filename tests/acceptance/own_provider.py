"""An application's module with a provider of its own, as docs/webhooks.md has it."""

from __future__ import annotations

from cauce.webhooks.signing import HmacProvider

ACME = HmacProvider(
    origen="acme",
    secret_setting="ACME_WEBHOOK_SECRET",
    header="X-Acme-Signature",
    prefix="sha256=",
    template="{timestamp}.{body}",
    timestamp_header="X-Acme-Time",
    id_from=("body:id",),
    type_from=("body:type",),
)
OTHER = "not a provider"
