"""Output: JSON for programs, tables for people.

Untrusted text is shown here, so nothing in it may move the cursor or colour the terminal.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cauce.cli import codes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import DataclassInstance

    from cauce.database import quarantine
    from cauce.database.operations import Detail, EventPage, EventRow, FailureRow, Status, Step, WorkerSeen

    D = TypeVar("D", bound=DataclassInstance)

PIPE_WIDTH: Final = 200
"""Columns of a table that does not go to a terminal."""
SHOWN_BYTES: Final = 500
"""Bytes of a body that is not JSON that are shown to people."""
NOBODY: Final = "No worker runs. Start one: cauce worker module:bus"
"""A worker that stopped cleanly is not listed; a silent one died, or lost its database."""
STYLES: Final = {
    "error": "red",
    "procesado": "green",
    "en_proceso": "yellow",
    "pendiente": "cyan",
    "descartado": "dim",
    "ignorado": "dim",
    "anterior": "dim",
}


def show(found: D, render: Callable[[D], RenderableType], *, json: bool) -> None:
    """Print an answer, as JSON or for people."""
    if json:
        print(as_json(asdict(found)))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(render(found))


def as_json(value: Mapping[str, Any]) -> str:
    """Write JSON: times in ISO 8601, bytes in base64."""
    return json.dumps(value, default=_plain, indent=2, ensure_ascii=False)


def complain(message: str) -> int:
    """Print on stderr what is wrong with the command line; return the exit code."""
    print(f"cauce: {message}", file=sys.stderr)
    return codes.USAGE


def of_status(status: Status) -> RenderableType:
    """Lay out the bus at one moment."""

    def number(count: int | None) -> str:
        if count is None:
            return "?"
        return f"{count:,}+" if count >= status.tope else f"{count:,}"

    states = Text("Events  ", style="bold")
    for name, count in asdict(status.estados).items():
        states.append(f" {name} ", style=STYLES[name]).append(f"{number(count)}  ", style="default")
    refused = Text("Refused ", style="bold").append(
        f" webhooks {number(status.cuarentena.rechazados)}", style="default"
    )
    if status.cuarentena.ultimo_en is not None:
        refused.append(f", the newest {ago(status.cuarentena.ultimo_en)}: cauce webhook rejected", style="yellow")
    for left in status.retiradas:
        refused.append("\nRemoved ", style="bold").append_text(clean(f" {left.grupo}/{left.suscriptor}"))
        said = f" left {number(left.reintentos)} to retry, {number(left.muertas)} dead: cauce dismiss --suscriptor NAME"
        refused.append(said, style="yellow")
    groups = _table("group", "lane", "waiting >", "oldest", "in hand >", "to retry >", "next", "dead >")
    for group in status.grupos:
        lanes = [lag for lag in status.retraso if lag.grupo == group.grupo]
        first = lanes[0] if lanes else None
        groups.add_row(
            clean(group.grupo), str(first.carril) if first else "", number(first.pendientes if first else 0),
            ago(first.desde) if first else "", number(group.en_mano), number(group.reintentos),
            ago(group.proximo_en), Text(number(group.muertas), style="red" if group.muertas else ""),
        )  # fmt: skip
        for lag in lanes[1:]:
            groups.add_row("", str(lag.carril), number(lag.pendientes), ago(lag.desde))
    return Group(states, refused, "", groups, "", *_of_workers(status.trabajadores))


def _of_workers(seen: Sequence[WorkerSeen]) -> list[RenderableType]:
    """Lay out the workers, and say if none of them runs."""
    nobody = [] if any(worker.vivo for worker in seen) else [Text(NOBODY, style="yellow")]
    if not seen:
        return [*nobody]
    workers = _table("worker", "groups", "host", "pid", "started", "seen")
    for worker in seen:
        told = Text(ago(worker.visto_en) if worker.vivo else f"silent, {ago(worker.visto_en)}")
        told.stylize("" if worker.vivo else "yellow")
        workers.add_row(
            clean(worker.trabajador), clean(", ".join(worker.grupos)), clean(worker.maquina), str(worker.pid),
            ago(worker.iniciado_en), told,
        )  # fmt: skip
    return [workers, *nobody]


def of_page(page: EventPage) -> RenderableType:
    """Lay out some events."""
    if page.siguiente is None:
        end = "" if page.eventos else "No such event."
    elif page.eventos:
        end = f"There may be more: --before {page.siguiente}"
    else:
        end = f"None among those looked at; go on with --before {page.siguiente}"
    if not page.eventos:
        return Text(end)
    return Group(of_events(page.eventos), Text(end, style="dim")) if end else of_events(page.eventos)


def of_events(eventos: Sequence[EventRow]) -> Table:
    """Lay out events, one a line."""
    table = _table("id >", "origen", "tipo", "clave", "estado", "intentos >", "published", "last error")
    for evento in eventos:
        table.add_row(
            str(evento.id), clean(evento.origen), clean(evento.tipo), clean(evento.clave), state_of(evento),
            str(evento.intentos), ago(evento.creado_en), clean(evento.ultimo_error, lines=False),
        )  # fmt: skip
    return table


def state_of(evento: EventRow) -> Text:
    """Return an event's state, and whether it was ignored."""
    return Text(f"{evento.estado}{' (ignorado)' if evento.ignorado else ''}", style=STYLES.get(evento.estado, ""))


