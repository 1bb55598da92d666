"""The commands that change something: ``migrate``, ``publish``, ``retry``, ``discard``."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from cauce import operations, schema
from cauce.cli import tables
from cauce.cli.loading import connect, load_bus, load_settings
from cauce.errors import ConfigError

NOTHING = 1
"""Exit code: there was nothing to retry or discard."""


def migrate(bus: str | None = None, *, app_dir: str = ".", json: bool = False) -> None:
    """Bring the tables up to date and, given a bus, write its catalog and groups; does nothing when all is done.

    Args:
        bus: the application's bus, as module:name.
        app_dir: folder where its modules are.
        json: print JSON.
    """
    settings = load_settings()
    loaded = None if bus is None else load_bus(bus, app_dir)
    with connect(settings) as conn:
        applied = schema.migrate(conn, loaded)
    groups = list(loaded.groups) if loaded else []
    if json:
        tables.print_json({"aplicadas": applied, "grupos": groups})
        return
    print("\n".join(f"applied {name}" for name in applied) or "the tables are up to date")
    if loaded:
        print(f"wrote the catalog: {len(loaded.types)} events, groups {', '.join(groups)}")


def publish(  # noqa: PLR0913 - the event's columns, by name
    origen: str,
    tipo: str,
    payload: str,
    /,
    *,
    clave: str | None = None,
    prioridad: int | None = None,
    id_externo: str | None = None,
    json: bool = False,
) -> None:
    """Publish one event by hand.

    Args:
        origen: its origin.
        tipo: its name.
        payload: JSON text.
        clave: its key.
        prioridad: 0 (first) to 9.
        id_externo: an id that makes it unique in its origin.
        json: print JSON.
    """
    with connect(load_settings()) as conn:
        number = operations.publish(
            conn, origen, tipo, payload, clave=clave, prioridad=prioridad, id_externo=id_externo
        )
    tables.print_json({"id": number}) if json else print(f"published event {number}")


def retry(evento: int, /, *, grupo: str | None = None, suscriptor: str | None = None, json: bool = False) -> int:
    """Make an event's failed or waiting deliveries due now, with all their attempts before them.

    Args:
        evento: the event's id.
        grupo: only those of this group.
        suscriptor: only those of this subscriber; manejador is the dedicated handler.
        json: print JSON.
    """
    with connect(load_settings()) as conn:
        count = operations.retry(conn, evento, grupo=grupo, suscriptor=suscriptor)
    return _told(count, "due now", "retry", evento, json=json)


def discard(
    evento: int,
    /,
    *,
    grupo: str | None = None,
    suscriptor: str | None = None,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"])] = False,
    json: bool = False,
) -> int:
    """Give an event's failed or waiting deliveries up, for good; what failed stays to be read.

    Args:
        evento: the event's id.
        grupo: only those of this group.
        suscriptor: only those of this subscriber; manejador is the dedicated handler.
        yes: do not ask.
        json: print JSON.

    Raises:
        ConfigError: there is nobody to ask, and --yes was not given.
    """
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("discard cannot be undone, and there is no terminal to ask on; say --yes")
        if input(f"Discard the failed and waiting deliveries of event {evento}? [y/N] ").strip().lower() != "y":
            print("nothing was discarded")
            return NOTHING
    with connect(load_settings()) as conn:
        count = operations.discard(conn, evento, grupo=grupo, suscriptor=suscriptor)
    return _told(count, "discarded", "discard", evento, json=json)


def _told(count: int, done: str, verb: str, evento: int, *, json: bool) -> int:
    if json:
        tables.print_json({"id": evento, "entregas": count})
    elif count:
        print(f"{count} {'delivery' if count == 1 else 'deliveries'} of event {evento} {done}")
    else:
        print(f"cauce: event {evento} has nothing to {verb}: no delivery failed or waits", file=sys.stderr)
    return 0 if count else NOTHING
