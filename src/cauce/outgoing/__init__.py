"""Outgoing webhooks: a subscriber that delivers events to endpoints of others, signed by Standard Webhooks.

Example:
    >>> from cauce.outgoing import Destinations, Webhook
    >>> socio = Webhook("https://socio.example/eventos", settings.socio_secret, destinations=Destinations())
    >>> Subscriber("socio", ReservaEvents.reserva_creada.handled_by(socio), grupo="socio")
"""

from __future__ import annotations

from cauce.outgoing.destinations import DISABLE_AFTER, Destinations, Destino
from cauce.outgoing.sending import MAX_RESPONSE, Timeouts
from cauce.outgoing.signing import new_secret
from cauce.outgoing.ssrf import AddressRefused, DeliveryFailed, Rules
from cauce.outgoing.webhook import MAX_RETRY_AFTER, WEBHOOK_RETRY, Webhook

__all__ = [
    "DISABLE_AFTER",
    "MAX_RESPONSE",
    "MAX_RETRY_AFTER",
    "WEBHOOK_RETRY",
    "AddressRefused",
    "DeliveryFailed",
    "Destinations",
    "Destino",
    "Rules",
    "Timeouts",
    "Webhook",
    "new_secret",
]
