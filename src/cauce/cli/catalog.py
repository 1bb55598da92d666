"""``cauce catalog``: describe a bus's events, compare them with an older description, and check what is stored."""

from __future__ import annotations

import json as jsonlib
import sys
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - the command line is made from the annotations
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cauce.cli import codes
from cauce.cli.loading import load_bus, load_settings
from cauce.cli.tables import as_json, clean, complain
from cauce.contract import described
from cauce.contract.differences import Difference, Veredicto, compare
from cauce.database.connecting import connect
from cauce.database.retained import ends, retained
from cauce.engine.causes import message_of, one_line
from cauce.payloads import version_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cauce.bus import Bus
    from cauce.catalog import EventType
    from cauce.database.retained import Retained

EXAMPLES: Final = 5
"""Events of one type that do not decode and are listed, the first ones."""
STEP: Final = 100
"""Events between two moves of the progress bar."""

app = App(
    name="catalog",
    help="Describe a bus's events, compare them with an older version, and check what is stored.",
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
)


@app.command
def export(
    bus: str,
    /,
    *,
    format_: Annotated[Literal["jsonschema", "asyncapi"], Parameter(name="--format")] = "jsonschema",
    output: Path | None = None,
    app_dir: str = ".",
) -> int:
    """Describe the events of a bus; the same bus gives the same document.

    Args:
        bus: The application's bus, as module:name.
        format_: jsonschema (draft 2020-12, what cauce catalog diff reads) or asyncapi (3.0).
        output: The file to write; standard output by default.
        app_dir: Where modules are looked for first.
    """
    make = described.json_schema if format_ == "jsonschema" else described.asyncapi
    text = jsonlib.dumps(make(load_bus(bus, app_dir)), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
        return codes.DONE
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        return complain(f"--output: {error}")
    return codes.DONE


@app.command
def diff(old: Path, bus: str, /, *, json: bool = False, app_dir: str = ".") -> int:
    """Tell whether a bus can read what was stored under an older description; exit code 1 if not.

    Args:
        old: What cauce catalog export wrote before the change.
        bus: The application's bus, as module:name.
        json: Print JSON.
        app_dir: Where modules are looked for first.
    """
    new = described.json_schema(load_bus(bus, app_dir))
    try:
        found = compare(jsonlib.loads(old.read_text(encoding="utf-8")), new)
    except (OSError, ValueError) as error:
        return complain(f"{old}: {error}")
    broken = [one for one in found if one.veredicto is Veredicto.INCOMPATIBLE]
    if json:
        print(as_json({"compatible": not broken, "cambios": [asdict(one) for one in found]}))
    else:
        for one in found:
            print(f"{one.veredicto:<12} {clean(_line(one), lines=False).plain}")
        print(f"incompatible: {len(broken)} of {len(found)} changes" if broken else "compatible with what is stored")
    return codes.NOT_DONE if broken else codes.DONE


@app.command
def check(
    bus: str,
    /,
    *,
    origen: str | None = None,
    tipo: str | None = None,
    since: datetime | None = None,
    json: bool = False,
    app_dir: str = ".",
) -> int:
    """Read every stored event as this bus would, and write nothing; exit code 1 if one cannot be read.

    Args:
        bus: The application's bus, as module:name.
        origen: Only those of this origin.
        tipo: Only those of this name.
        since: Only those published at this time or later; UTC unless it says otherwise.
        json: Print JSON.
        app_dir: Where modules are looked for first.
    """
    loaded = load_bus(bus, app_dir)
    moment = since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since
    with connect(load_settings()) as conn:
        first, last = ends(conn)
        with closing(retained(conn, origen=origen, tipo=tipo, since=moment)) as events:
            result = _check(loaded, _watched(events, first, last))
    if json:
        print(as_json(asdict(result)))
    else:
        _tell(result)
    return codes.NOT_DONE if result.ilegibles else codes.DONE


@dataclass(slots=True)
class Unread:
    """An event that cannot be read."""

    id: int
    error: str


@dataclass(slots=True)
class Checked:
    """The stored events of one type."""

    origen: str
    tipo: str
    version: int
    """The type's."""
    eventos: int = 0
    ilegibles: int = 0
    ejemplos: list[Unread] = field(default_factory=list[Unread])
    """The first that cannot be read, at most ``EXAMPLES``."""


@dataclass(slots=True)
class Check:
    """What a bus can read of the stored events."""

    eventos: int
    ilegibles: int
    tipos: list[Checked]
    desconocidos: list[dict[str, Any]]
    """Events that the bus does not have, by origin and name."""


def _check(bus: Bus, events: Iterable[Retained]) -> Check:
    """Decode events, and count by type. Those that were stored without JSON never had a payload."""
    found = {key: Checked(*key, tipo.version) for key, tipo in sorted(bus.types.items())}
    others: Counter[tuple[str, str]] = Counter()
    for event in events:
        if not event.pedido or event.payload is None:
            continue
        key = event.origen, event.tipo
        if (tipo := bus.types.get(key)) is None:
            others[key] += 1
            continue
        found[key].eventos += 1
        if (error := _unread(tipo, event.payload, event.cabeceras)) is not None:
            found[key].ilegibles += 1
            if len(found[key].ejemplos) < EXAMPLES:
                found[key].ejemplos.append(Unread(event.id, error))
    types = [one for one in found.values() if one.eventos]
    unknown = [{"origen": key[0], "tipo": key[1], "eventos": count} for key, count in sorted(others.items())]
    total = sum(one.eventos for one in types)
    return Check(total, sum(one.ilegibles for one in types), types, unknown)


def _unread(tipo: EventType[Any], payload: str, cabeceras: str | None) -> str | None:
    """Return why an event cannot be read; None if it can."""
    version = tipo.version
    try:
        headers: object = jsonlib.loads(cabeceras) if cabeceras else {}
        version = version_of(cast("dict[str, Any]", headers)) if isinstance(headers, dict) else 1
        tipo.load(payload, version)
    except Exception as error:  # noqa: BLE001 - a validator of the application may raise anything
        return one_line(tipo.why_not(error, message_of(error), version))
    return None


def _watched(events: Iterable[Retained], first: int, last: int) -> Iterable[Retained]:
    """Move a progress bar on a terminal, by the ids that were passed."""
    console = Console(file=sys.stderr)
    columns = TextColumn("checking"), BarColumn(), TaskProgressColumn(), TextColumn("event {task.fields[event]}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=max(last - first + 1, 1), event=first)
        for number, event in enumerate(events):
            if not number % STEP:
                progress.update(task, completed=event.id - first + 1, event=event.id)
            yield event


def _tell(result: Check) -> None:
    for one in result.tipos:
        said = f"{one.ilegibles:,} cannot be read" if one.ilegibles else "all can be read"
        print(clean(f"{one.origen}/{one.tipo}: {_events(one.eventos)}, {said}", lines=False).plain)
        for example in one.ejemplos:
            print(f"  event {example.id}: {clean(example.error, lines=False).plain}")
    for other in result.desconocidos:
        said = f"{other['origen']}/{other['tipo']}: {_events(other['eventos'])}, not of this bus"
        print(clean(said, lines=False).plain)
    print(f"{result.ilegibles:,} of {_events(result.eventos)} cannot be read")


def _events(count: int) -> str:
    return f"{count:,} {'event' if count == 1 else 'events'}"


def _line(one: Difference) -> str:
    where = f" {one.donde}" if one.donde else ""
    return f"{one.origen}/{one.tipo}{where} {one.cambio}"
