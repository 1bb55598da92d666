"""How a worker claims a batch and settles it: calls of one SQL function each."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple, Required, TypedDict

from psycopg import AsyncConnection, AsyncCursor, AsyncTransaction
from psycopg.pq import Format
from psycopg.rows import TupleRow, tuple_row

from cauce import sql
from cauce.database.refusals import explaining
from cauce.errors import ENDED, LeaseLost, TransactionEnded

if TYPE_CHECKING:
    from cauce.causing import Lineage

TOMAR = "select * from cauce.tomar(%s, %s, %s, make_interval(secs => %s), %s, %s)"
TOMAR_AL_TIMBRE = "select * from cauce.tomar_al_timbre(%s, %s, %s, make_interval(secs => %s), %s, %s)"
TERMINAR = "select cauce.terminar(%(lote)s, %(ficha)s, %(ids)s::bigint[], %(entregas)s::jsonb)"
SEVERAL: Final = "?"
"""The cause, while handlers of several events share a transaction."""
HIJO: Final = "cauce, evento "
"""What ``application_name`` begins with when ``cauce.anotar_hijo`` tells of an event."""
ATRIBUIR = "select cauce.atribuir(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
SIGUE = "select current_setting('cauce.asiento', true) = %s"
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
    causa: int | None
    correlacion: int | None
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
    """How to ask for a batch: the parameters of ``cauce.tomar``, in order, and at last which function is asked.

    ``careful``: the claim must outlive a crash of the server. ``aplicacion``: the application whose retries are claimed
    too. ``rung``: a publisher has just rung, so new events come before retries (``cauce.tomar_al_timbre``).
    """

    grupo: str
    size: int
    worker: str
    lease: float
    careful: bool = False
    aplicacion: str = ""
    rung: bool = False

    @property
    def call(self) -> tuple[LiteralString, tuple[object, ...]]:
        """The statement that claims, and its parameters."""
        return (TOMAR_AL_TIMBRE if self.rung else TOMAR), self[:-1]


class CauseUnknown(Exception):  # noqa: N818 - no error of anybody: the batch is taken apart
    """The handlers of several events shared a transaction, and one of them hid which events it published by SQL."""


class Effects:
    """Events that handlers which share a transaction published by SQL. ``cauce.anotar_hijo`` tells of them.

    Args:
        conn: the connection the handlers use.
    """

    def __init__(self, conn: AsyncConnection[Any]) -> None:
        self._pgconn = conn.pgconn
        self._told = self._tell()
        self.last = ""
        """The last of the events."""
        self.children: list[tuple[int, int, int | None, int | None]] = []
        """Arguments of ``cauce.atribuir``."""

    def note(self, cause: Lineage) -> None:
        """Note what the handler that has just ended published."""
        told = self._tell()
        if told != self._told:
            self._told = told
            last = told.removeprefix(HIJO)
            if last != told and last.isdecimal():
                self.children.append((int(self.last or 0), int(last), cause.causa, cause.correlacion))
                self.last = last

    def _tell(self) -> str:
        return (self._pgconn.parameter_status(b"application_name") or b"").decode(errors="replace")


async def claim(conn: AsyncConnection[Any], wanted: Claim) -> Batch | None:
    """Claim a batch in a transaction of its own; None: nothing is due.

    Raises:
        ForeignRestore: the database was restored into a younger cluster.
    """
    with explaining():
        cursor = await _cursor(conn, Format.BINARY).execute(*wanted.call)
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
    effects: Effects | None = None,
) -> list[int]:
    """Settle a batch or some of its events, in the transaction the connection is in.

    Args:
        conn: the worker's connection.
        batch: the claimed batch.
        entregas: the results of its deliveries that did not simply succeed.
        ids: which of its first deliveries; None: all.
        effects: what handlers wrote in this transaction, which ``transaction`` opened.

    Returns:
        The named causes that the database does not know.

    Raises:
        LeaseLost: another worker has the batch now.
        TransactionEnded: a handler ended the transaction with its effects, and this is another.
        CauseUnknown: an event was published by SQL, and it is not known by which handler.
    """
    values: dict[str, object] = {
        "lote": batch.lote,
        "ficha": batch.ficha,
        "ids": None if ids is None else list(ids),
        "entregas": _document(entregas),
    }
    cursor = _cursor(conn)
    with explaining():
        if effects is None:
            await cursor.execute(TERMINAR, values)
        else:
            if effects.children:
                await cursor.execute(ATRIBUIR, [*map(list, zip(*effects.children, strict=True))])
            mine = {"asiento": str(batch.ficha), "ultimo_hijo": effects.last}
            await cursor.execute(sql.query("settle_effects"), values | mine)
    if not cursor.rowcount:
        await cursor.execute(SIGUE, (str(batch.ficha),))
        if (await cursor.fetchone() or [None])[0]:
            raise CauseUnknown("a handler published an event by SQL, then changed application_name")
        raise TransactionEnded(ENDED)
    return _only(await cursor.fetchone()) or []


@asynccontextmanager
async def transaction(conn: AsyncConnection[Any], batch: Batch, causes: Collection[Lineage]) -> AsyncGenerator[Effects]:
    """Open the transaction for the effects of handlers and their settlement; one round trip.

    Args:
        conn: the worker's connection.
        batch: the claimed batch.
        causes: of what the handlers will publish: one for each of their events.
    """
    causa, correlacion = map(str, next(iter(causes))) if len(set(causes)) == 1 else (SEVERAL, "")
    async with AsyncExitStack() as stack:
        async with conn.pipeline():
            # not conn.transaction(): begun in a pipeline, it stays in it to the end
            await stack.enter_async_context(AsyncTransaction(conn))
            marks = {"asiento": str(batch.ficha), "causa": causa, "correlacion": correlacion}
            await _cursor(conn).execute(sql.query("settle_begin"), marks)
        yield Effects(conn)


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
        await claimed.execute(*wanted.call)
    return _only(await settled.fetchone()), _batch(await claimed.fetchall())


async def subscriptions(conn: AsyncConnection[Any], grupo: str) -> tuple[int, list[SubscriptionRow]]:
    """Read the subscriptions of a group, removed ones included, and their version."""
    rows = await (await _cursor(conn).execute(sql.query("subscriptions"), {"grupo": grupo})).fetchall()
    return rows[0][0], [SubscriptionRow._make(row[1:]) for row in rows if row[1] is not None]


async def deployed_version(conn: AsyncConnection[Any], origen: str, tipo: str) -> int:
    """Return the highest version of an event that was ever deployed; 0: no application's catalog has the event."""
    row = await (await _cursor(conn).execute(sql.query("event_known"), {"origen": origen, "tipo": tipo})).fetchone()
    return int(row[0]) if row else 0


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
