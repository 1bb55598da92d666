"""``why``: what an event came from and what came of it, as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter, validators
from rich.console import Group
from rich.text import Text

from cauce.cli import many, tables
from cauce.cli.loading import load_settings
from cauce.database import operations
from cauce.database.connecting import connect
from cauce.database.operations import FAMILY_SHOWN

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cauce.database.operations import Family, Relative

DEEPEST: Final = 20
"""Generations that are indented; later ones stand below the last of these, with their number."""


def why(
    evento: str,
    /,
    *,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1_000))] = FAMILY_SHOWN,
    json: bool = False,
) -> None:
    """Show the family of an event: what it came from, what came of it, and each delivery.

    Args:
        evento: The id of any event of the family.
        limit: The largest number of events to show, the oldest first.
        json: Print JSON.
    """
    (number,) = many.read_ids([evento])
    with connect(load_settings()) as conn:
        found = operations.why(conn, number, limit=limit)
    tables.show(found, of_family, json=json)


def of_family(family: Family) -> RenderableType:
    """Lay out a family, each event below its cause."""
    lines = [line for event in family.eventos for line in _of_relative(event, asked=event.id == family.evento)]
    if all(event.id != family.raiz for event in family.eventos):
        lines.insert(0, Text(f"Event {family.raiz}, the first of the family, is not stored any more.", style="dim"))
    if family.hay_mas:
        lines.append(Text(f"There are more: cauce events --family {family.raiz}", style="dim"))
    return Group(*lines)


def _of_relative(event: Relative, *, asked: bool) -> Iterator[Text]:
    margin = "    " * min(event.nivel, DEEPEST)
    line = Text(f"{margin}{'-> ' * bool(event.nivel)}")
    line.append(f"Event {event.id}", style="bold").append_text(tables.clean(f"  {event.origen}/{event.tipo}"))
    if event.id_externo is not None:
        line.append_text(tables.clean(f"  {event.id_externo}"))
    line.append(f"  {event.creado_en:%Y-%m-%d %H:%M:%S %Z}  ").append_text(tables.state_of(event))
    if event.nivel > DEEPEST:
        line.append(f"  generation {event.nivel}", style="dim")
    if not event.nivel and event.causa is not None:
        line.append(f"  caused by event {event.causa}, which is not shown", style="dim")
    if asked:
        line.append("  <- asked for", style="bold")
    yield line
    for step in event.camino:
        told = Text(f"{margin}     ").append_text(tables.clean(f"{step.grupo}/{step.suscriptor}  "))
        told.append(f"{step.estado}  ", style=tables.STYLES.get(step.estado, ""))
        yield told.append_text(tables.clean(tables.story_of(step), lines=False))
