"""Storing verified webhooks as events.

Storing is idempotent by (``origen``, ``id_externo``), so it can be repeated when its outcome is unknown. The statement
takes each event's lane from the catalog, so the table's trigger has nothing to complete: with sixteen events it costs
the server two fifths of what sixteen calls of a function would (docs/adr/0011-http.md).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import count as count_from
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

import psycopg
from psycopg.pq import TransactionStatus

from cauce import sql

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from cauce.webhooks import NuevoWebhook, Verified
    from cauce.webhooks.payload import JsonValue

MOST_ROWS: Final = 64
"""Most events of one statement; the server prepares a statement for each number of them."""

Key: TypeAlias = tuple[str, str]
"""``origen`` and ``id_externo``."""


class InboxRow(NamedTuple):
    """An event to store: with a payload, or in error with its bytes and the reason."""

    origen: str
    tipo: str
    id_externo: str
    payload: str | None
    cuerpo: bytes | None
    cabeceras: str
    motivo: str | None

    @property
    def key(self) -> Key:
        """What identifies the event when it is delivered again."""
        return self.origen, self.id_externo


class Stored(NamedTuple):
    """What became of one webhook. ``id`` is None if the event it repeats was pruned meanwhile."""

    id: int | None
    duplicado: bool


def rows_of(
    webhooks: Sequence[NuevoWebhook],
    verified: Verified,
    body: bytes | None = None,
    notes: Mapping[str, JsonValue] | None = None,
) -> list[InboxRow]:
    """Return the rows of one delivery.

    The key ``webhook`` in ``cabeceras`` marks an event that the inbox stored. An item of a batch that is not JSON has
    its own bytes.

    Args:
        webhooks: as ``Provider.describe`` returned them.
        verified: the verdict, stored with each event.
        body: the delivery's bytes, stored in ``cuerpo``; None: not kept. A batch's are stored once, with its first
            event that is JSON.
        notes: more to store with the verdict.

    Raises:
        ValueError: a webhook has neither a payload nor bytes.
    """
    verdict = verified.as_json()
    if notes:
        verdict.update(notes)
    rows: list[InboxRow] = []
    for webhook in webhooks:
        cabeceras = {
            "webhook": {**verdict, "sin_firmar": webhook.sin_firmar},
            "headers": webhook.cabeceras,
        }
        cuerpo = webhook.cuerpo
        if body is not None and (webhook.payload is not None or len(webhooks) == 1):
            cuerpo, body = body, None
        if webhook.payload is None and cuerpo is None:
            raise ValueError(
                f"a webhook of {webhook.origen} has neither a payload nor a body; its provider must give one"
            )
        rows.append(
            InboxRow(
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


async def store(conn: AsyncConnection[Any], rows: Sequence[InboxRow]) -> list[Stored]:
    """Store the events of one delivery, each once; committed on return, unless the caller has a transaction open.

    A payload that PostgreSQL refuses although it is JSON (a key that is too long for its column) is stored raw, as one
    that is not JSON: it was verified, so it must not be lost.

    Args:
        conn: a connection in autocommit, or in a transaction.
        rows: as ``rows_of`` returned them.

    Returns:
        One result for each row, in the order given.

    Raises:
        psycopg.Error: the database did not accept them; nothing is stored.
    """
    if not rows:
        return []
    if conn.pgconn.transaction_status == TransactionStatus.IDLE:
        with suppress(psycopg.DataError):
            return await store_as_they_are(conn, rows)
    async with conn.transaction():
        return [await _store_somehow(conn, row, alone=len(rows) == 1) for row in rows]


async def store_as_they_are(conn: AsyncConnection[Any], rows: Sequence[InboxRow]) -> list[Stored]:
    """Store one row or more, of one delivery or several: all, or none if PostgreSQL refuses one.

    Raises:
        psycopg.Error: nothing is stored.
    """
    if len(rows) > MOST_ROWS:
        async with conn.transaction():
            pieces = [rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS)]
            return [stored for piece in pieces for stored in await store_as_they_are(conn, piece)]
    async with psycopg.AsyncRawCursor(conn) as cursor:
        await cursor.execute(insert_of(len(rows)), [value for row in rows for value in row])
        new: dict[Key, int | None] = {(origen, given): id_ for origen, given, id_, _ in await cursor.fetchall()}
        others = dict.fromkeys(row.key for row in rows if row.key not in new)
        known: dict[Key, int | None] = {}
        if others:
            await cursor.execute(select_of(len(others)), [value for key in others for value in key])
            known = {(origen, given): id_ for origen, given, id_ in await cursor.fetchall()}
    stored: list[Stored] = []
    for row in rows:
        evento = new.pop(row.key, None)  # a key that is twice among the rows is a duplicate the second time
        known.setdefault(row.key, evento)
        stored.append(Stored(known[row.key], duplicado=evento is None))
    return stored


async def differences(
    conn: AsyncConnection[Any],
    evento: int,
    webhook: NuevoWebhook,
    volatile: Collection[str] = (),
    body: bytes | None = None,
) -> list[str]:
    """Return the fields in which a duplicate differs from the stored event; ``payload`` if one is not an object.

    Args:
        conn: any connection.
        evento: the stored event.
        webhook: the duplicate.
        volatile: fields that may differ.
        body: the bytes of the duplicate's delivery, for an event that was stored raw.
    """
    row = await (await conn.execute(sql.query("event_content"), {"id": evento})).fetchone()
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


@cache
def insert_of(count: int) -> bytes:
    """Return the statement that stores ``count`` rows."""
    return _of_rows("receive", count, ("text", "text", "text", "jsonb", "bytea", "jsonb", "text"), numbered=True)


@cache
def select_of(count: int) -> bytes:
    """Return the statement that finds ``count`` events by their keys."""
    return _of_rows("received", count, ("text", "text"))


def _of_rows(name: str, count: int, types: Sequence[str], *, numbered: bool = False) -> bytes:
    """Put ``($1::text, $2::text), ($3::text, $4::text)`` into a query; ``numbered``: the row's number comes first."""
    places = count_from(1)
    rows = ([f"${next(places)}::{name}" for name in types] for _ in range(count))
    values = ", ".join(f"({', '.join([str(n), *row] if numbered else row)})" for n, row in enumerate(rows))
    return sql.query(name).replace(b"/* rows */", values.encode())


async def _store_somehow(conn: AsyncConnection[Any], row: InboxRow, *, alone: bool) -> Stored:
    """Store one row, raw if PostgreSQL refuses its payload: the delivery's bytes or, of a batch, the item's."""
    try:
        async with conn.transaction():
            return (await store_as_they_are(conn, [row]))[0]
    except psycopg.DataError as error:
        if row.payload is None:
            raise
        motivo = f"PostgreSQL refused it: {error.diag.message_primary or error}"
        content = row.cuerpo if alone and row.cuerpo else row.payload.encode()
        return (await store_as_they_are(conn, [row._replace(payload=None, cuerpo=content, motivo=motivo)]))[0]
