"""The inbox's table side: keep what was verified, in one statement, committed when it returns.

Storing is idempotent by (``origen``, ``id_externo``), so whoever is not sure that it happened does it again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import psycopg
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from psycopg import AsyncConnection

    from cauce.webhooks import NuevoWebhook, Verified
    from cauce.webhooks.payload import JsonValue

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


async def store(
    conn: AsyncConnection[Any],
    webhooks: Sequence[NuevoWebhook],
    verified: Verified,
    body: bytes | None = None,
    notes: Mapping[str, JsonValue] | None = None,
) -> list[Stored]:
    """Store what one delivery holds, once however often it comes; committed on return, unless the caller's commits.

    A payload that PostgreSQL refuses although it is JSON (a database that is not UTF-8, a key that is too long for its
    column) is kept raw, as one is that is no JSON at all: it was verified, so it is not lost.

    Args:
        conn: a connection in autocommit, or in a transaction.
        webhooks: as ``Provider.describe`` returned them.
        verified: the verdict, stored beside each event.
        body: the delivery's bytes, if they are to be kept: in ``cuerpo``, beside the payload that was read from them.
            Those of a batch are kept once, with its first event that is JSON.
        notes: what else is to be stored beside the verdict.

    Returns:
        One result for each, in the order given.

    Raises:
        psycopg.Error: the database did not take them; nothing is stored.
    """
    if not webhooks:
        return []
    rows = _rows(webhooks, {**verified.as_json(), **(notes or {})}, body)
    if conn.pgconn.transaction_status == TransactionStatus.IDLE:
        with suppress(psycopg.DataError):
            return await _store(conn, rows)
    async with conn.transaction():
        return [await _store_somehow(conn, row, alone=len(rows) == 1) for row in rows]


async def differences(
    conn: AsyncConnection[Any],
    evento: int,
    webhook: NuevoWebhook,
    volatile: Collection[str] = (),
    body: bytes | None = None,
) -> list[str]:
    """Say in what a duplicate differs from what is stored: names of fields, or ``payload`` if it is no object.

    Args:
        conn: any connection.
        evento: the stored event.
        webhook: the duplicate.
        volatile: fields that may differ.
        body: the bytes of the duplicate's delivery, for an event that is kept raw.
    """
    row = await (await conn.execute(GUARDADO, (evento,))).fetchone()
    if row is None:
        return []
    stored, raw = row
    if stored is None:
        return [] if raw in (webhook.cuerpo, body, (webhook.payload or "").encode()) else ["payload"]
    if webhook.payload is None:
        return ["payload"]
    new = json.loads(webhook.payload)
    if not isinstance(new, dict) or not isinstance(stored, dict):
        return [] if new == stored else ["payload"]
    one, other = cast("dict[str, object]", new), cast("dict[str, object]", stored)
    names = (one.keys() | other.keys()).difference(volatile)
    return sorted(name for name in names if one.get(name) != other.get(name))


def _rows(webhooks: Sequence[NuevoWebhook], verdict: Mapping[str, JsonValue], body: bytes | None) -> list[Row]:
    """Return the arguments of ``cauce.recibir_evento``, a row for each.

    The key ``webhook`` in ``cabeceras`` marks an event as the inbox's. An item of a batch that is no JSON brings its
    own bytes.
    """
    rows: list[Row] = []
    for webhook in webhooks:
        cabeceras = {
            "webhook": {**verdict, "sin_firmar": webhook.sin_firmar},
            "headers": webhook.cabeceras,
        }
        cuerpo = webhook.cuerpo
        if body is not None and (webhook.payload is not None or len(webhooks) == 1):
            cuerpo, body = body, None
        rows.append(
            (
                webhook.origen,
                webhook.tipo,
                webhook.id_externo,
                webhook.payload,
                cuerpo,
                json.dumps(cabeceras),
                webhook.error,
            )
        )
    return rows


async def _store(conn: AsyncConnection[Any], rows: Sequence[Row]) -> list[Stored]:
    if len(rows) == 1:
        cursor = await conn.execute(RECIBIR, rows[0])
    else:
        columns: list[list[object]] = [list(column) for column in zip(*rows, strict=True)]
        cursor = await conn.execute(RECIBIR_VARIOS, columns)
    return [Stored(*row) for row in await cursor.fetchall()]


async def _store_somehow(conn: AsyncConnection[Any], row: Row, *, alone: bool) -> Stored:
    """Store one row, raw if it cannot be otherwise: the delivery's bytes or, of a batch, the item's."""
    try:
        async with conn.transaction():
            return (await _store(conn, [row]))[0]
    except psycopg.DataError as error:
        origen, tipo, id_externo, payload, cuerpo, cabeceras, _ = row
        if payload is None:
            raise
        motivo = f"PostgreSQL refused it: {error.diag.message_primary or error}"
        content = cuerpo if alone and cuerpo else payload.encode()
        raw: Row = (origen, tipo, id_externo, None, content, cabeceras, motivo)
        return (await _store(conn, [raw]))[0]
