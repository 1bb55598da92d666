"""``python -m benchmarks``: measure, print, write ``build/bench.json``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import (
    application,
    crowd,
    draining,
    failing,
    held,
    idle,
    inbox,
    kept,
    latency,
    libraries,
    profiling,
    publishing,
    straggler,
    waiting,
)
from benchmarks.plan import QUICK, Plan
from benchmarks.processes import LOG, TOP
from benchmarks.results import HEAD, BenchError, Comparison, save, say
from benchmarks.server import QUICK_SETTINGS, Server, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


PHASES: Final[dict[str, Callable[[Server, Plan], Iterator[Comparison]]]] = {
    "publish": publishing.run,
    "drain": draining.run,
    "latency": latency.run,
    "wal": draining.run_wal,
    "crowd": crowd.run,
    "failing": failing.run,
    "handlers": waiting.run,
    "idle": idle.run,
    "held": held.run,
    "straggler": straggler.run,
    "kept": kept.run,
    "inbox": inbox.run,
    "libraries": libraries.run,
}
"""By name. A phase may give several lines of the table."""
PACKAGES: Final = (
    "cauce",
    "psycopg",
    "psycopg-binary",
    "pydantic",
    "uvloop",
    "asyncpg",
    "starlette",
    "uvicorn",
    "psycopg2-binary",
    "sqlalchemy",
    "django",
)


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    arguments = parse()
    plan = plan_of(arguments)
    profile = arguments.command == "profile"
    extra = {**(profiling.EXTRA_SETTINGS if profile else {}), **(QUICK_SETTINGS if arguments.quick else {})}
    url = arguments.database_url
    with serve(url, extra) as server:
        machine = environment(server, plan)
        for name, value in machine.items():
            say(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
        say()
        if profile:
            profiling.run(server, plan.events, statements=not url)
            return 0
        return measure(server, plan, arguments.phases, arguments.output)


def measure(server: Server, plan: Plan, phases: list[str], output: Path) -> int:
    """Run the phases; print each line when it is known, and the whole table at the end."""
    comparisons: list[Comparison] = []
    failed = False
    say(HEAD)
    for name in phases:
        try:
            for comparison in PHASES[name](server, plan):
                comparisons.append(comparison)
                say(comparison.line())
                save(comparisons, output)
        except BenchError as error:
            failed = True
            say(f"{name}: {error}")
    say()
    say(f"written to {output}")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["measure", "profile"], default="measure")
    parser.add_argument(
        "--phases", type=lambda text: text.split(","), default=list(PHASES), help=f"of {','.join(PHASES)}"
    )
    parser.add_argument("--database-url", default="", help="a server to use, as a superuser; by default one of its own")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that the benchmarks work, no more")
    parser.add_argument("--repetitions", type=int, help="pairs of measurements a phase (3)")
    parser.add_argument("--events", type=int, help="of C, D1, D2 and the drains of the million (50000)")
    parser.add_argument("--claims", type=int, help="under each holder (100000)")
    parser.add_argument("--rows", type=int, help="uncommitted, kept, waiting (1000000)")
    parser.add_argument("--output", type=Path, default=TOP / "build" / "bench.json")
    arguments = parser.parse_args()
    unknown = set(arguments.phases) - set(PHASES)
    if unknown:
        parser.error(f"no phase {', '.join(sorted(unknown))}; there are {', '.join(PHASES)}")
    return arguments


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Return the sizes that the command line asks for."""
    given = {
        name: value
        for name in ("repetitions", "events", "claims", "rows")
        if (value := getattr(arguments, name)) is not None
    }
    return replace(QUICK if arguments.quick else Plan(), **given)


def environment(server: Server, plan: Plan) -> dict[str, Any]:
    """Return what the numbers depend on."""
    settings = application.settings(server.url)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {_memory()}, {_processor()}, {platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "server": server.settings(),
        "plan": {name: getattr(plan, name) for name in plan.__slots__},
        "features": {
            "retries": f"on, {settings.max_attempts} attempts",
            "leases": f"{settings.lease_seconds:g} s",
            "heartbeat": "on, in a thread and a connection of its own",
            "time limits": f"on, {settings.handler_timeout_seconds:g} s a handler",
            "validation": "on, pydantic, of every payload published and handled",
            "batch": settings.batch_size,
            "slots": settings.slots,
            "loop": "uvloop, ours and the floor's",
        },
        "log": str(LOG.relative_to(TOP)),
    }


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


if __name__ == "__main__":
    sys.exit(main())
