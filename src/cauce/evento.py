"""An event, as a handler receives it from the table ``eventos``. Field names are column names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Estado(StrEnum):
    """The state of an event in the group ``principal``."""

    PENDIENTE = "pendiente"
    EN_PROCESO = "en_proceso"
    PROCESADO = "procesado"
    ERROR = "error"


class Evento(NamedTuple, Generic[T]):
    """One stored event, as a handler receives it. It is a tuple because a worker makes tens of thousands a second."""

    id: int
    """The event's number, unique in the database."""
    origen: str
    """The origin: the catalog that declares the event, such as ``stripe``."""
    tipo: str
    """The event's name, such as ``checkout.session.completed``."""
    payload: T
    """The payload, validated as the event's type."""
    intentos: int
    """The number of the current attempt: 1 the first time."""
    prioridad: int
    """From 0 (first) to 9 (last)."""
    creado_en: datetime
    """When the publishing transaction began, by the database's clock."""
    clave: str | None = None
    """The event's key: what it is about."""
    id_externo: str | None = None
    """The event's id at its origin, such as Stripe's ``evt_...``."""
    cabeceras: Mapping[str, Any] = MappingProxyType({})
    """Headers: any JSON object, as the publisher wrote it."""
    causa: int | None = None
    """The id of the event whose handler published this one; None if no handler did, as for a webhook."""
    correlacion: int | None = None
    """The id of the first event of the family: the cause, or the cause's cause, and so on; None if ``causa`` is."""
