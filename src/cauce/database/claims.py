"""How a worker claims a batch and settles it: calls of one SQL function each."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple, Required, TypedDict

from psycopg import AsyncConnection, AsyncCursor, AsyncTransaction
from psycopg.pq import Format
from psycopg.rows import TupleRow, tuple_row

from cauce import sql
from cauce.database.refusals import explaining
from cauce.errors import ENDED, LeaseLost, TransactionEnded

TOMAR = "select * from cauce.tomar(%s, %s, %s, make_interval(secs => %s), %s, %s, %s)"
TERMINAR = "select cauce.terminar(%(lote)s, %(ficha)s, %(ids)s::bigint[], %(entregas)s::jsonb)"
# A transaction in which handlers run carries the fencing token as a setting that ends with it.
MARCAR = "select set_config('cauce.asiento', %s, true)"
CORRER_A_SOLAS = "select cauce.correr_a_solas(%s, %s)"


class Row(NamedTuple):
    """One delivery as ``cauce.tomar`` hands it out; the columns of that function, in order."""

    lote: int
    ficha: int
    suscriptor: str | None
    intento: int
    caidas: int
    id: int
    origen: str
    tipo: str
    clave: str | None
    id_externo: str | None
    prioridad: int
    creado_en: datetime
    payload: str | None
    cabeceras: str | None
    version: int
    """Version of the group's subscriptions: at least those committed before the event was."""


class SubscriptionRow(NamedTuple):
    """A row of ``suscripciones``, of one group."""

    origen: str
    tipo: str
    suscriptor: str
    aplicacion: str
    retirada_en: datetime | None


class Resultado(StrEnum):
    """What became of a delivery; ``cauce.terminar`` says what follows from each."""

    HECHA = "hecha"
    REINTENTAR = "reintentar"
    MUERTA = "muerta"
    DEVUELTA = "devuelta"
    RETENIDA = "retenida"
    IGNORADA = "ignorada"


class Failure(TypedDict, total=False):
    """What went wrong, and when the delivery is due again."""

    error: str
    espera: float
    """Seconds from now."""
    huella: int
    """Names the cause (``cauce.engine.causes``)."""
    tipo: str
    """Of the error. This and what follows explain a cause that the database may not know."""
    mensaje: str
    traza: str
    """The traceback."""


class Entrega(Failure, total=False):
    """The result of a delivery that did not simply succeed; ``cauce.terminar`` reads these objects."""

    evento: Required[int]
    suscriptor: Required[str]
    resultado: Required[Resultado]
    intento: Required[int]
    aplicacion: str
    """Its workers get the delivery; by default, those of the application that claimed the batch."""


@dataclass(slots=True)
class Batch:
    """Deliveries under one lease, and the fencing token that proves it."""

    lote: int
    ficha: int
    rows: list[Row]

    @property
    def ids(self) -> list[int]:
        """The events delivered for the first time. A settlement names them if an earlier one may have settled some."""
        return [row.id for row in self.rows if row.suscriptor is None]

    @property
    def version(self) -> int:
        """The version of the group's subscriptions that covers every row: the last row's was read last."""
        return self.rows[-1].version

    @property
    def suspect(self) -> bool:
        """A worker died holding this batch; no other suspect batch runs beside it."""
        return self.deaths > 0

    @property
    def deaths(self) -> int:
        """How many workers died holding it."""
        return self.rows[0].caidas


class Claim(NamedTuple):
    """How to ask for a batch: the parameters of ``cauce.tomar``, in order.

    ``careful``: the claim must outlive a crash of the server. ``aplicacion``: the application whose retries are claimed
    too. ``rung``: a publisher has just rung, so new events come before retries.
    """

    grupo: str
    size: int
    worker: str
    lease: float
    careful: bool = False
    aplicacion: str = ""
    rung: bool = False


async def claim(conn: AsyncConnection[Any], wanted: Claim) -> Batch | None:
    """Claim a batch in a transaction of its own; None: nothing is due.

    Raises:
        ForeignRestore: the database was restored into a younger cluster.
    """
    with explaining():
        cursor = await _cursor(conn, Format.BINARY).execute(TOMAR, wanted)
    return _batch(await cursor.fetchall())


async def run_alone(conn: AsyncConnection[Any], batch: Batch) -> None:
    """Note that nothing else runs in this process while the batch does.

    Raises:
        LeaseLost: another worker has the batch now.
    """
    row = await (await _cursor(conn).execute(CORRER_A_SOLAS, (batch.lote, batch.ficha))).fetchone()
    if row is None or not row[0]:
        raise LeaseLost(f"the lease of batch {batch.lote} is gone")