def of_steps(steps: Sequence[Step]) -> Table:
    """Lay out the state of an event for each subscriber."""
    table = _table("grupo", "suscriptor", "estado", "what happened")
    for step in steps:
        table.add_row(
            clean(step.grupo), clean(step.suscriptor), Text(step.estado, style=STYLES.get(step.estado, "")),
            clean(story_of(step), lines=False),
        )  # fmt: skip
    return table


def story_of(step: Step) -> str:
    """Describe briefly what became of an event for one subscriber."""
    failed = f"{step.fallos} failed {'attempt' if step.fallos == 1 else 'attempts'}"
    waiting = f"{failed}, next {ago(step.proximo_en)}" + (f": {step.error}" if step.error else "")
    return {
        "pendiente": waiting if step.proximo_en is not None else "not claimed yet",
        "en_proceso": f"in the hands of {step.trabajador} (lote {step.lote})",
        "procesado": f"done after {failed}" if step.fallos else "done",
        "error": f"given up after {failed}: {step.error}",
        "descartado": f"given up by hand after {failed}",
        "ignorado": "nobody handled it",
        "anterior": "published before this group existed",
    }[step.estado]


def of_detail(detail: Detail) -> RenderableType:
    """Lay out everything known about an event."""
    evento = detail.evento
    facts = Table.grid(padding=(0, 2))
    for name in ("prioridad", "clave", "id_externo", "causa", "correlacion", "intentos", "ultimo_error"):
        value = getattr(evento, name)
        if value is not None:
            facts.add_row(Text(name, style="dim"), clean(str(value)))
    facts.add_row(
        Text("creado_en", style="dim"), f"{evento.creado_en:%Y-%m-%d %H:%M:%S.%f %Z} ({ago(evento.creado_en)})"
    )
    if evento.procesado_en is not None:
        took = (evento.procesado_en - evento.creado_en).total_seconds()
        facts.add_row(
            Text("procesado_en", style="dim"), f"{evento.procesado_en:%Y-%m-%d %H:%M:%S.%f %Z} (after {took:.3f} s)"
        )
    title = Text(f"Event {evento.id}  ", style="bold").append(clean(f"{evento.origen}/{evento.tipo}"))
    parts: list[RenderableType] = [title.append("  ").append(state_of(evento)), facts]
    for name in ("payload", "cabeceras"):
        value = getattr(evento, name)
        if value is not None:
            parts += ["", Text(name, style="bold"), clean(json.dumps(value, indent=2, ensure_ascii=False))]
    if evento.cuerpo is not None:
        parts += [
            "",
            Text("cuerpo", style="bold").append(f", {len(evento.cuerpo)} bytes as they came", style="default"),
        ]
        if evento.payload is None:
            parts.append(f"{evento.cuerpo[:SHOWN_BYTES]!r}{'...' if len(evento.cuerpo) > SHOWN_BYTES else ''}")
    return Group(*parts, "", of_steps(detail.camino), *_of_failures(detail.fallos))


def _of_failures(failures: Sequence[FailureRow]) -> list[RenderableType]:
    """Lay out failed attempts; of the attempts with the same traceback only the first shows it."""
    parts: list[RenderableType] = []
    shown: dict[str, str] = {}
    for failed in failures:
        what = f"after attempt {failed.intento}" if failed.descartada else f"attempt {failed.intento}"
        which = f"{failed.grupo}/{failed.suscriptor}, {what}"
        title = Text(f"{failed.ocurrido_en:%Y-%m-%d %H:%M:%S %Z}  ", style="bold")
        title.append(clean(which))
        title.append(clean(f", worker {failed.trabajador}" if failed.trabajador else "").plain, style="dim")
        traza = failed.traza or ""
        parts += ["", title]
        if traza in shown or failed.error not in traza:  # a traceback is that of its cause's first failure
            parts.append(clean(failed.error))
        if traza in shown:
            parts.append(Text(f"The traceback is that of {shown[traza]}.", style="dim"))
        elif traza:
            shown[traza] = which
            parts.append(clean(traza))
    return parts


def of_rejected(page: quarantine.RejectedPage) -> RenderableType:
    """Lay out refused deliveries, one a line."""
    if not page.rechazados:
        return Text("No delivery was refused.")
    table = _table("id >", "origen", "received", "reason", "bytes >", "why")
    for row in page.rechazados:
        table.add_row(
            str(row.id), clean(row.origen), ago(row.recibido_en), clean(row.razon),
            str(row.tamano), clean(row.causa or row.detalle, lines=False),
        )  # fmt: skip
    if page.siguiente is None:
        return table
    return Group(table, Text(f"There are more: --before {page.siguiente}", style="dim"))


def ago(moment: datetime | None) -> str:
    """Return how long ago a moment was, or how far ahead it is, by this machine's clock."""
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    size = abs(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if size >= 2 * length:
            text = f"{size / length:.0f} {unit}"
            break
    else:
        text = f"{size:.0f} s"
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def clean(text: str | None, *, lines: bool = True) -> Text:
    """Return text without control characters; ``lines=False``: as one line, cut at the width."""
    if text is None:
        return Text("")
    kept = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text.replace("\t", "    "))
    return Text(kept) if lines else Text(" ".join(kept.split()), no_wrap=True, overflow="ellipsis")


def _table(*columns: str) -> Table:
    """Make a table; a column whose name ends in ">" holds numbers, and the last one is cut where the line ends."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        last = i == len(columns) - 1 and not name.endswith(">")
        table.add_column(
            name.removesuffix(" >"),
            justify="right" if name.endswith(">") else "left",
            no_wrap=not last,  # rich makes room by narrowing what may be wrapped, and only then everything
            overflow="ellipsis" if last else "fold",
        )
    return table


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no place in JSON")
