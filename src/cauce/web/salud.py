"""``GET /api/salud``: whether this process is up and can store deliveries in its database."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import psycopg

from cauce import sql
from cauce.web.answers import NOT_MIGRATED, WRONG_CLUSTER, Endpoint, ErrorCode, json_answer, wrong_method

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from starlette.types import Receive, Scope

    from cauce.web.connections import HttpConnections
    from cauce.webhooks import Answer

logger = logging.getLogger("cauce.web")

PATH: Final = "/api/salud"
RESTAURADA = "select cauce.restaurada()"


class Salud(Endpoint):
    """Answers 200 while deliveries can be stored, 503 while they cannot; workers are reported, not required."""

    def __init__(self, connections: HttpConnections) -> None:
        self._connections = connections
        self._wanted = max(sql.migrations())

    async def answer(self, scope: Scope, receive: Receive) -> Answer:  # noqa: ARG002 - there is nothing in the body
        """Check the database and report its state."""
        if scope["method"] not in ("GET", "HEAD"):
            return wrong_method("GET", "HEAD")
        state: dict[str, Any] = {
            "estado": "bien",
            "base_de_datos": True,
            "esquema": None,
            "esquema_esperado": self._wanted,
            "trabajador_visto_hace": None,
        }
        try:
            state["esquema"], state["trabajador_visto_hace"] = await self._connections.run(_look)
            restored = state["esquema"] >= self._wanted and await self._connections.run(_is_restored)
        except psycopg.Error as problem:
            logger.warning("the database could not be used: %s", problem)
            state["base_de_datos"] = False
            return _unwell(state, ErrorCode.NO_DATABASE, "the database could not be used")
        if state["esquema"] < self._wanted:
            return _unwell(state, ErrorCode.OLD_SCHEMA, NOT_MIGRATED)
        if restored:
            return _unwell(state, ErrorCode.RESTORED, f"{WRONG_CLUSTER}; cauce migrate says what to do")
        return json_answer(state)


async def _look(conn: AsyncConnection[Any]) -> tuple[int, float | None]:
    """Return the tables' version, 0 for none, and how many seconds ago a worker was last seen."""
    try:
        row = await (await conn.execute(sql.query("health"))).fetchone()
    except psycopg.errors.UndefinedTable:
        return 0, None
    return (row[0] or 0, row[1]) if row else (0, None)


async def _is_restored(conn: AsyncConnection[Any]) -> bool:
    """Whether stored transaction ids lie ahead of the cluster's, so that publishing is refused."""
    row = await (await conn.execute(RESTAURADA)).fetchone()
    return row is not None and bool(row[0])


def _unwell(state: dict[str, Any], code: ErrorCode, detalle: str) -> Answer:
    return json_answer({**state, "estado": "mal", "error": code, "detalle": detalle}, HTTPStatus.SERVICE_UNAVAILABLE)


def without_query(record: logging.LogRecord) -> bool:
    """Remove queries, which may contain secrets, from uvicorn's access log: a filter for ``uvicorn.access``.

    Args:
        record: a record of the logger ``uvicorn.access``.
    """
    if isinstance(record.args, tuple) and len(record.args) == 5:  # noqa: PLR2004 - as uvicorn logs a request
        client, method, path, version, status = record.args
        record.args = (client, method, str(path).partition("?")[0], version, status)
    return True


def without_salud(record: logging.LogRecord) -> bool:
    """Keep successful health checks out of uvicorn's access log: a filter for the logger ``uvicorn.access``.

    Args:
        record: a record of the logger ``uvicorn.access``.
    """
    _client, _method, path, _version, status = record.args if isinstance(record.args, tuple) else (None,) * 5
    return not (str(path).partition("?")[0].endswith(PATH) and status == HTTPStatus.OK)
