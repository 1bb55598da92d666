"""Publishing in the caller's transaction, on a sync or async psycopg connection.

The SQL functions of the same names define what publishing does. A plain event skips them: it is inserted directly, with
the lane that the catalog declares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar, cast, overload

import psycopg
from psycopg import AsyncConnection, AsyncCursor, AsyncRawCursor, Connection, Cursor, RawCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from cauce.arguments import PUBLISHING, expect_connection, expect_names, wrong
from cauce.catalog import NuevoEvento, expect_event
from cauce.database.refusals import MAX_TEXT, unpublished
from cauce.errors import NotInTransaction, PublishError, UnknownEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from cauce.catalog import EventType

T = TypeVar("T")

EVENTS: Final = "the events"
"""What errors call several events."""
LEVELS: Final = range(10)
"""The priorities; the domain ``cauce.nivel`` has the same limits."""
NULL: Final = r"\N"
"""NULL in COPY's text format."""

# A plain event is inserted with its lane, as the catalog declares it, so that the database need not look it up: see
# docs/adr/0017-publishing.md. The table's trigger completes all others.
PUBLICAR: LiteralString = (
    "insert into cauce.eventos (origen, tipo, payload, prioridad, carril) values ($1, $2, $3, $4, $5)"
    " returning id, cauce.avisar()"
)
PUBLICAR_CON_TODO: LiteralString = "select cauce.publicar_evento($1, $2, $3::jsonb, $4, $5::smallint, $6, $7::jsonb)"
PUBLICAR_VARIOS: LiteralString = "select cauce.publicar_eventos($1::jsonb)"
# An id that is lower than all ids of the COPY. If the sequence has a cache, sessions reserve ids in advance, and only
# the session's own next id is certain to be lower.
ANTES_DE_COPIAR: LiteralString = (
    "select case when s.seqcache = 1 then coalesce(pg_sequence_last_value(s.seqrelid), 0) else nextval(s.seqrelid) end,"
    " cauce.avisar() from pg_sequence s where s.seqrelid = 'cauce.eventos_id_seq'::regclass"
)
COPIAR: LiteralString = "copy cauce.eventos (origen, tipo, payload, clave, prioridad, carril, cabeceras) from stdin"
# Null if the sequence has a cache: sessions then reserve ids in advance.
ULTIMO_ID: LiteralString = (
    "select case when s.seqcache = 1 then pg_sequence_last_value(s.seqrelid) end"
    " from pg_sequence s where s.seqrelid = 'cauce.eventos_id_seq'::regclass"
)
COPIADOS: LiteralString = "select cauce.copiados($1)"
COPY_LINES: Final = 40
"""Events in one piece of a COPY, which is sent while the next piece is made."""
STATEMENT_EVENTS: Final = 1000
"""Events in one statement, if they cannot be copied."""


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
    own_transaction: bool = False,
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
    own_transaction: bool = False,
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
    own_transaction: bool = False,
) -> int | Coroutine[Any, Any, int]:
    """Publish one event in the caller's transaction. It is delivered if the transaction commits, and only then.

    Args:
        conn: the caller's psycopg connection. On an async connection the call returns a coroutine to await.
        tipo: the event, from a catalog.
        payload: a value of the event's payload type.
        clave: the event's key, at most 500 characters; by default the payload's field that the catalog names.
        prioridad: from 0 (first) to 9 (last); by default the catalog's.
        id_externo: an id that makes the event unique in its origin, at most 500 characters. Publishing it again stores
            nothing and returns the stored event's id.
        cabeceras: headers, any JSON object.
        own_transaction: allow a connection in autocommit and in no transaction: the event is committed by itself.

    Returns:
        The event's id.

    Raises:
        WrongArgument: an argument has the wrong type, or ``prioridad`` is out of range.
        NotInTransaction: the connection is in autocommit and in no transaction, and ``own_transaction`` is false.
        UnknownEvent: no catalog declares the event.
        InvalidPayload: the payload is not of the event's type, or PostgreSQL cannot store it.
        PublishError: ``clave`` or ``id_externo`` is too long, or the database refused the event.
        CatalogError: pydantic cannot validate the payload's type.
        SchemaError: the tables are missing or old.
        ForeignRestore: the database was restored into a younger cluster.
        ConfigError: the database is behind a pooler in transaction mode, and the connection prepares statements.
        psycopg.Error: any other error of the database, such as a lost connection.
    """
    expect_connection(conn, "publicar_evento")
    expect_event(tipo, "publicar_evento")
    _check_transaction(conn, tipo, own_transaction=own_transaction)
    _check_catalog(tipo)
    nivel, carril = _levels(tipo, prioridad, clave)
    values: tuple[object, ...]
    if clave is None and id_externo is None and cabeceras is None:
        statement, values = PUBLICAR, (tipo.origen, tipo.tipo, tipo.dump(payload), nivel, carril)
    else:
        expect_names(clave=clave, id_externo=id_externo)
        _check_length(tipo, clave=clave, id_externo=id_externo)
        headers = None if cabeceras is None else _headers(cabeceras)
        statement = PUBLICAR_CON_TODO
        values = (tipo.origen, tipo.tipo, tipo.dump(payload), clave, nivel, id_externo, headers)
    if isinstance(conn, AsyncConnection):
        return _fetch_async(conn, statement, values, tipo)
    return int(_fetch(conn, statement, values, tipo))


