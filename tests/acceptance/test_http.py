"""The inbox as the world sees it: uvicorn in a process of its own, sockets, and processes that die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Final, Protocol, Self, TypeVar

import httpx
import psycopg
import pytest
import stripe

from cauce.database import schema
from cauce.embedded import EmbeddedPostgres
from cauce.testing import Database, wait_for

T = TypeVar("T")

SECRET: Final = "whsec_acceptance"
CAP: Final = 1_048_576
TAKEN_BY_SOCKETS: Final = 24 * CAP
"""Bytes that the kernel's buffers of a loopback connection may take in without anybody reading (tcp_rmem, tcp_wmem)."""
STOP_SECONDS: Final = 30.0

SERVE: Final = """
import asyncio, socket, sys
from typing import Any
import uvicorn
from cauce import Bus, Catalog, EventHandlers, EventType, Settings
from cauce.web import create_app

class StripeEvents(Catalog, origen="stripe"):
    t = EventType("t", dict[str, Any])

async def t(evento): ...

bus = Bus(catalogs=[StripeEvents], event_handlers=EventHandlers(StripeEvents.t.handled_by(t)))
app = create_app(bus, Settings())
config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


class Service:
    """The application behind a listening socket that outlives its processes: who connects meanwhile waits."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a process."""
        descriptor = self.listener.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(descriptor)],
            pass_fds=[descriptor],
            env={
                **os.environ,
                "DATABASE_URL": self.dsn,
                "STRIPE_WEBHOOK_SECRET": SECRET,
                "CRON_SECRET": "cron secret",
            },
        )

    def end(self, how: signal.Signals) -> int:
        """End it, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(STOP_SECONDS)

    def url(self, path: str = "/api/webhooks/stripe") -> str:
        """An address."""
        return f"http://127.0.0.1:{self.address[1]}{path}"

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.listener.close()


@pytest.fixture
def service(db: Database) -> Iterator[Service]:
    """The application, on a fresh database."""
    with Service(db.dsn) as service:
        yield service


def sign(body: bytes) -> dict[str, str]:
    """Sign as Stripe does."""
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET)
    return {"stripe-signature": header, "content-type": "application/json"}


def stored(dsn: str) -> list[str]:
    """Return the ids of the events in the table."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return [row[0] for row in conn.execute("select id_externo from cauce.eventos order by id")]


def test_a_webhook_is_received_and_processed(service: Service) -> None:
    """Over real HTTP: accepted, repeated, refused, processed by the cron's call, and the service is well."""
    body = b'{"id": "evt_1", "type": "t"}'
    with httpx.Client(timeout=STOP_SECONDS) as client:
        first = client.post(service.url(), content=body, headers=sign(body))
        second = client.post(service.url(), content=body, headers=sign(body))
        bad = client.post(service.url(), content=body + b" ", headers=sign(body))
        lote = client.get(
            service.url("/api/trabajadores/procesar_lote"), headers={"authorization": "Bearer cron secret"}
        )
        health = client.get(service.url("/api/salud"))
        head = client.head(service.url())
    assert [first.json()["duplicado"], second.json()["duplicado"]] == [False, True]
    assert (bad.status_code, bad.json()["error"]) == (400, "firma_invalida")
    assert lote.json()["procesados"] == 1
    assert (health.status_code, health.json()["estado"]) == (200, "bien")
    assert (head.status_code, head.headers["allow"]) == (405, "POST")
    assert stored(service.dsn) == ["evt_1"]


class Write(Protocol):
    """Sends one piece of a body."""

    def __call__(self, sock: socket.socket, piece: bytes) -> None:
        """Send it."""


def chunked(sock: socket.socket, piece: bytes) -> None:
    """Send a chunk."""
    sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))


def plain(sock: socket.socket, piece: bytes) -> None:
    """Send bytes of a body with a length."""
    sock.sendall(piece)


@pytest.mark.parametrize(
    ("framing", "write"),
    [(b"transfer-encoding: chunked", chunked), (b"content-length: 104857600", plain)],
    ids=["chunked", "plain"],
)
def test_a_hundred_megabytes_are_refused_unread(service: Service, framing: bytes, write: Write) -> None:
    """The server answers 413 and hangs up; only what the kernel's buffers hold was ever sent."""
    sent = 0
    with socket.create_connection(service.address, timeout=STOP_SECONDS) as sock:
        sock.sendall(b"POST /api/webhooks/stripe HTTP/1.1\r\nhost: localhost\r\n" + framing + b"\r\n\r\n")
        try:
            while sent < 100 * CAP:
                write(sock, b"x" * 65_536)
                sent += 65_536
        except OSError:
            pass  # it hung up
        assert sent < TAKEN_BY_SOCKETS
        answer = sock.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b"cuerpo_demasiado_grande" in answer
    assert stored(service.dsn) == []


