"""The inbox: deliveries stored a second and how long each takes, beside the smallest handlers; memory under floods.

All are served by uvicorn in a process of their own; thirty-two senders keep their connections and wait for each
answer.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import psutil
import psycopg
import uvloop

from benchmarks.draining import number
from benchmarks.latency import percentile
from benchmarks.load import Load, deliver, shoot
from benchmarks.processes import LOG, STOP_SECONDS, TOP
from benchmarks.results import Bar, BenchError, Comparison
from benchmarks.web import PATH, SECRET
from cauce.config import Settings
from cauce.webhooks import PROVIDERS, Secret
from cauce.webhooks.raw import write_request
from cauce.webhooks.trying.samples import samples_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.plan import Plan
    from benchmarks.server import Server, Side
    from cauce.webhooks.payload import JsonValue

App = Literal["cauce", "pool", "bare"]
"""The applications that benchmarks.web serves."""
PARALLEL: Final = 32
"""Concurrent deliveries."""
WARM: Final = 500
"""Warm-up deliveries: they open connections, fill caches and prepare statements."""
LINES: Final = 4
"""Lines of the invoice that is delivered: 2.5 kB with Stripe's indentation."""
BUSY: Final = 0.5
"""The sender's share of a core above which the sender would be the bottleneck."""
SHARE: Final = 0.85
"""Of the floor's rate that the inbox must reach; its 99th percentile may be as much longer."""
MIB: Final = 2**20
FLOODS: Final = 8
"""Concurrent oversized bodies. The server may hold each up to the limit before it is found to be too long."""
MEMORY_BAR: Final = 2 * FLOODS
"""MiB that the process may grow: what it may hold at once, and as much again for the allocator. A leak of
2 kB a body would pass it within the ten thousand, and a server that buffered what it refuses at once."""
PIECE: Final = 65_536
"""Bytes of a chunk."""

KEPT: Final = {"cauce": "select count(*) from cauce.eventos", "floor": "select count(*) from recibidos"}


@dataclass(frozen=True, slots=True)
class Served:
    """A process that serves one application."""

    pid: int
    port: int
    loop: str
    http: str

    def memory(self) -> tuple[int, int]:
        """Return the bytes of memory it has now, and had at most.

        Raises:
            BenchError: this system does not say.
        """
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError as error:
            raise BenchError(f"the memory of a process is read from /proc, and here: {error}") from error
        said = dict(line.split(":", 1) for line in lines)
        return int(said["VmRSS"].split()[0]) * 1024, int(said["VmHWM"].split()[0]) * 1024

    def cpu(self) -> float:
        """Return the CPU seconds it has used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def forget_peak(self) -> None:
        """Count the peak from now on; where that is not allowed, the peak of its start counts too."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class Measured:
    """A load, and what it took of the process that served it."""

    load: Load
    cpu: float
    """Microseconds a delivery."""
    loop: str
    http: str


def run(server: Server, plan: Plan) -> Iterator[Comparison]:
    """Measure rate and 99th percentile beside both floors, and memory."""
    sides: dict[App, list[Measured]] = {"cauce": [], "pool": [], "bare": []}
    for _ in range(plan.repetitions):
        for app, measured in sides.items():
            measured.append(measure(server, app, plan.deliveries))
    more = {
        "uvicorn": {"loop": sides["cauce"][0].loop, "http": sides["cauce"][0].http},
        "server_cpu_us_per_delivery": {app: [one.cpu for one in measured] for app, measured in sides.items()},
        "sender_cpu": {app: [one.load.cpu for one in measured] for app, measured in sides.items()},
    }
    what = f"signed deliveries of 2.5 kB, {PARALLEL} at once"
    for app, phase, said in (
        ("pool", "inbox", "Starlette, hmac, psycopg's pool, one INSERT in a transaction"),
        ("bare", "inbox_bare", "Starlette, hmac, eight connections in autocommit, one INSERT"),
    ):
        rates, times = ([getter(one.load) for one in sides[app]] for getter in (rate_of, p99_of))
        yield Comparison(
            phase, f"{what}, stored and answered; floor: {app}", "events/s", Bar("at least", SHARE),
            [rate_of(one.load) for one in sides["cauce"]], rates, said, more,
        )  # fmt: skip
        yield Comparison(
            f"{phase}_p99", f"{what}, 99th percentile; floor: {app}", "ms", Bar("at most", round(1 / SHARE, 3)),
            [p99_of(one.load) for one in sides["cauce"]], times, said, more,
        )  # fmt: skip
    yield flood(server, plan.floods)


def rate_of(load: Load) -> float:
    """Return the deliveries a second."""
    return load.rate


