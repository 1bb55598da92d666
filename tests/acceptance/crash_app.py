"""A worker that tests kill: one event type, whose handler leaves a row in its transaction. Run as a program."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from psycopg import AsyncConnection
from pydantic import BaseModel

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, Settings
from cauce.engine.worker import Worker

POISON = 13
"""The payload that kills the process, where the environment says so."""
GATE = 4711
"""The advisory lock at which the handler waits, where the environment says so."""


class Cosa(BaseModel):
    """A payload."""

    n: int


class CaidaEvents(Catalog, origen="caida"):
    """The one event."""

    ocurrida = EventType("ocurrida", Cosa)


async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Leave a row; take a moment, so that there is a middle to be killed in."""
    if evento.payload.n == POISON and os.environ.get("POISONOUS"):
        os._exit(1)
    await tx.execute("insert into efectos (evento, pid) values (%s, %s)", (evento.id, os.getpid()))
    if os.environ.get("GATED"):
        await tx.execute("select pg_advisory_xact_lock(%s)", (GATE,))
    await asyncio.sleep(0.002)  # the handler's work: a batch must last long enough to be killed in


bus = Bus(catalogs=[CaidaEvents], event_handlers=EventHandlers(CaidaEvents.ocurrida.handled_by(handler)))

if __name__ == "__main__":
    asyncio.run(Worker(bus, Settings()).run())
