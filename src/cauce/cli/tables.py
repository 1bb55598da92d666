"""How things look on a terminal, and as JSON."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.json import JSON
from rich.table import Table

if TYPE_CHECKING:
    from cauce.operations import Detail, Page, Status

STYLES: Final = {"procesado": "green", "error": "red", "en_proceso": "yellow", "pendiente": "cyan"}
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def print_json(value: object) -> None:
    """Print a value as one JSON document; times as ISO 8601, bytes as base64."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    print(json.dumps(plain, default=_plain, ensure_ascii=False, indent=2))


def print_status(seen: Status) -> None:
    """Print the state of the bus."""
    out = Console()
    states = Table(title="events", title_justify="left")
    for name in ("pendiente", "en_proceso", "procesado", "error"):
        states.add_column(name, justify="right", style=STYLES[name])
    counts = (seen.estados.pendiente, seen.estados.en_proceso, seen.estados.procesado, seen.estados.error)
    states.add_row(*(count_text(count, seen.tope) for count in counts))
    out.print(states)
    groups = Table("group", title="groups", title_justify="left")
    for name in ("waiting", "oldest", "batches", "in hand", "to retry", "dead"):
        groups.add_column(name, justify="right")
    for group in seen.grupos:
        lanes = [lag for lag in seen.retraso if lag.grupo == group.grupo]
        oldest = min((lag.desde for lag in lanes if lag.desde), default=None)
        numbers = (group.lotes, group.en_mano, group.reintentos, group.muertas)
        waiting = count_text(sum(lag.pendientes for lag in lanes), seen.tope)
        groups.add_row(group.grupo, waiting, age_text(oldest), *(count_text(number, seen.tope) for number in numbers))
        for lag in lanes:
            if lag.pendientes:
                groups.add_row(f"  lane {lag.carril}", count_text(lag.pendientes, seen.tope), age_text(lag.desde))
    out.print(groups)
    workers = Table("worker", "groups", "host", "pid", "seen", title="workers", title_justify="left")
    for worker in seen.trabajadores:
        workers.add_row(
            worker.trabajador, ", ".join(worker.grupos), worker.maquina, str(worker.pid),
            f"{age_text(worker.visto_en)} ago" + ("" if worker.vivo else ", silent"),
            style=None if worker.vivo else "dim",
        )  # fmt: skip
    out.print(workers if seen.trabajadores else "no worker has been seen in the last hour")


def print_events(page: Page) -> None:
    """Print a page of events."""
    table = Table("id", "origen", "tipo", "clave", "estado", "intentos", "age", "ultimo_error")
    for evento in page.eventos:
        table.add_row(
            str(evento.id), evento.origen, evento.tipo, evento.clave or "", state_text(evento.estado, evento.ignorado),
            str(evento.intentos), age_text(evento.creado_en), (evento.ultimo_error or "").splitlines()[0][:80]
            if evento.ultimo_error else "",
        )  # fmt: skip
    out = Console()
    out.print(table if page.eventos else "no event matches")
    if page.siguiente is not None:
        out.print(f"older ones: --before {page.siguiente}")


def print_detail(detail: Detail) -> None:
    """Print all of one event."""
    evento, out = detail.evento, Console()
    out.print(
        f"[bold]event {evento.id}[/] {evento.origen}/{evento.tipo}: {state_text(evento.estado, evento.ignorado)},"
        f" {evento.intentos} attempts, published {age_text(evento.creado_en)} ago"
    )
    for name in ("clave", "id_externo", "procesado_en", "ultimo_error"):
        if getattr(evento, name) is not None:
            out.print(f"{name}: {getattr(evento, name)}", markup=False, highlight=False)
    journey = Table("group", "subscriber", "estado", "failed", "due", "held by", "error")
    for step in detail.camino:
        journey.add_row(
            step.grupo, step.suscriptor, state_text(step.estado), str(step.fallos),
            f"{step.proximo_en:%H:%M:%S}" if step.proximo_en else "", step.trabajador or "",
            (step.error or "").splitlines()[0][:80] if step.error else "",
        )  # fmt: skip
    out.print(journey)
    if evento.payload is not None:
        out.print(JSON.from_data(evento.payload, default=str))
    if evento.cuerpo is not None:
        out.print(f"cuerpo: {len(evento.cuerpo)} bytes that are no JSON: {evento.cuerpo[:200]!r}", markup=False)
    for failure in detail.fallos:
        out.rule(f"{failure.suscriptor} of {failure.grupo}, attempt {failure.intento}, {failure.ocurrido_en:%F %T}")
        out.print(failure.traza or failure.error, markup=False, highlight=False)


def count_text(count: int | None, cap: int) -> str:
    """Say a count that stops at a cap."""
    if count is None:
        return "?"
    return f"{cap:,}+" if count >= cap else f"{count:,}"


def state_text(estado: str, ignorado: bool = False) -> str:  # noqa: FBT001, FBT002 - the column beside it
    """Colour a state."""
    style = STYLES.get(estado, "dim")
    return f"[{style}]{estado}[/]" + (" (ignorado)" if ignorado else "")


def age_text(since: datetime | None) -> str:
    """Say how long ago, in the largest unit that fits."""
    if since is None:
        return ""
    seconds = (datetime.now(UTC) - since).total_seconds()
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
