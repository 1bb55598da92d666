"""A worker that tests kill, whose handlers write with an ORM in the settling transaction. Run as a program."""

import asyncio
import os
import time

import django
from django.conf import settings
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from cauce import Bus, Catalog, EventHandlers, Evento, EventType, Settings, Subscriber
from cauce.engine.worker import Worker

WORK = 0.002
"""Seconds that a handler works: a batch must last long enough to be killed in."""


class Cosa(BaseModel):
    """A payload."""

    n: int


class CaidaEvents(Catalog, origen="caida"):
    """The one event."""

    ocurrida = EventType("ocurrida", Cosa)


async def with_async_session(evento: Evento[Cosa], tx: AsyncSession) -> None:
    """Leave a row."""
    await tx.execute(text("insert into efectos values (:evento, 'async session')"), {"evento": evento.id})
    await asyncio.sleep(WORK)  # the work during which it may be killed


def with_session(evento: Evento[Cosa], tx: Session) -> None:
    """Leave a row."""
    tx.execute(text("insert into efectos values (:evento, 'session')"), {"evento": evento.id})
    time.sleep(WORK)  # the work during which it may be killed


def with_django(evento: Evento[Cosa], _tx: BaseDatabaseWrapper) -> None:
    """Leave a row."""
    with connection.cursor() as cursor:
        cursor.execute("insert into efectos values (%s, 'django')", [evento.id])
    time.sleep(WORK)  # the work during which it may be killed


bus = Bus(
    catalogs=[CaidaEvents],
    event_handlers=EventHandlers(CaidaEvents.ocurrida.handled_by(with_async_session)),
    subscribers=[
        Subscriber("session", CaidaEvents.ocurrida.handled_by(with_session)),
        Subscriber("django", CaidaEvents.ocurrida.handled_by(with_django)),
    ],
)

if __name__ == "__main__":
    part = conninfo_to_dict(os.environ["DATABASE_URL"])
    named = {key: part.get(name, "") for key, name in {"NAME": "dbname", "USER": "user", "HOST": "host"}.items()}
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "PORT": str(part.get("port", "")), **named}}
    )
    django.setup()
    asyncio.run(Worker(bus, Settings()).run())
