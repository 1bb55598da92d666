"""Publishing in the caller's transaction, on whatever connection or session holds it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from cauce.publishing.links import face_of, named
from cauce.publishing.sending import send, send_all
from cauce.publishing.statements import statement_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from cauce.catalog import EventType, NuevoEvento
    from cauce.publishing.shapes import AnyAsyncConnection, SyncConnection

__all__ = ["publicar_evento", "publicar_eventos"]

T = TypeVar("T")


@overload
def publicar_evento(
    conn: SyncConnection,
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
    conn: AnyAsyncConnection,
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
    conn: SyncConnection | AnyAsyncConnection,
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
        conn: the connection or session that the caller's transaction runs on: of psycopg, psycopg2, asyncpg,
            SQLAlchemy, SQLModel or Django. On an async one the call returns a coroutine to await.
        tipo: the event, from a catalog.
        payload: a value of the event's payload type.
        clave: the event's key, at most 500 characters; by default the payload's field that the catalog names.
        prioridad: from 0 (first) to 9 (last); by default the catalog's.
        id_externo: an id that makes the event unique in its origin, at most 500 characters. Publishing it again stores
            nothing and returns the stored event's id.
        cabeceras: headers, any JSON object. The key ``version`` is the payload's: leave it out.
        own_transaction: allow a connection in autocommit and in no transaction: the event is committed by itself.

    Returns:
        The event's id.

    Raises:
        WrongArgument: an argument has the wrong type, or ``prioridad`` is out of range. For an engine, a pool or a
            cursor the message says what to give instead.
        NotInTransaction: the connection is in autocommit and in no transaction, and ``own_transaction`` is false.
        UnknownEvent: no catalog declares the event.
        InvalidPayload: the payload is not of the event's type, or PostgreSQL cannot store it.
        PublishError: ``clave`` or ``id_externo`` is too long or has a NUL character, or the database refused the event.
        CatalogError: pydantic cannot validate the payload's type.
        SchemaError: the tables are missing or old.
        ForeignRestore: the database was restored into a younger cluster.
        ConfigError: the database is behind a pooler in transaction mode, and the connection prepares statements.
        Exception: any other error of the database, such as a lost connection, is the library's own.
    """
    face = face_of(conn, "publicar_evento")
    statement = statement_of(tipo, payload, clave, prioridad, id_externo, cabeceras)
    work = partial(send, statement=statement, what=tipo, own_transaction=own_transaction)
    return cast("int | Coroutine[Any, Any, int]", named(face(conn, work), "publicar_evento"))


@overload
def publicar_eventos(
    conn: SyncConnection, eventos: Iterable[NuevoEvento[Any]], /, *, own_transaction: bool = False
) -> list[int]: ...
@overload
def publicar_eventos(
    conn: AnyAsyncConnection, eventos: Iterable[NuevoEvento[Any]], /, *, own_transaction: bool = False
) -> Coroutine[Any, Any, list[int]]: ...
def publicar_eventos(
    conn: SyncConnection | AnyAsyncConnection,
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
        conn: the connection or session that the caller's transaction runs on, as for ``publicar_evento``.
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
    face = face_of(conn, "publicar_eventos")
    work = partial(send_all, eventos=eventos, own_transaction=own_transaction)
    return cast("list[int] | Coroutine[Any, Any, list[int]]", named(face(conn, work), "publicar_eventos"))
