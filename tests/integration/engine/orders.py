"""The tables of a small application with an ORM, and what its tests look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg

from tests.integration.engine.kit import column

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

    from tests.integration.engine.kit import Conn

TABLES: Final = """
    create table pedidos (evento bigint primary key, nota jsonb not null, creado timestamptz);
    create table lineas (id bigserial primary key, pedido bigint not null references pedidos);
"""
NOTA: Final = {"a": ["é", None]}


def errors(conn: Conn) -> list[str]:
    """Return the errors of all failures, oldest first."""
    return column(conn, "select error from cauce.fallos order by id")


def orders(conn: Conn) -> list[int]:
    """Return the events of which there are orders."""
    return column(conn, "select evento from pedidos order by evento")


def state_of(conn: Connection[Any] | AsyncConnection[Any]) -> tuple[object, ...]:
    """What an ORM might leave on a connection."""
    return (
        conn.pgconn.notice_handler,
        conn.pgconn.notify_handler,
        conn.row_factory,
        conn.cursor_factory,
        conn.prepare_threshold,
        conn.autocommit,
        conn.isolation_level,
        conn.pgconn.parameter_status(b"TimeZone"),
        conn.adapters.get_loader(psycopg.adapters.types["jsonb"].oid, psycopg.pq.Format.TEXT),
    )
