"""Operating a running bus: look at it, retry, dismiss, publish. The command line calls these functions.

Every look is bounded: it costs the same on a table of a hundred million events as on one of ten thousand, even if the
table was never analyzed, and none of its statements takes longer than ``look.LOOK_SECONDS``. Fields have the names of
the columns and JSON keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.rows import class_row, scalar_row, tuple_row

from cauce import sql
from cauce.database import schema
from cauce.database.look import look
from cauce.database.refusals import explaining
from cauce.errors import InvalidPayload, NotFound, UnknownEvent
from cauce.payloads import VERSION

if TYPE_CHECKING:
    from psycopg import Connection

T = TypeVar("T")

COUNT_CAP: Final = 10_000
"""The highest count."""
REACH: Final = 100_000
"""Most events that one search goes through."""
DISMISS_BATCH: Final = 1_000
"""Deliveries that ``dismiss_subscriber`` looks at in one transaction."""
FAILURES_SHOWN: Final = 50
"""Failed attempts of an event that ``show`` reads: the last ones."""
FAMILY_SHOWN: Final = 200
"""Events of a family that ``why`` reads, if it is not told otherwise: the oldest."""
GENERATIONS: Final = 100
"""Causes of causes that ``why`` follows."""
CHUNK: Final = 500
"""Events retried or dismissed in one statement, so that none holds locks for long."""
ALIVE_SECONDS: Final = 30.0
"""Seconds for which a worker may be silent and count as alive."""


@dataclass(frozen=True, slots=True)
class States:
    """Events by state, each counted to ``COUNT_CAP``."""

    pendiente: int
    en_proceso: int
    procesado: int | None
    """None: unknown, because counting the others stopped first."""
    error: int


@dataclass(frozen=True, slots=True)
class Lag:
    """Events of a lane that a group has not claimed yet, counted to ``COUNT_CAP``."""

    grupo: str
    carril: int
    pendientes: int
    desde: datetime | None
    """When the oldest was published."""


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group's deliveries under a lease, waiting for a retry, and dead; each counted to ``COUNT_CAP``."""

    grupo: str
    lotes: int
    en_mano: int
    """Deliveries under a lease."""
    reintentos: int
    """Deliveries that wait for another attempt."""
    proximo_en: datetime | None
    muertas: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Deliveries left by a removed subscriber, among the first ``COUNT_CAP`` of its group."""

    grupo: str
    suscriptor: str
    reintentos: int
    """Deliveries that wait for another attempt; they end in ``error`` when their time comes."""
    muertas: int


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker that is alive, or was found gone within the last hour."""

    trabajador: str
    grupos: list[str]
    maquina: str
    pid: int
    iniciado_en: datetime
    visto_en: datetime
    vivo: bool
    """It was seen within ``ALIVE_SECONDS``, and was not found gone."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Webhooks that were refused and are kept (``quarantine``), counted to ``COUNT_CAP``."""

    rechazados: int
    ultimo_en: datetime | None
    """When the newest came."""


@dataclass(frozen=True, slots=True)
class Status:
    """The bus at one moment."""

    estados: States
    retraso: list[Lag]
    grupos: list[GroupStatus]
    retiradas: list[Removed]
    """Removed subscribers with deliveries left; ``dismiss_subscriber`` ends those."""
    trabajadores: list[WorkerSeen]
    cuarentena: Quarantined
    tope: int
    """The highest count: it means "or more"."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event without its contents."""

    id: int
    origen: str
    tipo: str
    clave: str | None
    id_externo: str | None
    prioridad: int
    estado: str
    intentos: int
    ignorado: bool
    creado_en: datetime
    procesado_en: datetime | None
    ultimo_error: str | None
    causa: int | None
    """The event whose handler published it."""
    correlacion: int | None
    """The root of its family."""


@dataclass(frozen=True, slots=True)
class FullEvent(EventRow):
    """An event with its contents."""

    disponible_en: datetime | None
    payload: Any
    cabeceras: Any
    cuerpo: bytes | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events, newest first."""

    eventos: list[EventRow]
    siguiente: int | None
    """Pass it as ``before`` for the next page; None: nothing is older."""


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery that is outstanding or dead; ``suscriptor`` "*" is every subscriber of the group."""

    grupo: str
    suscriptor: str
    estado: str
    intentos: int
    caidas: int
    """Workers that died holding it."""
    proximo_en: datetime
    error: str | None
    lote: int | None
    """The lease that holds it now."""
    trabajador: str | None
    arriendo_hasta: datetime | None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A failed attempt, or a dismissal."""

    id: int
    grupo: str
    suscriptor: str
    intento: int
    error: str
    traza: str | None
    trabajador: str | None
    descartada: bool
    """Not an attempt: an operator dismissed the delivery."""
    ocurrido_en: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """The state of an event for one subscriber; ``sql/queries/event_journey.sql`` lists the states."""

    grupo: str
    suscriptor: str
    estado: str
    fallos: int
    """Attempts that failed."""
    error: str | None
    """The last one's error."""
    proximo_en: datetime | None
    lote: int | None
    trabajador: str | None


