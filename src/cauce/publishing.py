"""Publishing: ``publicar_evento`` inside the caller's own transaction, whatever the connection, sync or async.

The meaning of publishing lives in the SQL functions of the same names; nothing of it is repeated here.
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
from cauce.database.refusals import explained
from cauce.errors import InvalidPayload, NotInTransaction, PublishError, UnknownEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from cauce.catalog import EventType

T = TypeVar("T")

EVENTS: Final = "the events"
"""What errors call them where there are several."""
LEVELS: Final = range(10)
"""The priorities; the domain ``cauce.nivel`` has the same."""
NULL: Final = r"\N"
"""How COPY's text format writes it."""

# The plain cases bring their lane, as the catalog declares it, so that nothing has to look it up: see
# docs/adr/0017-publishing.md. All others are completed by the table's trigger.
PUBLICAR: LiteralString = (
    "insert into cauce.eventos (origen, tipo, payload, prioridad, carril) values ($1, $2, $3, $4, $5)"
    " returning id, cauce.avisar()"
)
PUBLICAR_CON_TODO: LiteralString = "select cauce.publicar_evento($1, $2, $3::jsonb, $4, $5::smallint, $6, $7::jsonb)"
PUBLICAR_VARIOS: LiteralString = "select cauce.publicar_eventos($1::jsonb)"
# An id that those of the COPY are higher than. Where somebody gave the sequence a cache, sessions take ids in advance,
# and only the session's own next one is.
ANTES_DE_COPIAR: LiteralString = (
    "select case when s.seqcache = 1 then coalesce(pg_sequence_last_value(s.seqrelid), 0) else nextval(s.seqrelid) end,"
    " cauce.avisar() from pg_sequence s where s.seqrelid = 'cauce.eventos_id_seq'::regclass"
)
COPIAR: LiteralString = "copy cauce.eventos (origen, tipo, payload, clave, prioridad, carril, cabeceras) from stdin"
# Null where sessions take ids in advance.
ULTIMO_ID: LiteralString = (
    "select case when s.seqcache = 1 then pg_sequence_last_value(s.seqrelid) end"
    " from pg_sequence s where s.seqrelid = 'cauce.eventos_id_seq'::regclass"
)
COPIADOS: LiteralString = "select cauce.copiados($1)"
COPY_LINES: Final = 40
"""Events that travel in one piece of a COPY, while the next are made."""
STATEMENT_EVENTS: Final = 1000
"""Events of one statement, where it cannot be a COPY."""


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
    """Publish one event in the caller's transaction: it is delivered if that commits, and never seen if it does not.

    Args:
        conn: the caller's psycopg connection. An async one must be awaited.
        tipo: the event, from a catalog.
        payload: of the event's type.
        clave: the event's key; by default the payload's field that the catalog names.
        prioridad: 0 (first) to 9; by default the catalog's.
        id_externo: an id that makes the event unique in its origin: publishing it again returns the stored id.
        cabeceras: headers, any JSON object.
        own_transaction: publish in a transaction of the event's own, on a connection in autocommit: no business
            operation goes with it.

    Returns:
        The event's id.

    Raises:
        WrongArgument: ``conn`` is no psycopg connection, ``tipo`` no event of a catalog, or a column of the wrong type.
        NotInTransaction: the connection is in autocommit and in no transaction, and ``own_transaction`` is not given.
        UnknownEvent: the event is in no catalog.
        InvalidPayload: the payload is not of the event's type, or PostgreSQL cannot store it.
        SchemaError: the tables are missing or old.
        ForeignRestore: the database was restored into a younger cluster.
        ConfigError: a pooler stands before the database, and the connection prepares statements.
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
    """Publish many events in the caller's transaction, by COPY, while they are still being made.

    They may be a million: no more than forty are held at a time, beside the ids. Events with an ``id_externo``
    cannot be copied, nor can any in pipeline mode; they travel a thousand a statement, so keep them together.

    Returns:
        Their ids, in the order given.

    Raises:
        WrongArgument: ``conn`` is no psycopg connection, or one of ``eventos`` is no ``NuevoEvento``.
        PublishError: as ``publicar_evento``. The refused event may come after others that were sent: the transaction is
            then aborted, and nothing of it is stored.
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
    """Cut the events where the way they travel changes; True: by COPY."""

    def by_copy(evento: NuevoEvento[Any]) -> bool:
        try:
            return evento.id_externo is None and not conn.pgconn.pipeline_status
        except AttributeError:
            hint = "give a list, also of one" if isinstance(eventos, NuevoEvento) else ""
            raise wrong("one of the events of publicar_eventos", evento, "a NuevoEvento", PUBLISHING, hint) from None

    try:
        return groupby(eventos, by_copy)
    except TypeError:
        wanted = "NuevoEvento objects, in a list or a generator"
        raise wrong("the second argument of publicar_eventos", eventos, wanted, PUBLISHING) from None


