"""L: publishing through each library, beside that library's own INSERT into a table of jobs, on the same connection."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import django
import psycopg
import psycopg2
import sqlalchemy as sa
import uvloop
from django.conf import settings as django_settings
from django.db import connections
from django.db import transaction as django_transaction
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from benchmarks import application, floor
from benchmarks.results import Bar, Comparison
from cauce import publicar_evento
from cauce.publishing.links import run_now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

    Once = Callable[[int], Awaitable[None]]
    Pair = tuple[Once, Once]
    """Publish, and insert, in a transaction of its own."""
    Open = Callable[[str, AsyncExitStack], Awaitable[Pair]]

SLICE: Final = 100
"""Transactions of one side before the other has its turn."""
PERCENT: Final = "insert into trabajos (tipo, payload) values (%s, %s)"
COLONS: Final = sa.text("insert into trabajos (tipo, payload) values (:tipo, cast(:payload as jsonb))")


def job(number: int) -> tuple[str, str]:
    """Return the values of a job."""
    return "listo", json.dumps(floor.payload(number, ""))


def event(number: int) -> application.Payment:
    """Return the payload of an event."""
    return application.Payment(seq=number, data=application.DATA)


def with_cursor(conn: Any, begin: Callable[[], Any]) -> Pair:  # noqa: ANN401 - of several libraries
    """Publish and insert as DB-API has it."""

    async def publish(number: int) -> None:
        with begin():
            publicar_evento(conn, application.BenchEvents.listo, event(number))

    async def insert(number: int) -> None:
        with begin(), conn.cursor() as cursor:
            cursor.execute(PERCENT, job(number))

    return publish, insert


async def open_psycopg(dsn: str, stack: AsyncExitStack) -> Pair:
    """Psycopg 3."""
    conn = stack.enter_context(psycopg.connect(dsn, autocommit=True))
    return with_cursor(conn, conn.transaction)


async def open_psycopg2(dsn: str, stack: AsyncExitStack) -> Pair:
    """psycopg2."""
    conn = psycopg2.connect(dsn)
    stack.callback(conn.close)
    return with_cursor(conn, lambda: conn)


async def open_django(dsn: str, stack: AsyncExitStack) -> Pair:
    """Django over psycopg 3."""
    name = conninfo_to_dict(dsn)
    if not django_settings.configured:
        django_settings.configure()
        django.setup()
    keys = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    where = {key: name.get(libpq) or "" for key, libpq in keys.items()}
    connections.databases["banco"] = {"ENGINE": "django.db.backends.postgresql", **where}
    connections.configure_settings(connections.databases)
    conn = connections["banco"]
    stack.callback(conn.close)
    return with_cursor(conn, lambda: django_transaction.atomic(using="banco"))


async def open_session(dsn: str, stack: AsyncExitStack, driver: str) -> Pair:
    """SQLAlchemy's Session."""
    engine = sa.create_engine(sa.make_url(dsn).set(drivername=f"postgresql+{driver}"))
    stack.callback(engine.dispose)
    session = stack.enter_context(Session(engine))

    async def publish(number: int) -> None:
        with session.begin():
            publicar_evento(session, application.BenchEvents.listo, event(number))

    async def insert(number: int) -> None:
        with session.begin():
            session.execute(COLONS, dict(zip(("tipo", "payload"), job(number), strict=True)))

    return publish, insert


async def open_async_psycopg(dsn: str, stack: AsyncExitStack) -> Pair:
    """Psycopg 3, async."""
    conn = await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn, autocommit=True))

    async def publish(number: int) -> None:
        async with conn.transaction():
            await publicar_evento(conn, application.BenchEvents.listo, event(number))

    async def insert(number: int) -> None:
        async with conn.transaction():
            await conn.execute(PERCENT, job(number))

    return publish, insert


async def open_asyncpg(dsn: str, stack: AsyncExitStack) -> Pair:
    """Asyncpg."""
    conn = await asyncpg.connect(dsn)
    stack.push_async_callback(conn.close)

    async def publish(number: int) -> None:
        async with conn.transaction():
            await publicar_evento(conn, application.BenchEvents.listo, event(number))

    async def insert(number: int) -> None:
        async with conn.transaction():
            await conn.execute(floor.INSERT, *job(number))

    return publish, insert


async def open_async_session(dsn: str, stack: AsyncExitStack, driver: str) -> Pair:
    """SQLAlchemy's AsyncSession."""
    engine = create_async_engine(sa.make_url(dsn).set(drivername=f"postgresql+{driver}"))
    stack.push_async_callback(engine.dispose)
    session = await stack.enter_async_context(AsyncSession(engine))

    async def publish(number: int) -> None:
        async with session.begin():
            await publicar_evento(session, application.BenchEvents.listo, event(number))

    async def insert(number: int) -> None:
        async with session.begin():
            await session.execute(COLONS, dict(zip(("tipo", "payload"), job(number), strict=True)))

    return publish, insert


LIBRARIES: Final[dict[str, tuple[Callable[..., Any], Open]]] = {
    "psycopg": (run_now, open_psycopg),
    "psycopg async": (uvloop.run, open_async_psycopg),
    "psycopg2": (run_now, open_psycopg2),
    "asyncpg": (uvloop.run, open_asyncpg),
    "Session, psycopg": (run_now, lambda dsn, stack: open_session(dsn, stack, "psycopg")),
    "Session, psycopg2": (run_now, lambda dsn, stack: open_session(dsn, stack, "psycopg2")),
    "AsyncSession, psycopg": (uvloop.run, lambda dsn, stack: open_async_session(dsn, stack, "psycopg")),
    "AsyncSession, asyncpg": (uvloop.run, lambda dsn, stack: open_async_session(dsn, stack, "asyncpg")),
    "Django, psycopg": (run_now, open_django),
}
"""By name: how its coroutines are run, and how it is opened. Django refuses to work where an event loop runs."""


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure each."""
    tables = (Path(__file__).parent / "floor.sql").read_text()
    for number, (name, (runner, opened)) in enumerate(LIBRARIES.items(), 1):
        with server.database("cauce") as dsn:
            with psycopg.connect(dsn) as conn:
                conn.execute(tables.encode())
            ours, own = runner(_measure(opened, dsn, plan.business))
        yield Comparison(
            f"L{number}",
            f"{name}: one event a transaction",
            "events/s",
            Bar("at least", 0.9),
            ours,
            own,
            f"{name}'s own INSERT into a table of jobs, on the same connection",
        )


async def _measure(opened: Open, dsn: str, events: int) -> tuple[list[float], list[float]]:
    """Return the rates of slices, ours and the library's own in turns."""
    rates: tuple[list[float], list[float]] = ([], [])
    async with AsyncExitStack() as stack:
        sides = await opened(dsn, stack)
        for once in sides:
            for number in range(20):  # caches, prepared statements
                await once(number)
        for start in range(0, events, SLICE):
            numbers = range(start, min(start + SLICE, events))
            for once, found in zip(sides, rates, strict=True):
                began = perf_counter()
                for number in numbers:
                    await once(number)
                found.append(len(numbers) / (perf_counter() - began))
    return rates
