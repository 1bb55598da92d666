"""A handler with `tx` never ends the settling transaction unnoticed, whatever way it finds (DESIGN section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from psycopg import AsyncConnection, Connection
from psycopg.sql import SQL, Literal

from cauce import Evento, Subscriber
from cauce.errors import ENDED
from tests.integration.engine.kit import Conn, column, quick, states, value, work
from tests.integration.engine.scenery import (
    Cosa,
    PruebaEvents,
    bus,
    effect,
    effects,
    make_effects,
    settled,
    sync_effect,
    tell,
)

WAYS: dict[str, Sequence[str]] = {
    "commit": ["commit"],
    "commit, and go on": ["commit", "select 1"],
    "commit, and begin": ["commit", "begin"],
    "commit and chain": ["commit and chain"],
    "roll back, and begin": ["rollback", "begin"],
    "roll back and chain": ["rollback and chain"],
    "in one string": ["select 1; commit; begin; select 1"],
    "in the middle of one string": ["savepoint a; release savepoint a; end; start transaction"],
    "prepare, and begin": ["prepare transaction 'mine'", "begin"],
    "do": ["do $$ begin commit; end $$"],
}
"""Statements that end a transaction, or try to; some go on in another."""


def say(pgconn: Any, statement: str) -> None:
    """Let libpq execute a statement, behind psycopg's back."""
    pgconn.exec_(statement.encode())


def async_handler(statements: Sequence[str]) -> Callable[..., Any]:
    """Make a handler that leaves a row, then executes the statements."""

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        for statement in statements:
            await tx.execute(statement.encode())

    return handler


def sync_handler(statements: Sequence[str]) -> Callable[..., Any]:
    """Make the same in a thread."""

    def handler(evento: Evento[Cosa], tx: Connection[Any]) -> None:
        sync_effect(evento, tx)
        for statement in statements:
            tx.execute(statement.encode())

    return handler


def libpq_handler(statements: Sequence[str]) -> Callable[..., Any]:
    """Make the same behind psycopg's back."""

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await effect(evento, tx)
        for statement in statements:
            say(tx.pgconn, statement)

    return handler


async def turns_autocommit_off(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Leave the worker's connection so that psycopg begins transactions by itself."""
    await effect(evento, tx)
    await tx.execute("commit")
    await tx.set_autocommit(False)
    await tx.execute("select 1")


def turns_autocommit_on(evento: Evento[Cosa], tx: Connection[Any]) -> None:
    """Try to leave the transaction by a setting of psycopg's."""
    sync_effect(evento, tx)
    tx.autocommit = True


blocks: list[Any] = []
"""Blocks that are never left; in a variable of a function the garbage collector would leave them."""


async def leaves_a_block(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
    """Enter a nested block and never leave it."""
    await effect(evento, tx)
    blocks.append(tx.transaction())
    await blocks[-1].__aenter__()


def check_that_it_is_noticed(conn: Conn, database: str, handler: Callable[..., Any]) -> None:
    """See that its event ends in `error` alone, and that the others are done once, on a connection that works."""
    make_effects(conn)
    bad = tell(conn)
    good = tell(conn, 5, PruebaEvents.otra)
    work(bus(handler, other=effect), quick(database, max_attempts=2, slots=1), lambda: settled(conn))
    for gid in column(conn, "select gid from pg_prepared_xacts where database = current_database()"):
        conn.execute(SQL("rollback prepared {}").format(Literal(gid)))  # or the database could not be dropped
    assert column(conn, "select id from cauce.eventos where estado = 'error'") == bad
    assert value(conn, "select count(*) from cauce.fallos") == 2
    assert column(conn, "select distinct caidas from cauce.entregas") == [0]
    assert [evento for evento in effects(conn) if evento not in bad] == good


@pytest.mark.parametrize("make", [async_handler, sync_handler, libpq_handler])
@pytest.mark.parametrize("statements", WAYS.values(), ids=WAYS)
def test_a_handler_that_ends_the_settling_transaction_has_failed(
    conn: Conn, database: str, make: Callable[..., Any], statements: Sequence[str]
) -> None:
    """Whether it begins another transaction or not. The other handlers of the batch are settled."""
    check_that_it_is_noticed(conn, database, make(statements))


@pytest.mark.parametrize("handler", [turns_autocommit_off, turns_autocommit_on, leaves_a_block])
def test_what_a_handler_sets_on_its_connection_ends_with_it(
    conn: Conn, database: str, handler: Callable[..., Any]
) -> None:
    """The worker goes on with another connection."""
    check_that_it_is_noticed(conn, database, handler)


@pytest.mark.parametrize("statements", [WAYS["commit"], WAYS["commit and chain"]], ids=["commit", "commit and chain"])
def test_the_guilty_one_of_several_is_named(conn: Conn, database: str, statements: Sequence[str]) -> None:
    """Also where it is not alone with its event; what happened and what to do is said."""
    make_effects(conn)
    tell(conn)
    guilty = Subscriber("guilty", PruebaEvents.una.handled_by(async_handler(statements)))
    innocent = Subscriber("innocent", PruebaEvents.una.handled_by(effect))
    application = bus(effect, subscribers=[innocent, guilty])
    work(application, quick(database, max_attempts=1), lambda: settled(conn))
    assert conn.execute("select suscriptor, error from cauce.fallos").fetchall() == [
        ("guilty", f"TransactionEnded: {ENDED}")
    ]
    assert states(conn) == {"error": 1}


def test_savepoints_and_nested_blocks_are_the_handlers_own(conn: Conn, database: str) -> None:
    """They end no transaction, also where one of them is rolled back."""
    make_effects(conn)

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await tx.execute("savepoint a")
        await effect(evento, tx)
        await tx.execute("rollback to savepoint a")
        async with tx.transaction():
            await effect(evento, tx)

    def sync(evento: Evento[Cosa], tx: Connection[Any]) -> None:
        with tx.transaction(force_rollback=True):
            sync_effect(evento, tx)
        with tx.transaction():
            sync_effect(evento, tx)

    events = tell(conn, 3) + tell(conn, 3, PruebaEvents.otra)
    work(bus(handler, other=sync), quick(database), lambda: settled(conn))
    assert states(conn) == {"procesado": 6}
    assert effects(conn) == events
    assert value(conn, "select count(*) from cauce.fallos") == 0
