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
GUARDADO = "select e.payload, e.cuerpo from cauce.eventos e where e.id = %s"


class Row(NamedTuple):
    """The arguments of ``cauce.recibir_evento``."""

    origen: str
    tipo: str
    id_externo: str
    payload: str | None
    cuerpo: bytes | None
    cabeceras: str
    motivo: str | None


class Stored(NamedTuple):
    """What became of one webhook. ``id`` is None if the event it repeats was pruned at this very moment."""

    id: int | None
    duplicado: bool


def rows_of(
    webhooks: Sequence[NuevoWebhook],
    verified: Verified,
    body: bytes | None = None,
    notes: Mapping[str, JsonValue] | None = None,
) -> list[Row]:
    """Return the rows of one delivery.

    The key ``webhook`` in ``cabeceras`` marks an event as the inbox's. An item of a batch that is no JSON brings its
    own bytes.

    Args:
        webhooks: as ``Provider.describe`` returned them.
        verified: the verdict, stored beside each event.
        body: the delivery's bytes, if they are to be kept: in ``cuerpo``, beside the payload that was read from them.
            Those of a batch are kept once, with its first event that is JSON.
        notes: what else is to be stored beside the verdict.
    """
    verdict = verified.as_json()
    if notes:
        verdict.update(notes)
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
            Row(
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


async def store(conn: AsyncConnection[Any], rows: Sequence[Row]) -> list[Stored]:
    """Store what one delivery holds, once however often it comes; committed on return, unless the caller's commits.

    A payload that PostgreSQL refuses although it is JSON (a database that is not UTF-8, a key that is too long for its
    column) is kept raw, as one is that is no JSON at all: it was verified, so it is not lost.

    Args:
        conn: a connection in autocommit, or in a transaction.
        rows: as ``rows_of`` returned them.

    Returns:
        One result for each, in the order given.

    Raises:
        psycopg.Error: the database did not take them; nothing is stored.
    """
    if conn.pgconn.transaction_status == TransactionStatus.IDLE:
        with suppress(psycopg.DataError):
            return await store_as_they_are(conn, rows)
    async with conn.transaction():
        return [await _store_somehow(conn, row, alone=len(rows) == 1) for row in rows]


async def store_as_they_are(conn: AsyncConnection[Any], rows: Sequence[Row]) -> list[Stored]:
    """Store rows of one delivery or of several: all, or none if PostgreSQL refuses a single one.

    Several travel in one pipeline, which is one transaction: on a connection in autocommit it ends at its one Sync
    (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING).

    Raises:
        psycopg.Error: nothing is stored.
    """
    if len(rows) == 1:
        return [Stored(*row) for row in await (await conn.execute(RECIBIR, rows[0])).fetchall()]
    stored: list[Stored] = []
    if rows:
        async with conn.pipeline(), conn.cursor() as cursor:
            await cursor.executemany(RECIBIR, rows, returning=True)
            more: bool | None = True
            while more:
                stored += [Stored(*row) for row in await cursor.fetchall()]
                more = cursor.nextset()
    return stored


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


async def _store_somehow(conn: AsyncConnection[Any], row: Row, *, alone: bool) -> Stored:
    """Store one row, raw if it cannot be otherwise: the delivery's bytes or, of a batch, the item's."""
    try:
        async with conn.transaction():
            return (await store_as_they_are(conn, [row]))[0]
    except psycopg.DataError as error:
        if row.payload is None:
            raise
        motivo = f"PostgreSQL refused it: {error.diag.message_primary or error}"
        content = row.cuerpo if alone and row.cuerpo else row.payload.encode()
        return (await store_as_they_are(conn, [row._replace(payload=None, cuerpo=content, motivo=motivo)]))[0]
