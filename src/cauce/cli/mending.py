"""``migrate``, ``publish``, ``retry``, ``discard``: the commands that change something and end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cauce import operations, schema
from cauce.cli import codes
from cauce.cli.loading import connect, load_bus, load_settings
from cauce.cli.tables import as_json, complain

if TYPE_CHECKING:
    from psycopg import Connection


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

    Safe when several start at once, and when there is nothing to do.

    Args:
        bus: The application's bus, as module:name; without it, only the tables.
        app_dir: Where modules are looked for first.
        take_over: Become the owner of handlers and subscribers of this bus that other applications own.
        forget: Remove all subscriptions of this application, which is gone for good.
        json: Print JSON.
    """
    loaded = load_bus(bus, app_dir) if bus else None
    if take_over and not loaded:
        return complain("--take-over goes with a bus: cauce migrate module:bus --take-over")
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


def publish(  # noqa: PLR0913 - the event's columns
    origen: str,
    tipo: str,
    payload: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    clave: str | None = None,
    prioridad: int | None = None,
    id_externo: str | None = None,
    json: bool = False,
) -> None:
    """Publish one event by its name, and say its id.

    Args:
        origen: The event's origin, for example reserva.
        tipo: Its name, for example reserva.creada; some application's catalog must have it.
        payload: JSON; "-" reads it from standard input.
        clave: The event's key; by default the payload's field that the catalog names.
        prioridad: 0 (first) to 9; by default the catalog's.
        id_externo: An id that makes the event unique in its origin.
        json: Print JSON.
    """
    text = sys.stdin.read() if payload == "-" else payload
    with connect(load_settings()) as conn:
        evento = operations.publish(conn, origen, tipo, text, clave=clave, prioridad=prioridad, id_externo=id_externo)
    print(as_json({"id": evento}) if json else f"published event {evento}")


def retry(
    evento: int,
    /,
    *,
    grupo: str | None = None,
    suscriptor: str | None = None,
    json: bool = False,
) -> int:
    """Try an event's failed or waiting deliveries again at once, with all their attempts before them.

    Args:
        evento: The event's id.
        grupo: Only those of this group.
        suscriptor: Only those of this subscriber; manejador is the dedicated handler.
        json: Print JSON.
    """
    with connect(load_settings()) as conn:
        count = operations.retry(conn, evento, grupo=grupo, suscriptor=suscriptor)
        return _told(conn, evento, count, ("retry", "due now"), json=json)


def discard(
    evento: int,
    /,
    *,
    grupo: str | None = None,
    suscriptor: str | None = None,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"])] = False,
    json: bool = False,
) -> int:
    """Give an event's failed or waiting deliveries up, for good.

    Args:
        evento: The event's id.
        grupo: Only those of this group.
        suscriptor: Only those of this subscriber; manejador is the dedicated handler.
        yes: Do not ask.
        json: Print JSON.
    """
    if not yes:
        if not sys.stdin.isatty():
            print("cauce: discarding is for good, and there is no terminal to ask on: say --yes", file=sys.stderr)
            return codes.USAGE
        if not _confirmed(evento, grupo, suscriptor):
            print("cauce: nothing was discarded", file=sys.stderr)
            return codes.NOT_DONE
    with connect(load_settings()) as conn:
        count = operations.discard(conn, evento, grupo=grupo, suscriptor=suscriptor)
        return _told(conn, evento, count, ("discard", "discarded"), json=json)


def _told(conn: Connection[Any], evento: int, count: int, words: tuple[str, str], *, json: bool) -> int:
    """Say what was done or, on stderr, why nothing was; return the exit code."""
    verb, done = words
    if json:
        print(as_json({"id": evento, "entregas": count}))
    elif count:
        print(f"{count} {'delivery' if count == 1 else 'deliveries'} of event {evento} {done}")
    if count:
        return codes.DONE
    detail = operations.show(conn, evento)
    held = next((entrega for entrega in detail.entregas if entrega.lote is not None), None)
    if held is not None:
        why = f"worker {held.trabajador} has it in hand"
    elif detail.entregas:
        there = ", ".join(f"{entrega.grupo}/{entrega.suscriptor}" for entrega in detail.entregas)
        why = f"what failed or waits is {there}"
    else:
        why = "no delivery failed or waits"
    print(f"cauce: event {evento} has nothing to {verb}: {why}", file=sys.stderr)
    return codes.NOT_DONE


def _confirmed(evento: int, grupo: str | None, suscriptor: str | None) -> bool:
    """Show what would be given up, and ask; if that is nothing, do not."""
    with connect(load_settings()) as conn:
        detail = operations.show(conn, evento)
    shown = [
        entrega
        for entrega in detail.entregas
        if entrega.lote is None and grupo in (None, entrega.grupo) and suscriptor in (None, entrega.suscriptor)
    ]
    if not shown:
        return True  # there is nothing to lose, and discard says why
    print(f"event {evento}, {detail.evento.origen}/{detail.evento.tipo}:", file=sys.stderr)
    for entrega in shown:
        print(f"  {entrega.grupo}/{entrega.suscriptor}: {entrega.error or 'waits'}", file=sys.stderr)
    print("Give these deliveries up, for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
