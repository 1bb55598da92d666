"""A handler called alone, with a made-up event."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from cauce.catalog import MANEJADOR, PRINCIPAL, AnyHandler, EventType
from cauce.engine.tx import async_tx, sync_tx
from cauce.evento import Evento
from cauce.handlers import Shape, Takes, shape_of
from cauce.outcome import Attempt
from cauce.retry import RetryPolicy
from cauce.testing.loop import run

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from cauce.catalog import Handler
    from cauce.transactions import AsyncOrm, Orm, SyncOrm


T = TypeVar("T")
L = TypeVar("L", "_Lent", "_LentAsync")

MADE_UP: Final = "prueba"
"""Origin and name of an event whose type the test does not say."""


def call(  # noqa: PLR0913 - the event's columns, by name
    handler: Handler[T, AsyncOrm, SyncOrm],
    payload: T,
    /,
    *,
    tx: Connection[Any] | None = None,
    attempt: int = 1,
    tipo: EventType[T] | None = None,
    clave: str | None = None,
    id_externo: str | None = None,
    cabeceras: Mapping[str, Any] | None = None,
) -> None:
    """Call a handler with an event that is stored nowhere: nothing is retried, settled or caught.

    Args:
        handler: a handler of any shape, async or sync.
        payload: the event's payload; with ``tipo`` it is written as JSON and read back first.
        tx: the test's connection of psycopg, for a handler that takes ``tx``, async or sync; one that takes an
            ORM gets it on this connection, as in a worker. It runs inside a transaction, or inside a savepoint if the
            connection is in a transaction: kept if the handler returns, undone if it raises. Hooks of Django's
            ``on_commit`` are not called.
        attempt: the number of the attempt, 1 the first time.
        tipo: the event's type; without it origin and name are "prueba".
        clave: the event's key.
        id_externo: the event's id at its origin.
        cabeceras: the event's headers.

    Raises:
        TypeError: the handler takes ``tx`` and there is none, or it has a shape that no handler has.
        Exception: whatever the handler raises.
    """
    function, shape, arguments = _lay_out(handler, payload, attempt, tipo, (clave, id_externo, cabeceras))
    if shape.takes is Takes.TX:
        if tx is None:
            raise _no_tx(function, "cauce_db.connect()")
        if shape.is_async:
            run(_in_async(_lend(_LentAsync, tx.pgconn), function, shape.orm, *arguments), "call")
        else:
            _in(tx, function, shape.orm, *arguments)
    elif shape.is_async:
        run(function(*arguments), "call")
    else:
        function(*arguments)


async def call_async(  # noqa: PLR0913 - the event's columns, by name
    handler: Handler[T, AsyncOrm, SyncOrm],
    payload: T,
    /,
    *,
    tx: AsyncConnection[Any] | None = None,
    attempt: int = 1,
    tipo: EventType[T] | None = None,
    clave: str | None = None,
    id_externo: str | None = None,
    cabeceras: Mapping[str, Any] | None = None,
) -> None:
    """Do the same as ``call`` in the running event loop, on an async connection; sync handlers run in a thread.

    Args:
        handler: a handler of any shape, async or sync.
        payload: the event's payload; with ``tipo`` it is written as JSON and read back first.
        tx: the test's connection, for a handler that takes ``tx``; the handler runs in a transaction or savepoint.
        attempt: the number of the attempt, 1 the first time.
        tipo: the event's type; without it origin and name are "prueba".
        clave: the event's key.
        id_externo: the event's id at its origin.
        cabeceras: the event's headers.
    """
    function, shape, arguments = _lay_out(handler, payload, attempt, tipo, (clave, id_externo, cabeceras))
    if shape.takes is Takes.TX:
        if tx is None:
            raise _no_tx(function, "an AsyncConnection")
        if shape.is_async:
            await _in_async(tx, function, shape.orm, *arguments)
        else:
            await asyncio.to_thread(_in, _lend(_Lent, tx.pgconn), function, shape.orm, *arguments)
    elif shape.is_async:
        await function(*arguments)
    else:
        await asyncio.to_thread(function, *arguments)


class _Lent(Connection[Any]):
    """Another face of a connection, which stays open when this one goes."""

    def __del__(self, *_: object) -> None:
        """Leave it open."""


class _LentAsync(AsyncConnection[Any]):
    """The same, async."""

    def __del__(self, *_: object) -> None:
        """Leave it open."""


def _lend(face: type[L], pgconn: PGconn) -> L:
    """Return another face of a connection."""
    lent = face(pgconn)
    lent.prepare_threshold = None  # the names of prepared statements are the other face's to give
    return lent


def _lay_out(
    handler: Handler[T, AsyncOrm, SyncOrm],
    payload: T,
    attempt: int,
    tipo: EventType[T] | None,
    columns: tuple[str | None, str | None, Mapping[str, Any] | None],
) -> tuple[AnyHandler, Shape, tuple[object, ...]]:
    """Return the handler, how it is to be called, and with what; ``tx`` is not among that."""
    clave, id_externo, cabeceras = columns
    if tipo is not None:
        payload = tipo.load(tipo.dump(payload), tipo.version)
    evento = Evento(
        id=1,
        origen=tipo.origen if tipo else MADE_UP,
        tipo=tipo.tipo if tipo else MADE_UP,
        payload=payload,
        intentos=attempt,
        prioridad=5,
        creado_en=datetime.now(UTC),
        clave=clave,
        id_externo=id_externo,
        cabeceras=cabeceras or {},
    )
    shape = shape_of(handler)
    if shape.takes is not Takes.ATTEMPT:
        return handler, shape, (evento,)
    last = attempt >= RetryPolicy().max_attempts
    key = f"{evento.id}:{PRINCIPAL}:{MANEJADOR}"
    return handler, shape, (evento, Attempt(attempt, last, MANEJADOR, PRINCIPAL, key))


def _in(tx: Connection[Any], handler: AnyHandler, orm: Orm | None, evento: object) -> None:
    with tx.transaction():
        if orm is None:
            handler(evento, tx)
        else:
            with sync_tx(orm, tx.pgconn, hooks=[]) as own:
                handler(evento, own)
        _check(tx.pgconn)


async def _in_async(tx: AsyncConnection[Any], handler: AnyHandler, orm: Orm | None, evento: object) -> None:
    async with tx.transaction():
        if orm is None:
            await handler(evento, tx)
        else:
            async with async_tx(orm, tx.pgconn) as own:
                await handler(evento, own)
        _check(tx.pgconn)


def _check(pgconn: PGconn) -> None:
    """Refuse what a worker refuses."""
    if pgconn.transaction_status != TransactionStatus.INTRANS:
        raise RuntimeError("the handler left its transaction aborted or ended; it must not suppress an SQL error")


def _no_tx(handler: AnyHandler, example: str) -> TypeError:
    return TypeError(f"the handler {getattr(handler, '__qualname__', handler)} takes tx: pass tx=, {example}")