@dataclass(frozen=True, slots=True)
class Detail:
    """Everything known about an event."""

    evento: FullEvent
    camino: list[Step]
    """One for each subscriber."""
    entregas: list[DeliveryRow]
    fallos: list[FailureRow]
    """The last ``FAILURES_SHOWN``, oldest first."""


@dataclass(frozen=True, slots=True)
class Relative(EventRow):
    """An event of a family, and what became of it at each subscriber."""

    nivel: int
    """How many events lie between it and the first that is known, its cause's cause and so on; 0: its cause is not."""
    camino: list[Step]


@dataclass(frozen=True, slots=True)
class Family:
    """What an event came from and what came of it."""

    evento: int
    """The event that was asked for."""
    raiz: int
    """The first event of the family. Retention may have deleted it."""
    eventos: list[Relative]
    """Each behind its cause."""
    hay_mas: bool
    """The family has more events than were asked for; ``family`` lists them."""


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done to an event by ``retry_many`` or ``dismiss_many``."""

    id: int
    entregas: int | None
    """How many deliveries; None: there is no such event."""


def status(conn: Connection[Any]) -> Status:
    """Look at the bus: events, groups, workers and refused webhooks, in one snapshot.

    Args:
        conn: a connection in autocommit.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    cap = {"tope": COUNT_CAP}
    with look(conn):
        return Status(
            estados=_all(conn, States, "status_states", cap)[0],
            retraso=_all(conn, Lag, "status_lag", cap),
            grupos=_all(conn, GroupStatus, "status_groups", cap),
            retiradas=_all(conn, Removed, "status_removed", cap),
            trabajadores=_all(conn, WorkerSeen, "status_workers", {"segundos": ALIVE_SECONDS}),
            cuarentena=_all(conn, Quarantined, "status_rejected", cap)[0],
            tope=COUNT_CAP,
        )


def events(  # noqa: PLR0913 - the columns it can be asked for, by name
    conn: Connection[Any],
    *,
    estado: str | None = None,
    origen: str | None = None,
    tipo: str | None = None,
    clave: str | None = None,
    ignorado: bool = False,
    before: int | None = None,
    limit: int = 20,
) -> EventPage:
    """List the newest events that match, looking at ``REACH`` of them at most.

    Args:
        conn: a connection in autocommit.
        estado: only those in this state.
        origen: only those of this origin.
        tipo: only those of this name.
        clave: only those with this key.
        ignorado: only those without a handler, which ``retry`` delivers once there is one.
        before: only those with a lower id.
        limit: how many.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    asked: dict[str, object] = {"estado": estado, "origen": origen, "tipo": tipo, "clave": clave, "ignorado": ignorado}
    with look(conn):
        bounds: dict[str, object] = {"antes": before, "limite": limit + 1, "alcance": REACH}
        found = _all(conn, EventRow, "events", asked | bounds)
        if len(found) > limit:
            return EventPage(found[:limit], found[limit - 1].id)
        return EventPage(found, _number(conn, "events_reach", {"antes": before, "alcance": REACH}))


def dead(conn: Connection[Any], *, grupo: str | None = None, before: int | None = None, limit: int = 20) -> EventPage:
    """List the newest events with a dead delivery, in one group or in any.

    Args:
        conn: a connection in autocommit.
        grupo: only those with a dead delivery in this group.
        before: only those with a lower id.
        limit: how many.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    with look(conn):
        found = _all(conn, EventRow, "events_dead", {"grupo": grupo, "antes": before, "limite": limit + 1})
    return EventPage(found[:limit], found[limit - 1].id if len(found) > limit else None)


