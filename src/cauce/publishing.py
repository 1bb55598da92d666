"""Publishing: ``publicar_evento`` inside the caller's own transaction, whatever the connection, sync or async.

The meaning of publishing lives in the SQL functions of the same names; nothing of it is repeated here.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar, overload

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from cauce.errors import FOREIGN_RESTORE, ForeignRestore, InvalidPayload, NotInTransaction, PublishError, UnknownEvent

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from cauce.catalog import EventType
    from cauce.evento import NuevoEvento

T = TypeVar("T")

# The plain cases bring their lane, as the catalog declares it, so that nothing has to look it up: see
# docs/adr/0017-publishing.md. All others are completed by the table's trigger.
PUBLICAR: LiteralString = (
    "insert into cauce.eventos (origen, tipo, payload, prioridad, carril) values (%s, %s, %s, %s, %s)"
    " returning id, cauce.avisar()"
)
PUBLICAR_CON_TODO: LiteralString = "select cauce.publicar_evento(%s, %s, %s::jsonb, %s, %s::smallint, %s, %s::jsonb)"
PUBLICAR_VARIOS: LiteralString = "select cauce.publicar_eventos(%s::jsonb)"
RESERVAR_IDS: LiteralString = (
    "select array(select nextval('cauce.eventos_id_seq') from generate_series(1, %s)), cauce.avisar()"
)
COPIAR: LiteralString = "copy cauce.eventos (id, origen, tipo, payload, clave, prioridad, carril, cabeceras) from stdin"


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
    nivel, carril = _levels(tipo, prioridad, clave)
    values: tuple[object, ...]
    if clave is None and id_externo is None and cabeceras is None:
        statement, values = PUBLICAR, (tipo.origen, tipo.tipo, tipo.dump(payload), nivel, carril)
    else:
        headers = None if cabeceras is None else json.dumps(cabeceras)
        statement = PUBLICAR_CON_TODO
        values = (tipo.origen, tipo.tipo, tipo.dump(payload), clave, nivel, id_externo, headers)
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
    """Publish many events in the caller's transaction, by COPY; a thousand at a time is a good size.

    Events with an ``id_externo``, and those of a connection in pipeline mode, which knows no COPY, travel as one
    statement instead.

    Returns:
        Their ids, in the order given.

    Raises:
        As ``publicar_evento``; nothing is stored if one of them is refused.
    """
    eventos = list(eventos)
    for evento in eventos:
        _check_catalog(evento.tipo)
    _check_transaction(conn, "events", alone=alone)
    if conn.pgconn.pipeline_status or any(evento.id_externo is not None for evento in eventos):
        values = (f"[{','.join(map(_document, eventos))}]",)
        if isinstance(conn, AsyncConnection):
            return _fetch_async(conn, PUBLICAR_VARIOS, values, "events")
        ids: list[int] = _fetch(conn, PUBLICAR_VARIOS, values, "events")
        return ids
    lines = [_line(evento) for evento in eventos]
    return _copy_async(conn, lines) if isinstance(conn, AsyncConnection) else _copy(conn, lines)


def _levels(tipo: EventType[Any], prioridad: int | None, clave: str | None) -> tuple[int | None, int | None]:
    """Return priority and lane; no lane if the event's key stands in its payload, where SQL finds it."""
    nivel = tipo.prioridad if prioridad is None else prioridad
    return nivel, nivel if tipo.clave is None or clave is not None else None


def _document(evento: NuevoEvento[Any]) -> str:
    """Return the event as a JSON object, the payload as pydantic wrote it."""
    tipo = evento.tipo
    fields: dict[str, object] = {"origen": tipo.origen, "tipo": tipo.tipo}
    optional = {
        "clave": evento.clave,
        "prioridad": _levels(tipo, evento.prioridad, evento.clave)[0],
        "id_externo": evento.id_externo,
        "cabeceras": evento.cabeceras,
    }
    fields |= {name: value for name, value in optional.items() if value is not None}
    return f'{json.dumps(fields)[:-1]}, "payload": {tipo.dump(evento.payload)}}}'


def _line(evento: NuevoEvento[Any]) -> str:
    """Return the event as a line of COPY's text format, without its id."""
    tipo = evento.tipo
    nivel, carril = _levels(tipo, evento.prioridad, evento.clave)
    headers = None if evento.cabeceras is None else json.dumps(evento.cabeceras)
    fields = (tipo.origen, tipo.tipo, tipo.dump(evento.payload), evento.clave, nivel, carril, headers)
    return "\t".join([r"\N" if field is None else _escaped(str(field)) for field in fields])


