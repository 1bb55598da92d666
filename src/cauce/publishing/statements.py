"""What an event becomes on its way to PostgreSQL: a statement with its values, a line of a COPY, or a JSON document.

The SQL functions of the same names define what publishing does. A plain event skips them: it is inserted directly, with
the lane that the catalog declares. Parameters are ``$1``, ``$2`` and so on; JSON is given as text, and its parameters
are cast to ``jsonb``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeAlias, TypeVar, cast

from cauce.arguments import CHANGING, PUBLISHING, expect_names, wrong
from cauce.catalog import NuevoEvento, expect_event
from cauce.causing import current
from cauce.database.refusals import MAX_TEXT
from cauce.errors import PublishError, UnknownEvent, WrongArgument
from cauce.payloads import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cauce.catalog import EventType

T = TypeVar("T")

Statement: TypeAlias = tuple[LiteralString, tuple[object, ...]]
"""The text of a statement, and the values of its parameters."""

EVENTS: Final = "the events"
"""What errors call several events."""
LEVELS: Final = range(10)
"""The priorities; the domain ``cauce.nivel`` has the same limits."""
NULL: Final = r"\N"
"""NULL in COPY's text format."""

# A plain event is inserted with its lane, as the catalog declares it, so that the database need not look it up: see
# docs/adr/0017-publishing.md. The table's trigger completes all others.
PUBLICAR: LiteralString = (
    "insert into cauce.eventos (origen, tipo, payload, prioridad, carril) values ($1, $2, $3::jsonb, $4, $5)"
    " returning id, cauce.avisar()"
)
PUBLICAR_CON_CABECERAS: LiteralString = (
    "insert into cauce.eventos (origen, tipo, payload, prioridad, carril, cabeceras)"
    " values ($1, $2, $3::jsonb, $4, $5, $6::jsonb) returning id, cauce.avisar()"
)
PUBLICAR_CON_TODO: LiteralString = (
    "select cauce.publicar_evento($1, $2, $3::jsonb, $4, $5::smallint, $6, $7::jsonb, $8::bigint, $9::bigint)"
)
PUBLICAR_VARIOS: LiteralString = "select cauce.publicar_eventos($1::jsonb, $2::bigint, $3::bigint)"
# An id that is lower than all ids of the COPY. If the sequence has a cache, sessions reserve ids in advance, and only
# the session's own next id is certain to be lower.
ANTES_DE_COPIAR: LiteralString = (
    "select case when s.seqcache = 1 then coalesce(pg_sequence_last_value(s.seqrelid), 0) else nextval(s.seqrelid) end,"
    " cauce.avisar() from pg_sequence s where s.seqrelid = 'cauce.eventos_id_seq'::regclass"
)
COLUMNS: Final = ("origen", "tipo", "payload", "clave", "prioridad", "carril", "cabeceras", "causa", "correlacion")
COPIAR: LiteralString = f"copy cauce.eventos ({', '.join(COLUMNS)}) from stdin"
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


@cache
def pyformat(statement: str) -> str:
    """Write parameters as ``%s``; each stands in a statement once, and in order."""
    return re.sub(r"\$\d", "%s", statement)


@cache
def as_text(statement: str) -> str:
    """Give JSON as text to asyncpg: the application may have set a codec that writes our text as a JSON string."""
    return statement.replace("::jsonb", "::text::jsonb")


def statement_of(  # noqa: PLR0913, PLR0917 - the event's columns, in the order in which publicar_evento names them
    tipo: EventType[T],
    payload: T,
    clave: str | None,
    prioridad: int | None,
    id_externo: str | None,
    cabeceras: Mapping[str, Any] | None,
) -> Statement:
    """Return the statement that publishes one event; the arguments and errors are those of ``publicar_evento``."""
    expect_event(tipo, "publicar_evento")
    _check_catalog(tipo)
    nivel, carril = _levels(tipo, prioridad, clave)
    headers = _headers(tipo, cabeceras)
    cause = current()
    if clave is None and id_externo is None and cause.causa is None:
        plain = (tipo.origen, tipo.tipo, tipo.dump(payload), nivel, carril)
        return (PUBLICAR, plain) if headers is None else (PUBLICAR_CON_CABECERAS, (*plain, headers))
    expect_names(clave=clave, id_externo=id_externo)
    _check_texts(tipo, clave=clave, id_externo=id_externo)
    return PUBLICAR_CON_TODO, (tipo.origen, tipo.tipo, tipo.dump(payload), clave, nivel, id_externo, headers, *cause)


def runs(
    eventos: Iterable[NuevoEvento[Any]], copies: Callable[[], bool]
) -> Iterator[tuple[bool, Iterator[NuevoEvento[Any]]]]:
    """Group neighbouring events that are published the same way; True means by COPY.

    ``copies`` tells whether the connection can run a COPY now.
    """
    possible = copies()

    def by_copy(evento: NuevoEvento[Any]) -> bool:
        try:
            return evento.id_externo is None and possible
        except AttributeError:
            hint = "put a single event in a list, too" if isinstance(eventos, NuevoEvento) else ""
            raise wrong("one of the events of publicar_eventos", evento, "a NuevoEvento", PUBLISHING, hint) from None

    try:
        return groupby(eventos, by_copy)
    except TypeError:
        wanted = "NuevoEvento objects, in a list or a generator"
        raise wrong("the second argument of publicar_eventos", eventos, wanted, PUBLISHING) from None


def documents(eventos: Iterator[NuevoEvento[Any]]) -> Iterator[str]:
    """Write the JSON arguments of ``cauce.publicar_eventos``."""
    while chunk := list(islice(eventos, STATEMENT_EVENTS)):
        yield f"[{','.join(_written(_document, chunk))}]"


