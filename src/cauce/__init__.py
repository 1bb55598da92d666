"""Cauce, a durable event bus on PostgreSQL.

Webhooks are verified and stored, business code publishes events in its own transaction, and workers deliver every event
to its handler and its subscribers. Start with ``Catalog``, ``EventType`` and ``Bus``; publish with ``publicar_evento``;
run ``cauce worker module:bus``.
"""

from __future__ import annotations

from cauce.bus import Bus
from cauce.catalog import Catalog, EventHandlers, EventType, NuevoEvento, Subscriber
from cauce.config import Settings
from cauce.errors import (
    CatalogError,
    CauceError,
    ConfigError,
    ForeignRestore,
    InvalidPayload,
    LeaseLost,
    NewerVersion,
    NotFound,
    NotInTransaction,
    PublishError,
    SchemaError,
    TransactionEnded,
    UnknownEvent,
    UpcastError,
    WrongArgument,
)
from cauce.evento import Estado, Evento
from cauce.outcome import Attempt, Discard, RetryAfter
from cauce.publishing import publicar_evento, publicar_eventos
from cauce.retry import RetryPolicy

__all__ = [
    "Attempt",
    "Bus",
    "Catalog",
    "CatalogError",
    "CauceError",
    "ConfigError",
    "Discard",
    "Estado",
    "EventHandlers",
    "EventType",
    "Evento",
    "ForeignRestore",
    "InvalidPayload",
    "LeaseLost",
    "NewerVersion",
    "NotFound",
    "NotInTransaction",
    "NuevoEvento",
    "PublishError",
    "RetryAfter",
    "RetryPolicy",
    "SchemaError",
    "Settings",
    "Subscriber",
    "TransactionEnded",
    "UnknownEvent",
    "UpcastError",
    "WrongArgument",
    "publicar_evento",
    "publicar_eventos",
]