def _escaped(text: str) -> str:
    """Write a value as COPY's text format wants it (PostgreSQL, COPY, "Text Format")."""
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def _copy(conn: Connection[Any], lines: list[str]) -> list[int]:
    try:
        with nullcontext() if _in_transaction(conn) else conn.transaction():
            cursor = Cursor(conn, row_factory=tuple_row)
            ids: list[int] = cursor.execute(RESERVAR_IDS, (len(lines),)).fetchall()[0][0]
            with cursor.copy(COPIAR) as copy:
                copy.write(_text(ids, lines))
    except psycopg.Error as error:
        _translate(error, "events")
        raise
    return ids


async def _copy_async(conn: AsyncConnection[Any], lines: list[str]) -> list[int]:
    try:
        async with nullcontext() if _in_transaction(conn) else conn.transaction():
            cursor = AsyncCursor(conn, row_factory=tuple_row)
            ids: list[int] = (await (await cursor.execute(RESERVAR_IDS, (len(lines),))).fetchall())[0][0]
            async with cursor.copy(COPIAR) as copy:
                await copy.write(_text(ids, lines))
    except psycopg.Error as error:
        _translate(error, "events")
        raise
    return ids


def _text(ids: list[int], lines: list[str]) -> str:
    return "".join([f"{number}\t{line}\n" for number, line in zip(ids, lines, strict=True)])


def _in_transaction(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Whether the caller's transaction is open, or psycopg opens it with the next statement."""
    return not conn.autocommit or conn.pgconn.transaction_status != TransactionStatus.IDLE


def _check_transaction(conn: Connection[Any] | AsyncConnection[Any], what: object, *, alone: bool) -> None:
    if not alone and not _in_transaction(conn):
        raise NotInTransaction(
            f"{what} was not published: the connection is in autocommit and in no transaction, so the event would"
            " commit apart from its cause. Publish inside `with conn.transaction():`, or say alone=True if it has none"
        )


def _check_catalog(tipo: EventType[Any]) -> None:
    if not tipo.origen:
        raise UnknownEvent(f"{tipo.tipo!r} was not published: no Catalog declares it, so nobody would handle it")


# A cursor learns how to write parameters and read results, which takes a third of the client's time of a publish. So
# one is kept beside each connection, under a name of ours in its namespace, and taken away by whoever uses it: of two
# tasks or threads that publish on one connection the second makes another.
_SPARE: Final = "_cauce_cursor"


def _fetch(conn: Connection[Any], statement: LiteralString, values: tuple[object, ...], what: object) -> Any:  # noqa: ANN401 - the first column, of whatever type
    cursor = vars(conn).pop(_SPARE, None) or Cursor(conn, row_factory=tuple_row)
    try:
        value = cursor.execute(statement, values).fetchall()[0][0]
    except psycopg.Error as error:
        _translate(error, what)
        raise
    vars(conn)[_SPARE] = cursor
    return value


async def _fetch_async(
    conn: AsyncConnection[Any], statement: LiteralString, values: tuple[object, ...], what: object
) -> Any:  # noqa: ANN401 - the first column, of whatever type
    cursor = vars(conn).pop(_SPARE, None) or AsyncCursor(conn, row_factory=tuple_row)
    try:
        await cursor.execute(statement, values)
        value = (await cursor.fetchall())[0][0]
    except psycopg.Error as error:
        _translate(error, what)
        raise
    vars(conn)[_SPARE] = cursor
    return value


def _translate(error: psycopg.Error, what: object) -> None:
    """Raise what the database says of an event in our words; a lost connection or a lock is psycopg's to tell."""
    if error.sqlstate == FOREIGN_RESTORE:
        raise ForeignRestore(f"{error.diag.message_primary}. {error.diag.message_hint}") from error
    if isinstance(error, (psycopg.errors.UntranslatableCharacter, psycopg.errors.InvalidTextRepresentation)):
        raise InvalidPayload(f"{what} was not published: PostgreSQL cannot store its payload: {error}") from error
    if isinstance(error, (psycopg.errors.DataError, psycopg.errors.CheckViolation)):
        raise PublishError(f"{what} was not published: {error}") from error