def family(conn: Connection[Any], evento: int, *, before: int | None = None, limit: int = 20) -> EventPage:
    """List the newest events of the family that an event belongs to.

    Args:
        conn: a connection in autocommit.
        evento: the id of any event of the family; the root's need not be stored any more.
        before: only those with a lower id.
        limit: how many.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    with look(conn):
        found = _all(conn, EventRow, "family_page", {"id": evento, "antes": before, "limite": limit + 1})
    return EventPage(found[:limit], found[limit - 1].id if len(found) > limit else None)


def why(conn: Connection[Any], evento: int, *, limit: int = FAMILY_SHOWN) -> Family:
    """Read what an event came from and what came of it: its family, and what became of each of its events.

    Args:
        conn: a connection in autocommit.
        evento: the id of any event of the family; the root's need not be stored any more.
        limit: how many events of the family, the oldest first. The causes of ``evento`` come in addition, up to
            ``GENERATIONS``.

    Raises:
        NotFound: neither the event nor any of its family is stored.
        SchemaError: the tables are missing, older or newer.
    """
    with look(conn):
        causes = _all(conn, EventRow, "event_causes", {"id": evento, "limite": GENERATIONS})
        found = _all(conn, EventRow, "family", {"id": evento, "limite": limit + 1})
        if not causes and not found:
            raise _no_event(evento)
        members = {event.id: event for event in (*causes, *found[:limit])}
        root = causes[0].correlacion if causes else None
        return Family(
            evento=evento,
            raiz=evento if root is None else root,
            eventos=[
                Relative(**asdict(event), nivel=level, camino=_all(conn, Step, "event_journey", {"id": event.id}))
                for event, level in in_tree(members)
            ],
            hay_mas=len(found) > limit,
        )


def in_tree(events: Mapping[int, EventRow]) -> list[tuple[EventRow, int]]:
    """Put each event behind its cause, with its depth. One whose cause is not among them, or is itself, has depth 0."""
    effects: dict[int, list[int]] = {}
    for number in sorted(events, reverse=True):
        effects.setdefault(events[number].causa or 0, []).append(number)
    ordered: dict[int, int] = {}
    tops = sorted(events, key=lambda number: (events[number].causa in events, number))
    for top in tops:
        ahead = [(top, 0)]
        while ahead:
            number, level = ahead.pop()
            if number not in ordered:
                ordered[number] = level
                ahead += [(effect, level + 1) for effect in effects.get(number, ())]
    return [(events[number], level) for number, level in ordered.items()]


def show(conn: Connection[Any], evento: int) -> Detail:
    """Read everything known about an event.

    Args:
        conn: a connection in autocommit.
        evento: the event's id.

    Raises:
        NotFound: there is no such event.
        SchemaError: the tables are missing, older or newer.
    """
    values: dict[str, object] = {"id": evento}
    with look(conn):
        found = _all(conn, FullEvent, "event", values)
        if not found:
            raise _no_event(evento)
        return Detail(
            evento=found[0],
            camino=_all(conn, Step, "event_journey", values),
            entregas=_all(conn, DeliveryRow, "event_deliveries", values),
            fallos=_all(conn, FailureRow, "event_failures", values | {"limite": FAILURES_SHOWN}),
        )


def retry(conn: Connection[Any], evento: int, *, grupo: str | None = None, suscriptor: str | None = None) -> int:
    """Make the dead or waiting deliveries of an event due at once, with all their attempts again.

    An event that had no handler is delivered to the handler and the subscribers that ``principal`` has for it now.

    Args:
        conn: a connection.
        evento: the event's id.
        grupo: only those of this group.
        suscriptor: only those of this subscriber; ``manejador`` is the dedicated handler.

    Returns:
        How many; 0 if none is dead or waiting, or the event still has no handler. A delivery that a worker holds is
        left alone.

    Raises:
        NotFound: there is no such event.
        SchemaError: the tables are missing, older or newer.
    """
    return _only(retry_many(conn, [evento], grupo=grupo, suscriptor=suscriptor))


def retry_many(
    conn: Connection[Any], eventos: Iterable[int], *, grupo: str | None = None, suscriptor: str | None = None
) -> Iterator[list[Mended]]:
    """Do what ``retry`` does to many events, ``CHUNK`` in one statement, while the caller iterates.

    Args:
        conn: a connection; in autocommit, each chunk is committed by itself.
        eventos: the events' ids; an unknown one is no error.
        grupo: as in ``retry``.
        suscriptor: as in ``retry``.

    Yields:
        What was done to the next events, in the order of their ids.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    return _mend(conn, eventos, grupo, suscriptor, dismiss=False)


def dismiss(conn: Connection[Any], evento: int, *, grupo: str | None = None, suscriptor: str | None = None) -> int:
    """Give up the dead or waiting deliveries of an event for good; arguments, result and errors as in ``retry``."""
    return _only(dismiss_many(conn, [evento], grupo=grupo, suscriptor=suscriptor))