@overload
def publicar_eventos(
    conn: Connection[Any], eventos: Iterable[NuevoEvento[Any]], /, *, own_transaction: bool = False
) -> list[int]: ...
@overload
def publicar_eventos(
    conn: AsyncConnection[Any], eventos: Iterable[NuevoEvento[Any]], /, *, own_transaction: bool = False
) -> Coroutine[Any, Any, list[int]]: ...
def publicar_eventos(
    conn: Connection[Any] | AsyncConnection[Any],
    eventos: Iterable[NuevoEvento[Any]],
    /,
    *,
    own_transaction: bool = False,
) -> list[int] | Coroutine[Any, Any, list[int]]:
    """Publish many events in the caller's transaction, by COPY.

    There may be millions of events: ``eventos`` may be a generator, and only forty events and all ids are in memory at
    a time. Events with an ``id_externo`` cannot be copied, and no event can be copied in pipeline mode. Such events are
    published by statements of a thousand events, so put them next to each other.

    Args:
        conn: the caller's psycopg connection. On an async connection the call returns a coroutine to await.
        eventos: the events, in a list or a generator.
        own_transaction: allow a connection in autocommit and in no transaction: the events are committed by themselves,
            in one transaction.

    Returns:
        Their ids, in the order given.

    Raises:
        WrongArgument: an argument has the wrong type, or one of ``eventos`` is not a ``NuevoEvento``.
        PublishError: an event was refused. Other events may have been sent before: the transaction is then aborted, and
            none of them is stored. The other errors are those of ``publicar_evento``.
    """
    expect_connection(conn, "publicar_eventos")
    _check_transaction(conn, EVENTS, own_transaction=own_transaction)
    if isinstance(conn, AsyncConnection):
        return _publish_all_async(conn, eventos)
    return _publish_all(conn, eventos)


def _publish_all(conn: Connection[Any], eventos: Iterable[NuevoEvento[Any]]) -> list[int]:
    ids: list[int] = []
    with nullcontext() if _in_transaction(conn) else conn.transaction():
        for by_copy, run in _runs(conn, eventos):
            if by_copy:
                ids += _copy(conn, run)
            else:
                for document in _documents(run):
                    ids += _fetch(conn, PUBLICAR_VARIOS, (document,), EVENTS)
    return ids


async def _publish_all_async(conn: AsyncConnection[Any], eventos: Iterable[NuevoEvento[Any]]) -> list[int]:
    ids: list[int] = []
    async with nullcontext() if _in_transaction(conn) else conn.transaction():
        for by_copy, run in _runs(conn, eventos):
            if by_copy:
                ids += await _copy_async(conn, run)
            else:
                for document in _documents(run):
                    ids += await _fetch_async(conn, PUBLICAR_VARIOS, (document,), EVENTS)
    return ids


def _runs(
    conn: Connection[Any] | AsyncConnection[Any], eventos: Iterable[NuevoEvento[Any]]
) -> Iterator[tuple[bool, Iterator[NuevoEvento[Any]]]]:
    """Group neighbouring events that are published the same way; True means by COPY."""

    def by_copy(evento: NuevoEvento[Any]) -> bool:
        try:
            return evento.id_externo is None and not conn.pgconn.pipeline_status
        except AttributeError:
            hint = "put a single event in a list, too" if isinstance(eventos, NuevoEvento) else ""
            raise wrong("one of the events of publicar_eventos", evento, "a NuevoEvento", PUBLISHING, hint) from None

    try:
        return groupby(eventos, by_copy)
    except TypeError:
        wanted = "NuevoEvento objects, in a list or a generator"
        raise wrong("the second argument of publicar_eventos", eventos, wanted, PUBLISHING) from None