class Pieces:
    """The pieces of a COPY, made one by one as they are sent.

    Args:
        eventos: the events to copy.
    """

    def __init__(self, eventos: Iterator[NuevoEvento[Any]]) -> None:
        self._eventos = eventos
        self.made = 0
        """How many events are in the pieces made so far."""

    def __iter__(self) -> Iterator[str]:
        """Write the next events, one line each."""
        end = f"{_cause(*current())}\n"
        while chunk := list(islice(self._eventos, COPY_LINES)):
            yield end.join(_written(_line, chunk)) + end
            self.made += len(chunk)


def _written(write: Callable[[NuevoEvento[Any], str], str], eventos: Sequence[NuevoEvento[Any]]) -> list[str]:
    """Write each event with its payload. The columns' types are checked only after writing has failed."""
    try:
        return [*map(write, eventos, _payloads(eventos))]
    except (AttributeError, TypeError, ValueError):
        for evento in eventos:
            expect_event(evento.tipo, "publicar_eventos")
            expect_names(clave=evento.clave, id_externo=evento.id_externo)
            _headers(evento.tipo, evento.cabeceras)
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
    _check_texts(tipo, clave=evento.clave, id_externo=evento.id_externo)
    fields: dict[str, object] = {"origen": tipo.origen, "tipo": tipo.tipo}
    optional = {
        "clave": evento.clave,
        "prioridad": _levels(tipo, evento.prioridad, evento.clave)[0],
        "id_externo": evento.id_externo,
    }
    fields |= {name: value for name, value in optional.items() if value is not None}
    written = _headers(tipo, evento.cabeceras)
    headers = "" if written is None else f', "cabeceras": {written}'
    return f'{json.dumps(fields)[:-1]}{headers}, "payload": {payload}}}'


def _line(evento: NuevoEvento[Any], payload: str) -> str:
    """Return the event as a line of COPY's text format (PostgreSQL, COPY, "Text Format"), up to its cause."""
    tipo = evento.tipo
    nivel, carril = _levels(tipo, evento.prioridad, evento.clave)
    if evento.clave is not None:
        _check_texts(tipo, clave=evento.clave)
    text = payload.replace("\\", r"\\")  # JSON has no raw tab or line end
    clave = NULL if evento.clave is None else _escaped(evento.clave)
    headers = _headers(tipo, evento.cabeceras)
    written = NULL if headers is None else _escaped(headers)
    lane = NULL if carril is None else carril
    return f"{_head(tipo.origen, tipo.tipo)}{text}\t{clave}\t{nivel}\t{lane}\t{written}"


def _cause(causa: int | None, correlacion: int | None) -> str:
    return f"\t{NULL if causa is None else causa}\t{NULL if correlacion is None else correlacion}"


@cache
def _head(origen: str, tipo: str) -> str:
    return f"{_escaped(origen)}\t{_escaped(tipo)}\t"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def alone(before: int, sent: int, last: int | None) -> list[int] | None:
    """Return the ids of the copied events, if exactly as many were taken during the COPY: no other session took one."""
    return list(range(before + 1, last + 1)) if last is not None and last - before == sent else None


def _headers(tipo: EventType[Any], cabeceras: Mapping[str, Any] | None) -> str | None:
    """Return an event's headers as JSON, with the version of its payload unless that is 1; None: it has no headers."""
    if cabeceras is None:
        return None if tipo.version == 1 else _only_version(tipo.version)
    try:
        headers = cabeceras if isinstance(cabeceras, dict) else dict(cabeceras)
        if tipo.version > 1 or VERSION in headers:
            headers = _with_version(tipo, headers)
        return json.dumps(headers, allow_nan=False)
    except WrongArgument:
        raise
    except RecursionError as error:
        wanted, hint = "a dict that JSON can hold", "it is nested too deeply"
        raise wrong("cabeceras", cabeceras, wanted, PUBLISHING, hint) from error
    except (TypeError, ValueError) as error:
        hint = str(error) if isinstance(cast("object", cabeceras), Mapping) else ""
        raise wrong("cabeceras", cabeceras, "a dict that JSON can hold", PUBLISHING, hint) from error


@cache
def _only_version(version: int) -> str:
    return json.dumps({VERSION: version})


def _with_version(tipo: EventType[Any], headers: dict[str, Any]) -> dict[str, Any]:
    """Add the version of an event's payload to its headers.

    Raises:
        WrongArgument: they name another version already.
    """
    if (given := headers.get(VERSION, tipo.version)) != tipo.version:
        wanted = f"left out: the payload of {tipo} has version {tipo.version}"
        raise wrong(f"{VERSION!r} in cabeceras", given, wanted, CHANGING)
    return {**headers, VERSION: tipo.version}


def _check_texts(tipo: EventType[Any], **columns: str | None) -> None:
    for name, text in columns.items():
        if text is None:
            continue
        if len(text) > MAX_TEXT:
            raise PublishError(
                f"{not_published(tipo)}: {name} is too long: {len(text)} characters, and {MAX_TEXT} are allowed"
            )
        if "\0" in text:
            raise PublishError(f"{not_published(tipo)}: {name} contains a NUL character, which PostgreSQL cannot store")


def _check_catalog(tipo: EventType[Any]) -> None:
    if not tipo.origen:
        raise UnknownEvent(f"{tipo.tipo!r} was not published: no Catalog declares it, so no handler could handle it")


def not_published(what: object) -> str:
    """Return the beginning of an error about an event, or about ``EVENTS``."""
    return f"{what} {'were' if what == EVENTS else 'was'} not published"