def dismiss_many(
    conn: Connection[Any], eventos: Iterable[int], *, grupo: str | None = None, suscriptor: str | None = None
) -> Iterator[list[Mended]]:
    """Do what ``dismiss`` does to many events; arguments, result and errors as in ``retry_many``."""
    return _mend(conn, eventos, grupo, suscriptor, dismiss=True)


def dismiss_subscriber(conn: Connection[Any], suscriptor: str, *, grupo: str | None = None) -> int:
    """Give up all dead or waiting deliveries of a subscriber for good, ``DISMISS_BATCH`` in one transaction.

    Args:
        conn: a connection in autocommit.
        suscriptor: the subscriber's name, whether or not an application has it.
        grupo: only in this group.

    Returns:
        How many deliveries. One that a worker holds is left alone.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    schema.check_version(conn)
    count, event = 0, -1  # below every id
    while True:
        values = {"suscriptor": suscriptor, "grupo": grupo, "desde": event, "maximo": DISMISS_BATCH}
        found = conn.cursor(row_factory=tuple_row).execute(sql.query("dismiss_subscriber"), values).fetchone()
        dismissed, last = found or (0, None)
        count += int(dismissed)
        if last is None:
            return count
        event = last


def publish(  # noqa: PLR0913 - the event's columns, by name
    conn: Connection[Any],
    origen: str,
    tipo: str,
    payload: str,
    *,
    clave: str | None = None,
    prioridad: int | None = None,
    id_externo: str | None = None,
    version: int | None = None,
) -> int:
    """Publish an event by its name, without the application's types; return its id.

    Args:
        conn: a connection; in autocommit, the event is committed at once.
        origen: the event's origin.
        tipo: its name, which some application's catalog must have.
        payload: JSON text; it is validated against the event's type only when it is handled.
        clave: the event's key; by default the payload's field that the catalog names.
        prioridad: 0 (first) to 9; by default the catalog's.
        id_externo: an id that makes the event unique in its origin: publishing it again returns the stored id.
        version: the payload's; by default the highest that was ever deployed.

    Raises:
        UnknownEvent: no catalog has the event, so nobody would handle it.
        InvalidPayload: it is not JSON, or PostgreSQL cannot store it.
        ForeignRestore: the database was restored into a younger cluster.
        SchemaError: the tables are missing, older or newer.
    """
    schema.check_version(conn)
    deployed = _number(conn, "event_known", {"origen": origen, "tipo": tipo})
    if not deployed:
        raise UnknownEvent(
            f"{origen}/{tipo} was not published: no catalog in this database has it; run: cauce migrate module:bus"
        )
    version = version or deployed
    headers = None if version == 1 else json.dumps({VERSION: version})
    values = {
        "origen": origen, "tipo": tipo, "payload": payload, "clave": clave, "prioridad": prioridad,
        "id_externo": id_externo, "cabeceras": headers,
    }  # fmt: skip
    try:
        with explaining():
            return _number(conn, "publish", values) or 0
    except psycopg.errors.DataError as error:
        raise InvalidPayload(f"{origen}/{tipo} was not published: {error.diag.message_primary}") from error


def _mend(
    conn: Connection[Any], eventos: Iterable[int], grupo: str | None, suscriptor: str | None, *, dismiss: bool
) -> Iterator[list[Mended]]:
    schema.check_version(conn)
    ids = iter(sorted(set(eventos)))
    while chunk := list(islice(ids, CHUNK)):
        with conn.cursor(row_factory=class_row(Mended)) as cursor:
            cursor.execute("select * from cauce.remediar(%s, %s, %s, %s)", (chunk, dismiss, grupo, suscriptor))
            mended = cursor.fetchall()
        yield mended


def _only(mended: Iterator[list[Mended]]) -> int:
    """Return how many deliveries of the one event were mended."""
    ((one,),) = mended
    if one.entregas is None:
        raise _no_event(one.id)
    return one.entregas


def _no_event(evento: int) -> NotFound:
    return NotFound(f"there is no event {evento}; it may have been pruned: cauce events lists what there is")


def _all(conn: Connection[Any], made: type[T], query: str, values: Mapping[str, object]) -> list[T]:
    with conn.cursor(row_factory=class_row(made)) as cursor:
        return cursor.execute(sql.query(query), values).fetchall()


def _number(conn: Connection[Any], query: str, values: Mapping[str, object]) -> int | None:
    with conn.cursor(row_factory=scalar_row) as cursor:
        found = cursor.execute(sql.query(query), values).fetchone()
    return None if found is None else int(found)