def _documents(eventos: Iterator[NuevoEvento[Any]]) -> Iterator[str]:
    """Write the JSON arguments of ``cauce.publicar_eventos``."""
    while chunk := list(islice(eventos, STATEMENT_EVENTS)):
        yield f"[{','.join(_written(_document, chunk))}]"


def _pieces(eventos: Iterator[NuevoEvento[Any]]) -> Iterator[tuple[str, int]]:
    """Write the pieces of a COPY, each with its number of events."""
    while chunk := list(islice(eventos, COPY_LINES)):
        yield "".join(_written(_line, chunk)), len(chunk)


def _written(write: Callable[[NuevoEvento[Any], str], str], eventos: Sequence[NuevoEvento[Any]]) -> list[str]:
    """Write each event with its payload. The columns' types are checked only after writing has failed."""
    try:
        return [*map(write, eventos, _payloads(eventos))]
    except (AttributeError, TypeError, ValueError):
        for evento in eventos:
            expect_event(evento.tipo, "publicar_eventos")
            expect_names(clave=evento.clave, id_externo=evento.id_externo)
            if evento.cabeceras is not None:
                _headers(evento.cabeceras)
        raise


def _payloads(eventos: Sequence[NuevoEvento[Any]]) -> list[str]:
    """Write the payloads of events, in one call for neighbouring events of one type."""
    payloads: list[str] = []
    for _, group in groupby(eventos, lambda evento: id(evento.tipo)):
        run = list(group)
        _check_catalog(run[0].tipo)
        payloads += run[0].tipo.dump_all([evento.payload for evento in run])
    return payloads


def _levels(tipo: EventType[Any], prioridad: int | None, clave: str | None) -> tuple[int | None, int | None]:
    """Return priority and lane; no lane if SQL must take the event's key from the payload."""
    nivel = tipo.prioridad if prioridad is None else prioridad
    if prioridad is not None and prioridad not in LEVELS:
        given = cast("object", prioridad)
        hint = f"it is {given}" if isinstance(given, int) else ""
        raise wrong("prioridad", given, "a whole number from 0 (first) to 9 (last)", PUBLISHING, hint)
    return nivel, nivel if tipo.clave is None or clave is not None else None


def _document(evento: NuevoEvento[Any], payload: str) -> str:
    """Return the event as a JSON object."""
    tipo = evento.tipo
    _check_length(tipo, clave=evento.clave, id_externo=evento.id_externo)
    fields: dict[str, object] = {"origen": tipo.origen, "tipo": tipo.tipo}
    optional = {
        "clave": evento.clave,
        "prioridad": _levels(tipo, evento.prioridad, evento.clave)[0],
        "id_externo": evento.id_externo,
    }
    fields |= {name: value for name, value in optional.items() if value is not None}
    headers = "" if evento.cabeceras is None else f', "cabeceras": {_headers(evento.cabeceras)}'
    return f'{json.dumps(fields)[:-1]}{headers}, "payload": {payload}}}'


def _line(evento: NuevoEvento[Any], payload: str) -> str:
    """Return the event as a line of COPY's text format (PostgreSQL, COPY, "Text Format")."""
    tipo = evento.tipo
    nivel, carril = _levels(tipo, evento.prioridad, evento.clave)
    if evento.clave is not None:
        _check_length(tipo, clave=evento.clave)
    text = payload.replace("\\", r"\\")  # JSON has no raw tab or line end
    clave = NULL if evento.clave is None else _escaped(evento.clave)
    headers = NULL if evento.cabeceras is None else _escaped(_headers(evento.cabeceras))
    lane = NULL if carril is None else carril
    return f"{_head(tipo.origen, tipo.tipo)}{text}\t{clave}\t{nivel}\t{lane}\t{headers}\n"


@cache
def _head(origen: str, tipo: str) -> str:
    return f"{_escaped(origen)}\t{_escaped(tipo)}\t"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def _copy(conn: Connection[Any], eventos: Iterator[NuevoEvento[Any]]) -> list[int]:
    before: int = _fetch(conn, ANTES_DE_COPIAR, (), EVENTS)
    sent = 0
    try:
        with Cursor(conn).copy(COPIAR) as copy:
            for piece, count in _pieces(eventos):
                copy.write(piece)
                sent += count
    except psycopg.Error as error:
        _translate(error, EVENTS)
        raise
    last: int | None = _fetch(conn, ULTIMO_ID, (), EVENTS)
    ids: list[int] = _alone(before, sent, last) or _fetch(conn, COPIADOS, (before,), EVENTS)
    return ids