def p99_of(load: Load) -> float:
    """Return the milliseconds that one delivery in a hundred exceeds."""
    return percentile(load.times, 0.99)


def measure(server: Server, app: App, deliveries: int) -> Measured:
    """Deliver to one application, in a fresh database.

    Raises:
        BenchError: not every delivery is in the table, or the sender was too busy for the numbers to mean anything.
    """
    side: Side = "cauce" if app == "cauce" else "floor"
    with server.database(side) as dsn, serving(app, dsn) as served:
        uvloop.run(deliver(served.port, signed(0, WARM), PARALLEL))
        requests, cpu = signed(WARM, deliveries), served.cpu()
        load = uvloop.run(deliver(served.port, requests, PARALLEL))
        cpu = (served.cpu() - cpu) / deliveries * 1e6
        with psycopg.connect(dsn, autocommit=True) as conn:
            kept = number(conn, KEPT[side])
    if kept != WARM + deliveries:
        raise BenchError(f"{app}: {WARM + deliveries} deliveries were answered 200, and {kept} are in the table")
    if load.cpu > BUSY:
        raise BenchError(f"{app}: the sender used {load.cpu:.0%} of a core; this would be its own speed")
    return Measured(load, cpu, served.loop, served.http)


def signed(first: int, count: int) -> list[bytes]:
    """Sign so many invoices, each with an id of its own, as bytes to send."""
    provider, now = PROVIDERS["stripe"], time.time()
    sample = samples_of("stripe")["invoice.paid"]
    line: JsonValue = {
        "id": "il_1NG8Du2eZvKYlo2", "object": "line_item", "amount": 1200, "currency": "eur", "description": "1 x Club",
        "discounts": [], "metadata": {}, "period": {"end": 1766592000, "start": 1764000000}, "quantity": 1,
    }  # fmt: skip
    changes: list[tuple[str, JsonValue]] = [("data.object.lines.data", [line] * LINES)]
    requests: list[bytes] = []
    for one in range(first, first + count):
        draft = sample.draft(provider, f"http://127.0.0.1{PATH}", f"{one:08}{'7' * 24}", now, changes)
        requests.append(write_request(provider.sign(draft, Secret(SECRET), now)))
    return requests


def flood(server: Server, bodies: int) -> Comparison:
    """Measure how far the process grows under bodies past the cap, half of them declared and half in chunks.

    Raises:
        BenchError: one was answered otherwise than by 413 or by hanging up, or something was stored.
    """
    cap = Settings().max_body_bytes
    with server.database("cauce") as dsn, serving("cauce", dsn) as served:
        uvloop.run(deliver(served.port, signed(0, WARM), PARALLEL))
        served.forget_peak()
        before, _ = served.memory()
        answers = uvloop.run(shoot(served.port, [declared(cap), chunked(cap)] * (bodies // 2), FLOODS))
        after, peak = served.memory()
        with psycopg.connect(dsn, autocommit=True) as conn:
            kept = number(conn, KEPT["cauce"])
    if set(answers) - {413, 0} or not answers[413] or kept != WARM:
        raise BenchError(f"oversized bodies were answered {dict(answers)}, and {kept - WARM} of them stored")
    return Comparison(
        "inbox_mem", f"growth of the process under {bodies:,} bodies past the cap, {FLOODS} at once", "MiB",
        Bar("at most", MEMORY_BAR, "ours"), [(peak - before) / MIB], [FLOODS * cap / MIB],
        "what so many senders may have in its hands",
        {
            "rss_mib": {"before": before / MIB, "after": after / MIB, "peak": peak / MIB},
            "answers": {"413": answers[413], "hung up": answers[0]},
        },
    )  # fmt: skip


def declared(cap: int) -> bytes:
    """Return a request that says that its body is a hundred times too long, and begins to send it."""
    return _head(f"content-length: {100 * cap}") + b"x" * PIECE


def chunked(cap: int) -> bytes:
    """Return a request that does not say how long its body is: four times the cap, so that keeping it would show."""
    piece = b"%x\r\n%s\r\n" % (PIECE, b"x" * PIECE)
    return _head("transfer-encoding: chunked") + piece * (4 * cap // PIECE) + b"0\r\n\r\n"


def _head(framing: str) -> bytes:
    return f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nstripe-signature: t=1,v1=0\r\n{framing}\r\n\r\n".encode()


@contextlib.contextmanager
def serving(app: App, dsn: str) -> Iterator[Served]:
    """Serve one application in a process of its own."""
    LOG.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.web", app, dsn]
    with LOG.open("ab") as log, subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else b""
            if not line:
                raise BenchError(f"{app}: the server ended before it listened; see {LOG}")
            yield Served(process.pid, **json.loads(line))
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