def _documents(eventos: Iterator[NuevoEvento[Any]]) -> Iterator[str]:
    """Write the arguments of ``cauce.publicar_eventos``."""
    while chunk := list(islice(eventos, STATEMENT_EVENTS)):
        yield f"[{','.join(_written(_document, chunk))}]"


def _pieces(eventos: Iterator[NuevoEvento[Any]]) -> Iterator[tuple[str, int]]:
    """Write the pieces of a COPY, and say how many events are in each."""
    while chunk := list(islice(eventos, COPY_LINES)):
        yield "".join(_written(_line, chunk)), len(chunk)


def _written(write: Callable[[NuevoEvento[Any], str], str], eventos: Sequence[NuevoEvento[Any]]) -> list[str]:
    """Write each event, given its payload; what cannot be written for its columns' types is looked for only then."""
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
    """Write the payloads of events, in one go those of one type that stand together."""
    payloads: list[str] = []
    for _, group in groupby(eventos, lambda evento: id(evento.tipo)):
        run = list(group)
        _check_catalog(run[0].tipo)
        payloads += run[0].tipo.dump_all([evento.payload for evento in run])
    return payloads


def _levels(tipo: EventType[Any], prioridad: int | None, clave: str | None) -> tuple[int | None, int | None]:
    """Return priority and lane; no lane if the event's key stands in its payload, where SQL finds it."""
    nivel = tipo.prioridad if prioridad is None else prioridad
    if prioridad is not None and prioridad not in LEVELS:
        given = cast("object", prioridad)
        hint = f"it is {given}" if isinstance(given, int) else ""
        raise wrong("prioridad", given, "a whole number from 0 (first) to 9 (last)", PUBLISHING, hint)
    return nivel, nivel if tipo.clave is None or clave is not None else None


def _document(evento: NuevoEvento[Any], payload: str) -> str:
    """Return the event as a JSON object, the payload as pydantic wrote it."""
    tipo = evento.tipo
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
    """Return the ids of what was copied, if as many were taken meanwhile: then nobody else took one."""
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
            " commit apart from its cause. Publish inside `with conn.transaction():`; an event without a cause in this"
            " database is published with own_transaction=True"
        )


def _check_catalog(tipo: EventType[Any]) -> None:
    if not tipo.origen:
        raise UnknownEvent(f"{tipo.tipo!r} was not published: no Catalog declares it, so nobody would handle it")


# A cursor learns how to write parameters and read results, which takes a third of the client's time of a publish. So
# one is kept beside each connection, under a name of ours in its namespace, and taken away by whoever uses it: of two
# tasks or threads that publish on one connection the second makes another.
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


# What is said of a coroutine that was never awaited is said of the function that its caller knows.
_fetch_async.__qualname__ = "publicar_evento"
_publish_all_async.__qualname__ = "publicar_eventos"


def _not_published(what: object) -> str:
    return f"{what} {'were' if what == EVENTS else 'was'} not published"


def _translate(error: psycopg.Error, what: object) -> None:
    """Raise what the database says of an event in our words; a lost connection or a lock is psycopg's to tell."""
    if (better := explained(error)) is not None:
        raise better from error
    if isinstance(error, (psycopg.errors.UntranslatableCharacter, psycopg.errors.InvalidTextRepresentation)):
        raise InvalidPayload(f"{_not_published(what)}: PostgreSQL cannot store its payload: {error}") from error
    if isinstance(error, (psycopg.errors.DataError, psycopg.errors.CheckViolation)):
        raise PublishError(f"{_not_published(what)}: {error.diag.message_primary or error}") from error
