"""The inbox's table side: keep what was verified, in one statement, committed when it returns.

Storing is idempotent by (``origen``, ``id_externo``), so whoever is not sure that it happened does it again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import psycopg

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from psycopg import AsyncConnection

    from cauce.webhooks import NuevoWebhook, Verified

RECIBIR = "select r.id, r.duplicado from cauce.recibir_evento(%s, %s, %s, %s, %s, %s::jsonb, %s) r"
# One statement is one transaction: all events of a batch are stored, or none; in the order they came.
RECIBIR_VARIOS = """
select r.id, r.duplicado
  from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::jsonb[], %s::text[]) with ordinality
       as n(origen, tipo, id_externo, payload, cuerpo, cabeceras, motivo, o)
 cross join lateral cauce.recibir_evento(
       n.origen, n.tipo, n.id_externo, n.payload, n.cuerpo, n.cabeceras, n.motivo) r
 order by n.o
"""
GUARDADO = "select e.payload, e.cuerpo from cauce.eventos e where e.id = %s"

Row = tuple[str, str, str, str | None, bytes | None, str, str | None]


class Stored(NamedTuple):
    """What became of one webhook. ``id`` is None if the event it repeats was pruned at this very moment."""

    id: int | None
    duplicado: bool


async def store(conn: AsyncConnection[Any], webhooks: Sequence[NuevoWebhook], verified: Verified) -> list[Stored]:
    """Store what one delivery holds, once however often it comes; committed on return.

    A payload that PostgreSQL refuses although it is JSON (a database that is not UTF-8, a key that is too long for its
    column) is kept raw, as one is that is no JSON at all: it was verified, so it is not lost.

    Args:
        conn: a connection in autocommit.
        webhooks: as ``Provider.describe`` returned them.
        verified: the verdict, stored beside each event.

    Returns:
        One result for each, in the order given.

    Raises:
        psycopg.Error: the database did not take them; nothing is stored.
    """
    if not webhooks:
        return []
    rows = [_row(webhook, verified) for webhook in webhooks]
    try:
        return await _store(conn, rows)
    except psycopg.DataError:
        async with conn.transaction():
            return [await _store_somehow(conn, row) for row in rows]


async def differences(
    conn: AsyncConnection[Any], evento: int, webhook: NuevoWebhook, volatile: Collection[str] = ()
) -> list[str]:
    """Say in what a duplicate differs from what is stored: names of fields, or ``payload`` if it is no object.

    Args:
        conn: any connection.
        evento: the stored event.
        webhook: the duplicate.
        volatile: fields that may differ.
    """
    row = await (await conn.execute(GUARDADO, (evento,))).fetchone()
    if row is None:
        return []
    stored, raw = row
    if webhook.payload is None or stored is None:
        return [] if stored is None and raw == webhook.cuerpo else ["payload"]
    new = json.loads(webhook.payload)
    if not isinstance(new, dict) or not isinstance(stored, dict):
        return [] if new == stored else ["payload"]
    one, other = cast("dict[str, object]", new), cast("dict[str, object]", stored)
    names = (one.keys() | other.keys()).difference(volatile)
    return sorted(name for name in names if one.get(name) != other.get(name))


def _row(webhook: NuevoWebhook, verified: Verified) -> Row:
    """Return the arguments of ``cauce.recibir_evento``. The key ``webhook`` marks an event as the inbox's."""
    cabeceras = {
        "webhook": {**verified.as_json(), "sin_firmar": webhook.sin_firmar},
        "headers": webhook.cabeceras,
    }
    return (
        webhook.origen,
        webhook.tipo,
        webhook.id_externo,
        webhook.payload,
        webhook.cuerpo,
        json.dumps(cabeceras),
        webhook.error,
    )


async def _store(conn: AsyncConnection[Any], rows: Sequence[Row]) -> list[Stored]:
    if len(rows) == 1:
        cursor = await conn.execute(RECIBIR, rows[0])
    else:
        columns: list[list[object]] = [list(column) for column in zip(*rows, strict=True)]
        cursor = await conn.execute(RECIBIR_VARIOS, columns)
    return [Stored(*row) for row in await cursor.fetchall()]


async def _store_somehow(conn: AsyncConnection[Any], row: Row) -> Stored:
    """Store one row, raw if it cannot be otherwise."""
    try:
        async with conn.transaction():
            return (await _store(conn, [row]))[0]
    except psycopg.DataError as error:
        origen, tipo, id_externo, payload, cuerpo, cabeceras, _ = row
        if payload is None:
            raise
        motivo = f"PostgreSQL refused it: {error.diag.message_primary or error}"
        raw: Row = (origen, tipo, id_externo, None, cuerpo or payload.encode(), cabeceras, motivo)
        return (await _store(conn, [raw]))[0]