async def _copy_async(conn: AsyncConnection[Any], eventos: Iterator[NuevoEvento[Any]]) -> list[int]:
    before: int = await _fetch_async(conn, ANTES_DE_COPIAR, (), EVENTS)
    sent = 0
    try:
        async with AsyncCursor(conn).copy(COPIAR) as copy:
            for piece, count in _pieces(eventos):
                await copy.write(piece)
                sent += count
    except psycopg.Error as error:
        _translate(error, EVENTS)
        raise
    last: int | None = await _fetch_async(conn, ULTIMO_ID, (), EVENTS)
    ids: list[int] = _alone(before, sent, last) or await _fetch_async(conn, COPIADOS, (before,), EVENTS)
    return ids


def _alone(before: int, sent: int, last: int | None) -> list[int] | None:
    """Return the ids of the copied events, if exactly as many were taken during the COPY: no other session took one."""
    return list(range(before + 1, last + 1)) if last is not None and last - before == sent else None


def _in_transaction(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Whether the caller's transaction is open, or psycopg opens it with the next statement."""
    return not conn.autocommit or conn.pgconn.transaction_status != TransactionStatus.IDLE


def _headers(cabeceras: Mapping[str, Any]) -> str:
    try:
        return json.dumps(cabeceras if isinstance(cabeceras, dict) else dict(cabeceras), allow_nan=False)
    except RecursionError as error:
        wanted, hint = "a dict that JSON can hold", "it is nested too deeply"
        raise wrong("cabeceras", cabeceras, wanted, PUBLISHING, hint) from error
    except (TypeError, ValueError) as error:
        hint = str(error) if isinstance(cast("object", cabeceras), Mapping) else ""
        raise wrong("cabeceras", cabeceras, "a dict that JSON can hold", PUBLISHING, hint) from error


def _check_transaction(conn: Connection[Any] | AsyncConnection[Any], what: object, *, own_transaction: bool) -> None:
    if not own_transaction and not _in_transaction(conn):
        raise NotInTransaction(
            f"{_not_published(what)}: the connection is in autocommit and in no transaction, so the event would"
            " commit apart from its cause. Publish inside `with conn.transaction():`; pass own_transaction=True if no"
            " transaction causes the event"
        )


def _check_length(tipo: EventType[Any], **columns: str | None) -> None:
    for name, text in columns.items():
        if text is not None and len(text) > MAX_TEXT:
            raise PublishError(
                f"{_not_published(tipo)}: {name} is too long: {len(text)} characters, and {MAX_TEXT} are allowed"
            )


def _check_catalog(tipo: EventType[Any]) -> None:
    if not tipo.origen:
        raise UnknownEvent(f"{tipo.tipo!r} was not published: no Catalog declares it, so no handler could handle it")


# A new cursor first looks up how to write parameters and read results, which takes a third of the client's time of a
# publish. So one cursor is kept for each connection, as an attribute of it, and is taken away while it is in use: the
# second of two tasks or threads that publish on one connection makes another.
_SPARE: Final = "_cauce_cursor"


def _fetch(conn: Connection[Any], statement: LiteralString, values: tuple[object, ...], what: object) -> Any:  # noqa: ANN401 - the first column, of whatever type
    cursor = vars(conn).pop(_SPARE, None) or RawCursor(conn, row_factory=tuple_row)
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
    cursor = vars(conn).pop(_SPARE, None) or AsyncRawCursor(conn, row_factory=tuple_row)
    try:
        await cursor.execute(statement, values)
        value = (await cursor.fetchall())[0][0]
    except psycopg.Error as error:
        _translate(error, what)
        raise
    vars(conn)[_SPARE] = cursor
    return value


# Python's warning about a coroutine that was never awaited should name the function that the caller called.
_fetch_async.__qualname__ = "publicar_evento"
_publish_all_async.__qualname__ = "publicar_eventos"


def _not_published(what: object) -> str:
    return f"{what} {'were' if what == EVENTS else 'was'} not published"


def _translate(error: psycopg.Error, what: object) -> None:
    """Raise Cauce's error about a refused event; for other errors, such as a lost connection, return."""
    if (better := unpublished(error, _not_published(what))) is not None:
        raise better from error
