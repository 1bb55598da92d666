"""The connections of the HTTP layer: work leaves nothing behind for the next user, and no work ends half done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from psycopg import AsyncConnection

from cauce.testing import Database
from cauce.web.connections import HttpConnections


async def backend(conn: AsyncConnection[Any]) -> tuple[int, str]:
    """Return whose connection it is, and the state of its transaction."""
    return conn.info.backend_pid, conn.info.transaction_status.name


def test_a_connection_is_kept_for_the_next(db: Database) -> None:
    """The same server process, outside any transaction."""

    async def scene() -> list[tuple[int, str]]:
        connections = HttpConnections(db.settings)
        seen = [await connections.run(backend) for _ in range(2)]
        await connections.close()
        return seen

    first, second = asyncio.run(scene())
    assert first == second
    assert first[1] == "IDLE"


def test_work_that_leaves_its_transaction_open_has_failed(db: Database) -> None:
    """Uncommitted work is not reported as done, and no other work joins that transaction."""

    async def forgets_to_commit(conn: AsyncConnection[Any]) -> int:
        await conn.execute("begin")
        await conn.execute("insert into cauce.eventos (origen, tipo, payload) values ('a', 'b', '{}')")
        return conn.info.backend_pid

    async def scene() -> tuple[int, str]:
        connections = HttpConnections(db.settings)
        with pytest.raises(RuntimeError, match="left its transaction open"):
            await connections.run(forgets_to_commit)
        seen = await connections.run(backend)
        await connections.close()
        return seen

    assert asyncio.run(scene())[1] == "IDLE"
    with db.connect() as conn:
        assert conn.execute("select count(*) from cauce.eventos").fetchone() == (0,)


def test_work_that_fails_inside_a_transaction_leaves_it_to_nobody(db: Database) -> None:
    """The error is the work's own."""

    async def fails(conn: AsyncConnection[Any]) -> None:
        await conn.execute("begin")
        raise LookupError("no more")

    async def scene() -> tuple[int, str]:
        connections = HttpConnections(db.settings)
        with pytest.raises(LookupError, match="no more"):
            await connections.run(fails)
        seen = await connections.run(backend)
        await connections.close()
        return seen

    assert asyncio.run(scene())[1] == "IDLE"
