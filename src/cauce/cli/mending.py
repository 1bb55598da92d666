"""``migrate``, ``publish``, ``retry``, ``dismiss``: the commands that change something and end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from json import JSONDecodeError, loads
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators
from pydantic import ValidationError

from cauce.catalog import PRINCIPAL, TODOS
from cauce.cli import codes, many
from cauce.cli.asking import NO_TERMINAL, Yes, agreed
from cauce.cli.loading import load_bus, load_settings
from cauce.cli.tables import as_json, complain
from cauce.database import operations, schema
from cauce.database.connecting import connect
from cauce.errors import InvalidPayload, NotFound, UnknownEvent

if TYPE_CHECKING:
    from psycopg import Connection

    from cauce.bus import Bus
    from cauce.database.operations import Mended


QUOTES: Final = """; in a shell, put it between single quotes: '{"id": 1}'"""
"""The usual remedy for a payload that is not JSON."""
QUESTION: Final = "Give these deliveries up,"


def migrate(
    bus: str | None = None,
    /,
    *,
    app_dir: str = ".",
    take_over: Annotated[bool, Parameter(negative="")] = False,
    forget: str | None = None,
    json: bool = False,
) -> int:
    """Bring the database's tables up to date, and write the application's catalog, subscriptions and groups into it.

    Safe to run twice, or several times at once.

    Args:
        bus: The application's bus, as module:name; without it, only the tables.
        app_dir: Where modules are looked for first.
        take_over: Become the owner of handlers and subscribers of this bus that other applications own.
        forget: Remove all subscriptions of this application, which no longer exists.
        json: Print JSON.
    """
    loaded = load_bus(bus, app_dir) if bus else None
    if take_over and not loaded:
        return complain("--take-over needs a bus: cauce migrate module:bus --take-over")
    forgotten: list[schema.Subscription] = []
    with connect(load_settings()) as conn:
        applied = schema.migrate(conn)
        if forget is not None:
            forgotten += schema.forget_application(conn, forget)
        if loaded:
            forgotten += schema.save_catalog(conn, loaded, replace=True, take_over=take_over)
    if json:
        groups = list(loaded.groups) if loaded else []
        gone = [subscription._asdict() for subscription in forgotten]
        print(as_json({"aplicadas": applied, "grupos": groups, "retiradas": gone}))
        return codes.DONE
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("the tables are up to date")
    if loaded:
        print(f"wrote the catalog: {len(loaded.types)} events, groups {', '.join(loaded.groups) or 'none'}")
    for subscription in forgotten:
        print(f"removed {subscription}")
    return codes.DONE


def publish(
    origen: str,
    tipo: str,
    payload: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    clave: str | None = None,
    prioridad: Annotated[int | None, Parameter(validator=validators.Number(gte=0, lte=9))] = None,
    id_externo: str | None = None,
    bus: Annotated[str | None, Parameter(env_var="CAUCE_BUS")] = None,
    app_dir: str = ".",
    json: bool = False,
) -> None:
    """Publish one event by its name, and print its id.

    Args:
        origen: The event's origin, for example reserva.
        tipo: Its name, for example reserva.creada; some application's catalog must have it.
        payload: JSON; "-" reads it from standard input.
        clave: The event's key; by default the payload's field that the catalog names.
        prioridad: 0 (first) to 9; by default the catalog's.
        id_externo: An id that makes the event unique in its origin.
        bus: The application's bus, as module:name, whose types the payload is checked against (CAUCE_BUS).
        app_dir: Where modules are looked for first.
        json: Print JSON.
    """
    text = sys.stdin.read() if payload == "-" else payload
    _check_json(text)
    version: int | None = None
    if bus is None:
        print("cauce: the payload is not checked against its type; to check it, give --bus module:bus", file=sys.stderr)
    else:
        version = _check_payload(load_bus(bus, app_dir), origen, tipo, text)
    with connect(load_settings()) as conn:
        evento = operations.publish(
            conn, origen, tipo, text, clave=clave, prioridad=prioridad, id_externo=id_externo, version=version
        )
    print(as_json({"id": evento}) if json else f"published event {evento}")


def _check_json(text: str) -> None:
    """Check that a text is JSON; the database checks JSON that Python cannot read.

    Raises:
        InvalidPayload: it is not.
    """
    with suppress(RecursionError, ValueError):
        try:
            loads(text)
        except JSONDecodeError as error:
            raise InvalidPayload(f"nothing was published: the payload is not JSON: {error}{QUOTES}") from error


def _check_payload(bus: Bus, origen: str, tipo: str, text: str) -> int:
    """Check that a bus has the event, and that the payload has its type; return the type's version.

    Raises:
        UnknownEvent: the bus does not have the event.
        InvalidPayload: the payload does not have its type.
    """
    event_type = bus.types.get((origen, tipo))
    if event_type is None:
        there = ", ".join(map(str, bus.types.values()))
        raise UnknownEvent(f"{origen}/{tipo} was not published: the bus has no such event; it has {there}")
    try:
        event_type.load(text, event_type.version)
    except ValidationError as error:
        raise InvalidPayload(f"{origen}/{tipo} was not published: {' '.join(str(error).split())}") from error
    return event_type.version


def retry(
    *eventos: Annotated[str, Parameter(allow_leading_hyphen=True)],
    grupo: str | None = None,
    suscriptor: str | None = None,
    json: bool = False,
) -> int:
    """Try events' failed or waiting deliveries again at once, with all their attempts again.

    Events that had no handler are delivered to those that handle them now.

    Args:
        eventos: The events' ids; "-" reads them from standard input, also as cauce events --dead --json prints them.
        grupo: Only those of this group.
        suscriptor: Only those of this subscriber; manejador is the dedicated handler.
        json: Print JSON.
    """
    ids = many.read_ids(eventos)
    with connect(load_settings()) as conn:
        done = many.followed(operations.retry_many(conn, ids, grupo=grupo, suscriptor=suscriptor), len(ids))
        return _told(conn, done, ("retry", "due now"), json=json)


def dismiss(
    *eventos: Annotated[str, Parameter(allow_leading_hyphen=True)],
    grupo: str | None = None,
    suscriptor: str | None = None,
    yes: Yes = False,
    json: bool = False,
) -> int:
    """Give up failed or waiting deliveries for good: those of events or, with --suscriptor alone, all of a subscriber.

    Args:
        eventos: The events' ids; "-" reads them from standard input, also as cauce events --dead --json prints them.
        grupo: Only those of this group.
        suscriptor: Only those of this subscriber; manejador is the dedicated handler.
        yes: Do not ask.
        json: Print JSON.
    """
    if not yes and ("-" in eventos or not sys.stdin.isatty()):
        return complain(NO_TERMINAL)
    if suscriptor is not None and not eventos:
        return _dismiss_all(suscriptor, grupo, yes=yes, json=json)
    ids = many.read_ids(eventos)
    with connect(load_settings()) as conn:
        if not yes and not _confirmed(conn, ids, grupo, suscriptor):
            return codes.NOT_DONE
        done = many.followed(operations.dismiss_many(conn, ids, grupo=grupo, suscriptor=suscriptor), len(ids))
        return _told(conn, done, ("dismiss", "dismissed"), json=json)


def _dismiss_all(suscriptor: str, grupo: str | None, *, yes: bool, json: bool) -> int:
    """Give up all failed or waiting deliveries of a subscriber."""
    if not yes:
        where = f"group {grupo}" if grupo else "any group"
        print(f"every failed or waiting delivery of subscriber {suscriptor}, in {where}", file=sys.stderr)
        if not agreed(QUESTION):
            return codes.NOT_DONE
    with connect(load_settings()) as conn:
        count = operations.dismiss_subscriber(conn, suscriptor, grupo=grupo)
    if json:
        print(as_json({"suscriptor": suscriptor, "entregas": count}))
    elif count:
        print(f"{count:,} {'delivery' if count == 1 else 'deliveries'} of subscriber {suscriptor} dismissed")
    if not count:
        print(f"cauce: subscriber {suscriptor} has nothing to dismiss: no delivery failed or waits", file=sys.stderr)
    return codes.DONE if count else codes.NOT_DONE


def _told(conn: Connection[Any], done: Sequence[Mended], words: tuple[str, str], *, json: bool) -> int:
    """Print what was done and, on stderr, to which events nothing and why; return the exit code."""
    verb, what = words
    unknown = [one.id for one in done if one.entregas is None]
    known = {one.id: one.entregas for one in done if one.entregas is not None}
    count, touched = sum(known.values()), [evento for evento, entregas in known.items() if entregas]
    if json:
        counted = [{"id": evento, "entregas": entregas} for evento, entregas in known.items()]
        print(as_json({"entregas": count, "eventos": counted, "desconocidos": unknown}))
    elif count:
        of = f"event {touched[0]}" if len(touched) == 1 else f"{len(touched):,} events"
        print(f"{count:,} {'delivery' if count == 1 else 'deliveries'} of {of} {what}")
    idle = [evento for evento, entregas in known.items() if not entregas]
    for evento in idle[: many.NAMED]:
        print(f"cauce: event {evento} has nothing to {verb}: {_why_nothing(conn, evento)}", file=sys.stderr)
    if len(idle) > many.NAMED:
        print(f"cauce: nor have {len(idle) - many.NAMED:,} other events; --json lists them", file=sys.stderr)
    if unknown:
        what_there_is = "it may have been pruned: cauce events lists what there is"
        print(f"cauce: there is no event {many.listed(unknown)}; {what_there_is}", file=sys.stderr)
    if not done:
        print(f"cauce: standard input names no event: there is nothing to {verb}", file=sys.stderr)
    return codes.DONE if count and not unknown else codes.NOT_DONE


def _why_nothing(conn: Connection[Any], evento: int) -> str:
    detail = operations.show(conn, evento)
    held = next((entrega for entrega in detail.entregas if entrega.lote is not None), None)
    if held is not None:
        return f"worker {held.trabajador} has it in hand"
    if detail.entregas:
        there = ", ".join(f"{entrega.grupo}/{entrega.suscriptor}" for entrega in detail.entregas)
        return f"what failed or waits is {there}"
    ignored = [step.suscriptor for step in detail.camino if step.estado == "ignorado"]
    if TODOS in ignored:
        event = f"{detail.evento.origen}/{detail.evento.tipo}"
        return (
            f"nobody handles {event} yet: deploy a handler or a subscriber, run cauce migrate module:bus, and try again"
        )
    if ignored:
        return f"nobody handled it; those that do by now are {', '.join(f'{PRINCIPAL}/{name}' for name in ignored)}"
    return "no delivery failed or waits"


def _confirmed(conn: Connection[Any], eventos: Sequence[int], grupo: str | None, suscriptor: str | None) -> bool:
    """Show what would be given up, for the first few events, and ask, unless that is nothing."""
    shown = 0
    for evento in eventos[: many.NAMED]:
        try:
            detail = operations.show(conn, evento)
        except NotFound:
            continue
        for entrega in detail.entregas:
            if entrega.lote is None and grupo in (None, entrega.grupo) and suscriptor in (None, entrega.suscriptor):
                where = f"event {evento}, {detail.evento.origen}/{detail.evento.tipo}"
                print(f"{where}, {entrega.grupo}/{entrega.suscriptor}: {entrega.error or 'waits'}", file=sys.stderr)
                shown += 1
    if len(eventos) > many.NAMED:
        print(f"and whatever failed or waits of {len(eventos) - many.NAMED:,} other events", file=sys.stderr)
    elif not shown:
        return True  # there is nothing to lose, and dismiss says why
    return agreed(QUESTION)
