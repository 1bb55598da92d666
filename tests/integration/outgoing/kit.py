"""What the tests of outgoing webhooks share: a receiver down to its bytes, certificates, an event, a delivery."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPMessage
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cauce import Attempt, Evento
from cauce.outgoing import Rules, Timeouts, Webhook, new_secret

Answer: TypeAlias = "bytes | Callable[[socket.socket, Receiver], None]"
"""What a receiver does once it has read a request: send these bytes, or whatever the function does."""

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
OWN = Rules(allow_http=True, allow_private=True)
"""The rules for receivers of these tests, which are on loopback."""
SECRET = new_secret()
PATIENCE = 30.0
"""Seconds after which something awaited is held to be lost."""


class Request(NamedTuple):
    """What a receiver has got."""

    line: str
    headers: HTTPMessage
    body: bytes


class Receiver:
    """A server on 127.0.0.1 that keeps the requests it gets and answers by its script."""

    def __init__(self, script: Sequence[Answer], tls: ssl.SSLContext | None = None) -> None:
        self._script, self._tls = list(script), tls
        self.requests: list[Request] = []
        self.names: list[str | None] = []
        """The names that were asked for in the TLS handshakes (SNI)."""
        self.connections = 0
        self.ended = threading.Event()
        """Set when the other side has ended a connection that this side would have kept."""
        self.stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.names.append(name)

    def __enter__(self) -> Self:
        """Start."""
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait for every connection to end."""
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def url(self, path: str = "/eventos", host: str = "127.0.0.1") -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(conn,))
            self._threads.append(thread)
            thread.start()

    def _talk(self, conn: socket.socket) -> None:
        conn.settimeout(PATIENCE)
        with contextlib.suppress(OSError), conn:
            if self._tls is not None:
                conn = self._tls.wrap_socket(conn, server_side=True)
            with conn:
                self._serve(conn)

    def _serve(self, conn: socket.socket) -> None:
        stream = conn.makefile("rb")
        with stream:
            line = stream.readline().decode("latin-1").rstrip()
            headers = http.client.parse_headers(stream)
            body = stream.read(int(headers["content-length"]))
            self.requests.append(Request(line, headers, body))
            answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
            if isinstance(answer, bytes):
                conn.sendall(answer)
            else:
                answer(conn, self)


def status(code: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer of that status; headers are written with underscores."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {code} Whatever", *lines, f"content-length: {len(body)}"])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def drip(first: bytes, rest: bytes) -> Answer:
    """Send ``first``, and then ``rest`` over and over, until the other side has had enough."""

    def send(conn: socket.socket, receiver: Receiver) -> None:
        conn.sendall(first)
        while not receiver.stopping.wait(0.005):
            try:
                conn.sendall(rest)
            except OSError:
                receiver.ended.set()
                return

    return send


def silence(conn: socket.socket, receiver: Receiver) -> None:
    """Say nothing until the other side leaves."""
    conn.settimeout(0.01)
    while not receiver.stopping.is_set():
        try:
            if conn.recv(1) == b"":
                receiver.ended.set()
                return
        except TimeoutError:
            continue


class Authority:
    """A throwaway certificate authority."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tests")])
        self.pem = self._certificate(self._name, self._key, None).public_bytes(Encoding.PEM).decode()

    def server(self, host: str) -> ssl.SSLContext:
        """What a server needs to prove that it is ``host``."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(x509.Name([]), key, host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with TemporaryDirectory() as folder:
            path = f"{folder}/both.pem"
            with open(path, "wb") as file:  # noqa: PTH123 - the standard library wants a file here, and only here
                file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
                file.write(certificate.public_bytes(Encoding.PEM))
            context.load_cert_chain(path)
        return context

    def client(self) -> ssl.SSLContext:
        """What trusts this authority and no other."""
        return ssl.create_default_context(cadata=self.pem)

    def _certificate(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, host: str | None) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host is not None:
            alternative = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(alternative, critical=not list(name))
        return builder.sign(self._key, hashes.SHA256())


def event(id_: int = 7, payload: object = None) -> Evento[object]:
    """An event as a handler receives it."""
    moment = datetime(2026, 11, 24, 10, tzinfo=UTC)
    return Evento(id_, "reserva", "reserva.creada", {"n": 1} if payload is None else payload, 1, 5, moment)


def attempt(number: int = 1) -> Attempt:
    """What the handler is told of its attempt."""
    return Attempt(number, last=False, subscriber="socio", group="socio", idempotency_key="7:socio:socio")


def deliver(webhook: Webhook, number: int = 1) -> None:
    """Make one delivery, as a worker would."""
    asyncio.run(webhook(event(), attempt(number)))


def quick(**seconds: float) -> Timeouts:
    """Limits that do not end the test by themselves, but for those given."""
    return Timeouts(**{"connect": PATIENCE, "read": PATIENCE, "total": PATIENCE, **seconds})
