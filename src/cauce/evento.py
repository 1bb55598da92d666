"""What an event is: the row of the table ``eventos``, as a handler reads it. Field names are column names."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

T = TypeVar("T")


class Estado(StrEnum):
    """How far an event has come in the group ``principal``."""

    PENDIENTE = "pendiente"
    EN_PROCESO = "en_proceso"
    PROCESADO = "procesado"
    ERROR = "error"


class Evento(NamedTuple, Generic[T]):
    """One stored event, as a handler receives it; a tuple, since a worker makes tens of thousands a second."""

    id: int
    origen: str
    tipo: str
    payload: T
    intentos: int
    """The attempt under way: 1 the first time."""
    prioridad: int
    creado_en: datetime
    """When the publishing transaction began, by the database's clock."""
    clave: str | None = None
    id_externo: str | None = None
    cabeceras: Mapping[str, Any] = MappingProxyType({})
    """Headers: whatever JSON the publisher put there, hence Any."""
