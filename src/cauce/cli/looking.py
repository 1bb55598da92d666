"""``status``, ``events``, ``show``: the commands that only read."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from cauce.cli import many, tables
from cauce.cli.loading import load_settings
from cauce.database import operations
from cauce.database.connecting import connect
from cauce.evento import Estado  # noqa: TC001 - the command line is made from the annotations


def status(*, json: bool = False) -> None:
    """Count waiting, in-flight, dead and refused deliveries, and list workers; fast however large the tables are.

    Args:
        json: Print JSON.
    """
    with connect(load_settings()) as conn:
        found = operations.status(conn)
    tables.show(found, tables.of_status, json=json)


def events(
    *,
    estado: Estado | None = None,
    origen: str | None = None,
    tipo: str | None = None,
    clave: str | None = None,
    ignored: bool = False,
    dead: bool = False,
    grupo: str | None = None,
    family: int | None = None,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000))] = 20,
    before: int | None = None,
    json: bool = False,
) -> int:
    """List events, newest first.

    Args:
        estado: Only those in this state.
        origen: Only those of this origin.
        tipo: Only those of this name.
        clave: Only those with this key.
        ignored: Only those without a handler; cauce retry delivers them once there is one.
        dead: Only those with a dead letter, in any group, however old they are.
        grupo: With --dead, only those with a dead letter in this group.
        family: Only the family of this event: what it came from and what came of it.
        limit: The largest number of events to list.
        before: Only those with a lower id.
        json: Print JSON.
    """
    filters = {"--estado": estado, "--origen": origen, "--tipo": tipo, "--clave": clave, "--ignored": ignored or None}
    if grupo is not None and not dead:
        return tables.complain("--grupo goes with --dead")
    if (kind := "--dead" if dead else "" if family is None else "--family") and (
        wrong := [
            name for name, value in (filters | {"--family": family if dead else None}).items() if value is not None
        ]
    ):
        return tables.complain(f"{', '.join(wrong)} cannot go with {kind}")
    with connect(load_settings()) as conn:
        if dead:
            page = operations.dead(conn, grupo=grupo, before=before, limit=limit)
        elif family is not None:
            page = operations.family(conn, family, before=before, limit=limit)
        else:
            page = operations.events(
                conn, estado=estado and estado.value, origen=origen, tipo=tipo, clave=clave, ignorado=ignored,
                before=before, limit=limit,
            )  # fmt: skip
    tables.show(page, tables.of_page, json=json)
    return 0


def show(evento: str, /, *, json: bool = False) -> None:
    """Show one event: its contents, subscribers, deliveries and failures.

    Args:
        evento: The event's id.
        json: Print JSON.
    """
    (number,) = many.read_ids([evento])
    with connect(load_settings()) as conn:
        found = operations.show(conn, number)
    tables.show(found, tables.of_detail, json=json)
