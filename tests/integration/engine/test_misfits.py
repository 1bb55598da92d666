"""What fits no handler, and what no code foresaw: one event ends in `error`, the others and the worker go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import pytest
from psycopg import AsyncClientCursor, AsyncConnection, Connection
from psycopg.rows import dict_row
from pydantic import BaseModel, BeforeValidator

from cauce import Bus, Catalog, EventHandlers, Evento, EventType
from tests.integration.engine.kit import Conn, column, quick, value, work
from tests.integration.engine.scenery import (
    Cosa,
    PruebaEvents,
    bus,
    effect,
    effects,
    make_effects,
    quiet,
    settled,
    tell,
)

UNREADABLE = {
    "a number of 5,000 digits": f'{{"a": {"9" * 5000}}}',
    "3,000 nested lists": f'{{"a": {"[" * 3000}{"]" * 3000}}}',
}
"""JSON that PostgreSQL holds and Python does not read."""


class PanicError(BaseException):
    """Like pyo3's PanicException, which an extension in Rust raises when it panics: not an `Exception`."""


async def verbose(_: Evento[Any]) -> None:
    """Fail, and say so in two lines."""
    raise ValueError("the bank says:\n  no")


def test_a_failure_is_one_line_of_the_log(conn: Conn, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Though its message has two; the line names the file and line of the handler that raised."""
    tell(conn, 2)
    conn.execute("insert into cauce.eventos (origen, tipo, payload) values ('prueba', 'una', '{\"n\": \"x\\ny\"}')")
    work(bus(verbose), quick(database, max_attempts=1), lambda: settled(conn))
    lines = [message for message in caplog.messages if "subscriber manejador" in message]
    assert not [line for line in lines if "\n" in line]
    raised = f"ValueError: the bank says: no ({__file__}:{verbose.__code__.co_firstlineno + 2})"
    assert [line for line in lines if line.endswith(f"; no more attempts: {raised}")]
    assert [line for line in lines if "ends in error: the payload is not a valid Cosa: " in line]


@pytest.mark.parametrize("headers", UNREADABLE.values(), ids=UNREADABLE)
def test_headers_that_python_cannot_read_end_one_event_in_error(conn: Conn, database: str, headers: str) -> None:
    """At once and with the reason; a type that nobody handles too. The rest is done, the worker lives."""
    make_effects(conn)
    good = tell(conn, 2)
    bad = [
        value(conn, "select cauce.publicar_evento('prueba', %s, '{}', cabeceras => %s::jsonb)", tipo, headers)
        for tipo in ("una", "unknown")
    ]
    good += tell(conn, 2)
    work(bus(effect), quick(database), lambda: settled(conn))
    assert effects(conn) == good
    assert column(conn, "select id from cauce.eventos where estado = 'error' order by id") == bad
    assert value(conn, "select count(*) from cauce.fallos") == 2
    said = value(conn, "select error from cauce.fallos where evento = %s", bad[0])
    assert said.startswith("Python cannot read the headers (`cabeceras`): ")


@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE)
def test_a_payload_that_python_cannot_read_ends_one_event_in_error(conn: Conn, database: str, payload: str) -> None:
    """As one that no longer fits its type does."""

    class Anything(Catalog, origen="cualquiera"):
        cosa = EventType("cosa", dict[str, Any])

    conn.execute("select cauce.publicar_evento('cualquiera', 'cosa', %s::jsonb)", (payload,))
    conn.execute("select cauce.publicar_evento('cualquiera', 'cosa', '{}')")
    application = Bus(catalogs=[Anything], event_handlers=EventHandlers(Anything.cosa.handled_by(quiet)))
    work(application, quick(database), lambda: settled(conn))
    assert column(conn, "select estado::text from cauce.eventos order by id") == ["error", "procesado"]
    assert value(conn, "select count(*) from cauce.fallos") == 1


def refusing(conn: Conn, error: BaseException) -> Bus:
    """Publish three events whose payload is validated by code that raises an error for the second."""

    def refuse(n: object) -> object:
        if n == 1:
            raise error
        return n

    class Payload(BaseModel):
        n: Annotated[int, BeforeValidator(refuse)]

    class Checked(Catalog, origen="revisado"):
        cosa = EventType("cosa", Payload)

    for n in range(3):
        conn.execute("select cauce.publicar_evento('revisado', 'cosa', %s::jsonb)", (json.dumps({"n": n}),))
    return Bus(catalogs=[Checked], event_handlers=EventHandlers(Checked.cosa.handled_by(quiet)))


@pytest.mark.parametrize("error", [ValueError, RecursionError, SystemExit, PanicError])
def test_whatever_a_validator_raises_ends_one_event_in_error(
    conn: Conn, database: str, error: type[BaseException]
) -> None:
    """Also what is no Exception."""
    application = refusing(conn, error("never"))
    work(application, quick(database), lambda: settled(conn))
    assert column(conn, "select estado::text from cauce.eventos order by id") == ["procesado", "error", "procesado"]
    assert "never" in value(conn, "select error from cauce.fallos")


async def panics(_: Evento[Cosa]) -> None:
    """Raise a PanicError."""
    raise PanicError


def panics_sync(_: Evento[Cosa]) -> None:
    """Raise a PanicError in a thread."""
    raise PanicError


async def panics_inside(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Raise a PanicError in a transaction."""
    await effect(evento, tx)
    raise PanicError


def interrupts(_: Evento[Cosa]) -> None:
    """Raise, in a thread, what ends a process if its main thread raises it."""
    raise KeyboardInterrupt


def cancels(_: Evento[Cosa]) -> None:
    """Raise, in a thread, what ends a task."""
    raise asyncio.CancelledError


def leaves(_: Evento[Cosa], tx: Connection[Any]) -> None:
    """Raise, in a thread, what ends a coroutine."""
    tx.execute("select 1")
    raise GeneratorExit


@pytest.mark.parametrize("handler", [panics, panics_sync, panics_inside, interrupts, cancels, leaves])
def test_what_is_no_exception_is_a_failure_all_the_same(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """The delivery is tried again by its policy; a hook that ends in the same way changes nothing."""

    def hook(*_: object) -> NoReturn:
        raise SystemExit

    make_effects(conn)
    bad, good = tell(conn, 2), tell(conn, 3, PruebaEvents.otra)
    work(bus(handler, other=effect, on_error=hook), quick(database), lambda: settled(conn))
    assert column(conn, "select id from cauce.eventos where estado = 'error' order by id") == bad
    assert value(conn, "select count(*) from cauce.fallos") == 3 * len(bad)
    assert effects(conn) == good


def test_a_batch_that_cannot_be_settled_is_left_to_its_lease(
    conn: Conn, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No memory, say: its events come again one by one, the guilty one ends alone in `error`, and the worker lives."""
    application = refusing(conn, MemoryError())
    work(application, quick(database, lease_seconds=0.3, crash_limit=2), lambda: settled(conn))
    assert column(conn, "select estado::text from cauce.eventos order by id") == ["procesado", "error", "procesado"]
    assert "of group principal (events 1 to 3) could not be settled: after its lease has expired" in caplog.text


async def wants_dicts(_: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Let rows come as dicts."""
    tx.row_factory = dict_row
    assert await (await tx.execute("select 1 n")).fetchone() == {"n": 1}


async def binds_in_the_client(_: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Let the client bind the parameters."""
    tx.cursor_factory = AsyncClientCursor
    assert await (await tx.execute("select %s", [1])).fetchone() == (1,)


@pytest.mark.parametrize("handler", [wants_dicts, binds_in_the_client])
def test_a_handler_may_set_how_its_cursors_are(
    conn: Conn, database: str, caplog: pytest.LogCaptureFixture, handler: Callable[..., Any]
) -> None:
    """`tx` is the worker's own connection; claims and settlements do not care."""
    tell(conn, 3)
    work(bus(handler), quick(database, batch_size=1, slots=1), lambda: settled(conn))
    assert column(conn, "select distinct estado::text from cauce.eventos") == ["procesado"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
