"""An application whose handlers wait at a gate: each leaves a file when it begins, and ends when the gate is open."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from pydantic import BaseModel

from cauce import Bus, Catalog, EventHandlers, Evento, EventType

GATE = Path(os.environ.get("GATE", "."))


class Cosa(BaseModel):
    """A payload."""

    n: int = 0


class PuertaEvents(Catalog, origen="puerta"):
    """One event for each way to wait."""

    asincrona = EventType("asincrona", Cosa)
    sincrona = EventType("sincrona", Cosa)
    bloqueante = EventType("bloqueante", Cosa)


def begin(evento: Evento[Cosa]) -> None:
    """Leave a file."""
    (GATE / f"begun-{evento.id}").touch()


def is_open() -> bool:
    """Whether handlers may go on."""
    return (GATE / "open").exists()


async def asincrona(evento: Evento[Cosa]) -> None:
    """Wait as a handler should."""
    begin(evento)
    while not is_open():  # noqa: ASYNC110 - the gate is a file, opened by another process
        await asyncio.sleep(0.01)  # between looks at the gate


def sincrona(evento: Evento[Cosa]) -> None:
    """Wait in a thread."""
    begin(evento)
    while not is_open():
        time.sleep(0.01)  # between looks at the gate


async def bloqueante(evento: Evento[Cosa]) -> None:
    """Wait as no handler should: the event loop stands still."""
    sincrona(evento)


bus = Bus(
    catalogs=[PuertaEvents],
    event_handlers=EventHandlers(
        PuertaEvents.asincrona.handled_by(asincrona),
        PuertaEvents.sincrona.handled_by(sincrona),
        PuertaEvents.bloqueante.handled_by(bloqueante),
    ),
)
