"""Publishing: ``publicar_evento`` inside the caller's own transaction, whatever the connection, sync or async.

The meaning of publishing lives in the SQL functions of the same names; nothing of it is repeated here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar, overload

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from cauce.errors import FOREIGN_RESTORE, ForeignRestore, InvalidPayload, NotInTransaction, PublishError, UnknownEvent

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from cauce.catalog import EventType
    from cauce.evento import NuevoEvento

T = TypeVar("T")

# The plain case is the function's own INSERT, without the function around it.
PUBLICAR: LiteralString = "insert into cauce.eventos (origen, tipo, payload) values (%s, %s, %s) returning id"
PUBLICAR_CON_TODO: LiteralString = "select cauce.publicar_evento(%s, %s, %s::jsonb, %s, %s::smallint, %s, %s::jsonb)"
PUBLICAR_VARIOS: LiteralString = "select cauce.publicar_eventos(%s::jsonb)"


@overload
def publicar_evento(
    conn: Connection[Any],
    tipo: EventType[T],
    payload: T,
    /,
    *,
    clave: str | None = None,
    prioridad: int | None = None,
    id_externo: str | None = None,
    cabeceras: Mapping[str, Any] | None = None,
    alone: bool = False,
) -> int: ...
@overload
def publicar_evento(
    conn: AsyncConnection[Any],
    tipo: EventType[T],
    payload: T,
    /,
    *,
    clave: str | None = None,
    prioridad: int | None = None,
    id_externo: str | None = None,
    cabeceras: Mapping[str, Any] | None = None,
    alone: bool = False,
) -> Coroutine[Any, Any, int]: ...
def publicar_evento(  # noqa: PLR0913 - the event's columns, by name
    conn: Connection[Any] | AsyncConnection[Any],
    tipo: EventType[T],
    payload: T,
    /,
    *,
    clave: str | None = None,
    prioridad: int | None = None,
    id_externo: str | None = None,
    cabeceras: Mapping[str, Any] | None = None,
    alone: bool = False,
) -> int | Coroutine[Any, Any, int]:
    """Publish one event in the caller's transaction: it is delivered if that commits, and never seen if it does not.

    Args:
        conn: the caller's psycopg connection. An async one must be awaited.
        tipo: the event, from a catalog.
        payload: of the event's type.
        clave: the event's key; by default the payload's field that the catalog names.
        prioridad: 0 (first) to 9; by default the catalog's.
        id_externo: an id that makes the event unique in its origin: publishing it again returns the stored id.
        cabeceras: headers, any JSON object.
        alone: publish in a transaction of its own, on a connection in autocommit: there is no business operation.

    Returns:
        The event's id.

    Raises:
        NotInTransaction: the connection is in autocommit and in no transaction, and ``alone`` is not given.
        UnknownEvent: the event is in no catalog.
        InvalidPayload: the payload is not of the event's type, or PostgreSQL cannot store it.
        ForeignRestore: the database was restored into a younger cluster.
    """
    _check_transaction(conn, tipo, alone=alone)
    _check_catalog(tipo)
    statement = PUBLICAR
    values: tuple[object, ...] = (tipo.origen, tipo.tipo, tipo.dump(payload))
    if any(extra is not None for extra in (clave, prioridad, id_externo, cabeceras)):
        headers = None if cabeceras is None else json.dumps(cabeceras)
        statement, values = PUBLICAR_CON_TODO, (*values, clave, prioridad, id_externo, headers)
    if isinstance(conn, AsyncConnection):
        return _fetch_async(conn, statement, values, tipo)
    return int(_fetch(conn, statement, values, tipo))


@overload
def publicar_eventos(
    conn: Connection[Any], eventos: Iterable[NuevoEvento[Any]], /, *, alone: bool = False
) -> list[int]: ...
@overload
def publicar_eventos(
    conn: AsyncConnection[Any], eventos: Iterable[NuevoEvento[Any]], /, *, alone: bool = False
) -> Coroutine[Any, Any, list[int]]: ...
def publicar_eventos(
    conn: Connection[Any] | AsyncConnection[Any], eventos: Iterable[NuevoEvento[Any]], /, *, alone: bool = False
) -> list[int] | Coroutine[Any, Any, list[int]]:
    """Publish many events in the caller's transaction, in one statement; a thousand at a time is a good size.

    Returns:
        Their ids, in the order given.

    Raises:
        As ``publicar_evento``; nothing is stored if one of them is refused.
    """
    documents: list[str] = []
    for evento in eventos:
        _check_catalog(evento.tipo)
        documents.append(_document(evento))
    _check_transaction(conn, "events", alone=alone)
    values = (f"[{','.join(documents)}]",)
    if isinstance(conn, AsyncConnection):
        return _fetch_async(conn, PUBLICAR_VARIOS, values, "events")
    ids: list[int] = _fetch(conn, PUBLICAR_VARIOS, values, "events")
    return ids


def _document(evento: NuevoEvento[Any]) -> str:
    """Return the event as a JSON object, the payload as pydantic wrote it."""
    fields: dict[str, object] = {"origen": evento.tipo.origen, "tipo": evento.tipo.tipo}
    optional = {
        "clave": evento.clave,
        "prioridad": evento.prioridad,
        "id_externo": evento.id_externo,
        "cabeceras": evento.cabeceras,
    }
    fields |= {name: value for name, value in optional.items() if value is not None}
    return f'{json.dumps(fields)[:-1]}, "payload": {evento.tipo.dump(evento.payload)}}}'


def _check_transaction(conn: Connection[Any] | AsyncConnection[Any], what: object, *, alone: bool) -> None:
    if conn.autocommit and not alone and conn.pgconn.transaction_status == TransactionStatus.IDLE:
        raise NotInTransaction(
            f"{what} was not published: the connection is in autocommit and in no transaction, so the event would"
            " commit apart from its cause. Publish inside `with conn.transaction():`, or say alone=True if it has none"
        )


def _check_catalog(tipo: EventType[Any]) -> None:
    if not tipo.origen:
        raise UnknownEvent(f"{tipo.tipo!r} was not published: no Catalog declares it, so nobody would handle it")


def _fetch(conn: Connection[Any], statement: LiteralString, values: tuple[object, ...], what: object) -> Any:  # noqa: ANN401 - the one column, of whatever type
    try:
        row = conn.execute(statement, values).fetchone()
    except psycopg.Error as error:
        _translate(error, what)
        raise
    return row[0] if row else None


async def _fetch_async(
    conn: AsyncConnection[Any], statement: LiteralString, values: tuple[object, ...], what: object
) -> Any:  # noqa: ANN401 - the one column, of whatever type
    try:
        row = await (await conn.execute(statement, values)).fetchone()
    except psycopg.Error as error:
        _translate(error, what)
        raise
    return row[0] if row else None


def _translate(error: psycopg.Error, what: object) -> None:
    """Raise what the database says of an event in our words; a lost connection or a lock is psycopg's to tell."""
    if error.sqlstate == FOREIGN_RESTORE:
        raise ForeignRestore(f"{error.diag.message_primary}. {error.diag.message_hint}") from error
    if isinstance(error, (psycopg.errors.UntranslatableCharacter, psycopg.errors.InvalidTextRepresentation)):
        raise InvalidPayload(f"{what} was not published: PostgreSQL cannot store its payload: {error}") from error
    if isinstance(error, (psycopg.errors.DataError, psycopg.errors.CheckViolation)):
        raise PublishError(f"{what} was not published: {error}") from error
