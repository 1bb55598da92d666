"""The commands that look: ``status``, ``events``, ``show``. With ``--json``, the same as one JSON document."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from cauce import operations
from cauce.cli import tables
from cauce.cli.loading import connect, load_settings
from cauce.evento import Estado  # noqa: TC001 - the command line is made from the annotations


def status(*, json: bool = False) -> None:
    """Say what waits, what is in hand, what is dead and who works; cheap on large tables.

    Args:
        json: print JSON, with the columns' names as keys.
    """
    with connect(load_settings()) as conn:
        seen = operations.status(conn)
    tables.print_json(seen) if json else tables.print_status(seen)


def events(  # noqa: PLR0913 - the command's filters, by name
    *,
    estado: Estado | None = None,
    origen: str | None = None,
    tipo: str | None = None,
    clave: str | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 20,
    before: int | None = None,
    json: bool = False,
) -> None:
    """List events, newest first.

    Args:
        estado: only those in this state.
        origen: only those of this origin.
        tipo: only those of this name.
        clave: only those about this key.
        limit: how many, 1000 at most.
        before: only those with a lower id: the next page.
        json: print JSON.
    """
    with connect(load_settings()) as conn:
        page = operations.events(
            conn,
            estado=estado.value if estado else None,
            origen=origen,
            tipo=tipo,
            clave=clave,
            antes=before,
            limite=limit,
        )
    tables.print_json(page) if json else tables.print_events(page)


def show(evento: int, /, *, json: bool = False) -> None:
    """Tell all of one event: its payload, what became of each delivery, why attempts failed.

    Args:
        evento: its id.
        json: print JSON.
    """
    with connect(load_settings()) as conn:
        detail = operations.show(conn, evento)
    tables.print_json(detail) if json else tables.print_detail(detail)