FLOOD: Final = 200
"""Oversized bodies; `make bench` sends ten thousand."""
AT_ONCE: Final = 8


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's peak of memory is read from /proc")
def test_oversized_bodies_leave_nothing_behind(service: Service) -> None:
    """Declared or in chunks, they are refused, and the process never holds more than twice what is under way."""
    head = b"POST /api/webhooks/stripe HTTP/1.1\r\nhost: localhost\r\n"
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    floods = [
        head + b"content-length: 104857600\r\n\r\n" + b"x" * 65_536,
        head + b"transfer-encoding: chunked\r\n\r\n" + piece * 64 + b"0\r\n\r\n",
    ]
    todo = iter(floods * (FLOOD // 2))
    answers: list[bytes] = []

    async def send() -> None:
        for flood in todo:
            reader, writer = await asyncio.open_connection(*service.address)
            with contextlib.suppress(ConnectionError):  # it may hang up before its answer is read
                writer.write(flood)
                answers.append((await reader.read())[:13])
            writer.close()

    async def send_all() -> None:
        await asyncio.gather(*(send() for _ in range(AT_ONCE)))

    assert httpx.post(service.url(), content=b"{}", headers=sign(b"{}"), timeout=STOP_SECONDS).status_code == 200
    before = memory(service, "VmRSS")
    asyncio.run(send_all())
    assert set(answers) <= {b"HTTP/1.1 413 ", b""}
    assert b"HTTP/1.1 413 " in answers
    assert memory(service, "VmHWM") - before < 2 * AT_ONCE * CAP
    assert len(stored(service.dsn)) == 1


def memory(service: Service, name: str) -> int:
    """Return bytes, now or at most."""
    assert service.process is not None
    lines = Path(f"/proc/{service.process.pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def test_a_body_in_chunks_is_accepted(service: Service) -> None:
    """A sender that does not say the length beforehand is a sender like any other."""
    body = json.dumps({"id": "evt_1", "type": "t", "text": "x" * 300_000}).encode()
    pieces = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    answer = httpx.post(service.url(), content=pieces, headers=sign(body), timeout=STOP_SECONDS)
    assert (answer.status_code, answer.request.headers["transfer-encoding"]) == (200, "chunked")
    assert stored(service.dsn) == ["evt_1"]


def test_a_service_that_is_asked_to_stop_finishes_what_it_began(service: Service) -> None:
    """A delivery that waits for the database while SIGTERM comes is stored and answered."""
    body = b'{"id": "evt_1", "type": "t"}'

    async def work() -> int:
        async with httpx.AsyncClient(timeout=STOP_SECONDS) as client:
            async with await psycopg.AsyncConnection.connect(service.dsn) as holder:
                await holder.execute("lock table cauce.eventos in access exclusive mode")
                post = asyncio.ensure_future(client.post(service.url(), content=body, headers=sign(body)))
                await asyncio.to_thread(wait_for, lambda: waits_for_a_lock(service.dsn))
                assert service.process is not None
                service.process.send_signal(signal.SIGTERM)
            return (await post).status_code

    assert asyncio.run(work()) == 200
    assert service.process is not None
    assert service.process.wait(STOP_SECONDS) in (0, -signal.SIGTERM)
    assert stored(service.dsn) == ["evt_1"]


def waits_for_a_lock(dsn: str) -> bool:
    """Whether some statement waits."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        query = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        return conn.execute(query).fetchone() is not None


class Sender:
    """Sends events all at once, each until it is answered 200: as Stripe does, though not for three days."""

    def __init__(self, service: Service, events: int) -> None:
        self._service = service
        self.names = [f"evt_{number}" for number in range(events)]
        self.accepted: dict[str, int] = {}
        """The id that each event was answered with."""
        self.failures = 0
        self._progress = asyncio.Condition()

    async def run(self) -> None:
        """Send them all."""
        await self._all(self._until_accepted)

    async def repeat(self) -> list[tuple[str, int, bool]]:
        """Send each once more; return its name, the id in the answer, and whether that calls it a duplicate."""

        async def again(name: str, sockets: asyncio.Semaphore) -> tuple[str, int, bool]:
            _, answer = await self._post(name, sockets)
            found = json.loads(answer.partition(b"\r\n\r\n")[2])
            return name, found["id"], found["duplicado"]

        return await self._all(again)

    async def until(self, accepted: int) -> None:
        """Wait until so many are accepted."""
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.accepted) >= accepted)

    async def _all(self, send: Callable[[str, asyncio.Semaphore], Coroutine[None, None, T]]) -> list[T]:
        sockets = asyncio.Semaphore(CONNECTIONS)
        async with asyncio.timeout(RETRY_SECONDS), asyncio.TaskGroup() as group:
            tasks = [group.create_task(send(name, sockets)) for name in self.names]
        return [task.result() for task in tasks]

    async def _post(self, name: str, sockets: asyncio.Semaphore) -> tuple[int, bytes]:
        """Post once, on a connection of its own and signed anew; return the status and the whole answer.

        Raises:
            OSError: there is none, or the server died in the middle of it.
        """
        body = json.dumps({"id": name, "type": "t", "text": name * 100}).encode()
        fields = {**sign(body), "host": "localhost", "content-length": str(len(body)), "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        async with sockets:
            reader, writer = await asyncio.open_connection(*self._service.address)
            try:
                writer.write(f"POST /api/webhooks/stripe HTTP/1.1\r\n{head}\r\n".encode() + body)
                answer = await reader.read()
            finally:
                writer.close()
        start, _, content = answer.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", start)
        if length is None or len(content) < int(length[1]):
            raise ConnectionError("it hung up")
        return int(answer[9:12]), answer

    async def _until_accepted(self, name: str, sockets: asyncio.Semaphore) -> None:
        pause = 0.05
        while True:
            with contextlib.suppress(OSError):
                status, answer = await self._post(name, sockets)
                if status == 200:
                    async with self._progress:
                        self.accepted[name] = json.loads(answer.partition(b"\r\n\r\n")[2])["id"]
                        self._progress.notify_all()
                    return
                assert status == 503, answer
                assert b"\r\nretry-after: 10\r\n" in answer
            self.failures += 1
            await asyncio.sleep(pause)  # the sender's own pause: it plays a provider that retries
            pause = min(2 * pause, 1.0)


EVENTS: Final = 1000
"""Sent at once."""
CONNECTIONS: Final = 128
"""Sockets of the sender that are open at once."""
RETRY_SECONDS: Final = 120.0
"""Seconds after which the sender gives up."""


def check_all_stored_once(dsn: str, sender: Sender) -> None:
    """What was accepted is in the table under the id that was answered, once; sent again, it is a duplicate."""
    assert len(sender.accepted) == EVENTS
    with psycopg.connect(dsn, autocommit=True) as conn:
        rows = conn.execute("select id_externo, id from cauce.eventos").fetchall()
    assert sorted(rows) == sorted(sender.accepted.items())
    assert asyncio.run(sender.repeat()) == [(name, sender.accepted[name], True) for name in sender.names]
    assert len(stored(dsn)) == EVENTS


def test_a_server_killed_in_the_middle_loses_nothing(service: Service) -> None:
    """SIGKILL four times among a thousand concurrent deliveries: every event is stored exactly once."""

    async def work() -> Sender:
        sender = Sender(service, EVENTS)
        async with asyncio.TaskGroup() as group:
            group.create_task(sender.run())
            for kills in range(1, 5):
                await sender.until(kills * EVENTS // 5)
                assert await asyncio.to_thread(service.end, signal.SIGKILL) == -signal.SIGKILL
                service.start()
        return sender

    sender = asyncio.run(work())
    assert sender.failures > 0
    check_all_stored_once(service.dsn, sender)


def test_a_database_crashed_in_the_middle_loses_nothing() -> None:
    """PostgreSQL crashes and recovers, twice, among a thousand deliveries: every event is stored exactly once."""

    async def work(server: EmbeddedPostgres, service: Service) -> Sender:
        sender = Sender(service, EVENTS)
        async with asyncio.TaskGroup() as group:
            group.create_task(sender.run())
            for crashes in (1, 2):
                await sender.until(crashes * EVENTS // 3)
                await asyncio.to_thread(server.stop, "immediate")
                await wait_for_failure(sender)
                await asyncio.to_thread(server.start)
        return sender

    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            schema.migrate(conn)
        with Service(server.dsn) as service:
            check_all_stored_once(server.dsn, asyncio.run(work(server, service)))


async def wait_for_failure(sender: Sender) -> None:
    """Wait until one more delivery has failed."""
    failures = sender.failures
    await asyncio.to_thread(wait_for, lambda: sender.failures > failures)