async def settle(
    conn: AsyncConnection[Any],
    batch: Batch,
    entregas: Sequence[Entrega],
    ids: Sequence[int] | None = None,
    *,
    with_effects: bool = False,
) -> list[int]:
    """Settle a batch or some of its events, in the transaction the connection is in.

    Args:
        conn: the worker's connection.
        batch: the claimed batch.
        entregas: the results of its deliveries that did not simply succeed.
        ids: which of its first deliveries; None: all.
        with_effects: ``transaction`` opened this transaction, and handlers wrote in it.

    Returns:
        The named causes that the database does not know.

    Raises:
        LeaseLost: another worker has the batch now.
        TransactionEnded: a handler ended the transaction with its effects, and this is another.
    """
    values: dict[str, object] = {
        "lote": batch.lote,
        "ficha": batch.ficha,
        "ids": None if ids is None else list(ids),
        "entregas": _document(entregas),
    }
    cursor = _cursor(conn)
    with explaining():
        if with_effects:
            await cursor.execute(sql.query("settle_effects"), values | {"asiento": str(batch.ficha)})
        else:
            await cursor.execute(TERMINAR, values)
    if not cursor.rowcount:
        raise TransactionEnded(ENDED)
    return _only(await cursor.fetchone()) or []


@asynccontextmanager
async def transaction(conn: AsyncConnection[Any], batch: Batch) -> AsyncGenerator[None]:
    """Open the transaction for the effects of handlers and their settlement; one round trip."""
    async with AsyncExitStack() as stack:
        async with conn.pipeline():
            # not conn.transaction(): begun in a pipeline, it stays in it to the end
            await stack.enter_async_context(AsyncTransaction(conn))
            await _cursor(conn).execute(MARCAR, (str(batch.ficha),))
        yield


async def settle_and_claim(
    conn: AsyncConnection[Any], batch: Batch, entregas: Sequence[Entrega], wanted: Claim
) -> tuple[list[int] | None, Batch | None]:
    """Settle a whole batch and claim the next: two transactions, one round trip.

    Returns:
        The named causes that the database does not know, None if the lease was lost; and the next batch.
    """
    settled, claimed = _cursor(conn), _cursor(conn, Format.BINARY)
    async with conn.pipeline() as pipeline:
        held = {"lote": batch.lote, "ficha": batch.ficha, "entregas": _document(entregas)}
        await settled.execute(sql.query("settle_held"), held)
        await pipeline.sync()
        await claimed.execute(TOMAR, wanted)
    return _only(await settled.fetchone()), _batch(await claimed.fetchall())


async def subscriptions(conn: AsyncConnection[Any], grupo: str) -> tuple[int, list[SubscriptionRow]]:
    """Read the subscriptions of a group, removed ones included, and their version."""
    rows = await (await _cursor(conn).execute(sql.query("subscriptions"), {"grupo": grupo})).fetchall()
    return rows[0][0], [SubscriptionRow._make(row[1:]) for row in rows if row[1] is not None]


async def is_in_catalog(conn: AsyncConnection[Any], origen: str, tipo: str) -> bool:
    """Return whether any application's catalog has this event."""
    row = await (await _cursor(conn).execute(sql.query("event_known"), {"origen": origen, "tipo": tipo})).fetchone()
    return bool(row and row[0])


def _cursor(conn: AsyncConnection[Any], results: Format = Format.TEXT) -> AsyncCursor[TupleRow]:
    """Make a cursor with its own settings: handlers use the same connection, and may have changed its defaults."""
    cursor = AsyncCursor(conn, row_factory=tuple_row)
    cursor.format = results
    return cursor


_row: Final[Callable[[tuple[Any, ...]], Row]] = partial(tuple[Any, ...].__new__, Row)
"""``Row._make`` without a Python frame, which took 1 us of the 16 us of an event."""


def _batch(rows: Sequence[tuple[Any, ...]]) -> Batch | None:
    if not rows:
        return None
    return Batch(rows[0][0], rows[0][1], list(map(_row, rows)))


def _only(row: tuple[Any, ...] | None) -> list[int] | None:
    return row[0] if row else None


def _document(entregas: Sequence[Entrega]) -> str | None:
    return json.dumps(entregas) if entregas else None
