"""One HTTP request to a checked address: no redirects, no proxy, no second name resolution, a total time limit.

``http.client`` speaks the protocol, in a thread. Its timeouts restart with every byte, so a receiver that sends a byte
now and then could block a worker forever. Therefore the caller's deadline or cancellation shuts down the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Final

from cauce.outgoing.ssrf import Address, DeliveryFailed, Target
from cauce.outgoing.threads import in_thread

if TYPE_CHECKING:
    from cauce.webhooks.request import WebhookRequest

MAX_RESPONSE: Final = 2_048
"""Bytes read of the body of an error answer; the rest, and the body of a success, is not read."""
USER_AGENT: Final = "Cauce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a receiver may take, in seconds. Standard Webhooks recommends 15 to 30 in total."""

    connect: float = 5.0
    """Until an address accepts the connection, and as long again for the TLS handshake."""
    read: float = 15.0
    """Between two parts of the answer."""
    total: float = 30.0
    """For everything, name resolution included. It should be less than the handler's timeout."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The receiver's answer; ``excerpt`` has the first bytes of the body of an error."""

    status: int
    retry_after: str | None
    location: str | None
    excerpt: bytes


class Exchange:
    """One request. ``run`` blocks, so call it in a thread; ``cut`` ends it from another thread."""

    def __init__(self, target: Target, tls: ssl.SSLContext | None, timeouts: Timeouts) -> None:
        self._target, self._tls, self._timeouts = target, tls, timeouts
        self._lock = threading.Lock()
        self._twin: socket.socket | None = None
        """A duplicate of the socket. Once ``run`` has closed the first one, its descriptor may be another file's."""
        self._over = False

    def run(self, request: WebhookRequest, addresses: Callable[[], Sequence[Address]]) -> Reply:
        """Connect to the first of the addresses that accepts, send, and read the answer.

        Raises:
            DeliveryFailed: no address accepts, the certificate is not the host's, or the answer is not HTTP.
        """
        found = addresses()
        origin = self._target.origin
        headers = {**dict(request.headers), "user-agent": USER_AGENT, "connection": "close"}
        try:
            with contextlib.closing(_Pinned(self._target)) as connection:
                connection.sock = self._secured(self._connect(found))
                connection.request("POST", self._target.path, request.body, headers)
                with connection.getresponse() as response:
                    return _answer(response)
        except TimeoutError as error:
            raise DeliveryFailed(f"{origin} did not answer in time ({error})") from error
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryFailed(f"the exchange with {origin} failed: {type(error).__name__}: {error}") from error

    def cut(self) -> None:
        """End the exchange at any point; does nothing when it is over."""
        with self._lock:
            self._over = True
            twin, self._twin = self._twin, None
        if twin is not None:
            with twin, contextlib.suppress(OSError):
                twin.shutdown(socket.SHUT_RDWR)

    def _connect(self, addresses: Sequence[Address]) -> socket.socket:
        failures: list[str] = []
        for address in addresses:
            if self._over:
                break
            try:
                return socket.create_connection((str(address), self._target.port), self._timeouts.connect)
            except OSError as error:
                failures.append(f"{address}: {error}")
        raise DeliveryFailed(f"cannot connect to {self._target.origin} ({'; '.join(failures) or 'timed out'})")

    def _secured(self, plain: socket.socket) -> socket.socket:
        """Make the connection one that ``cut`` can end, and verify the host's certificate by its name."""
        try:
            self._hold(plain)
            host = self._target.host
            connected = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        connected.settimeout(self._timeouts.read)
        return connected

    def _hold(self, plain: socket.socket) -> None:
        with self._lock:
            if self._over:
                raise DeliveryFailed(f"timed out before the connection to {self._target.origin}")
            self._twin = plain.dup()


class _Pinned(http.client.HTTPConnection):
    """A connection whose socket is created elsewhere; it never connects by itself."""

    auto_open = 0

    def __init__(self, target: Target) -> None:
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.secure else 80


def is_success(status: int) -> bool:
    """2xx."""
    return status // 100 == 2  # noqa: PLR2004 - the class of codes


async def send(
    request: WebhookRequest,
    target: Target,
    addresses: Callable[[], Sequence[Address]],
    timeouts: Timeouts,
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """POST a request to a target, at the addresses that ``addresses`` finds, in a thread.

    Raises:
        DeliveryFailed: there was no answer, or not within ``timeouts.total`` seconds.
    """
    exchange = Exchange(target, (tls or public_tls()) if target.secure else None, timeouts)
    try:
        async with asyncio.timeout(timeouts.total):
            return await in_thread(lambda: exchange.run(request, addresses))
    except TimeoutError:
        raise DeliveryFailed(f"{target.origin} gave no complete answer within {timeouts.total:g} s") from None
    finally:
        exchange.cut()


@cache
def public_tls() -> ssl.SSLContext:
    """Return a context with the system's certificate authorities, which are read once."""
    return ssl.create_default_context()


def _answer(response: http.client.HTTPResponse) -> Reply:
    excerpt = b""
    if not is_success(response.status):
        with contextlib.suppress(OSError, http.client.HTTPException):  # the status is what counts
            excerpt = response.read(MAX_RESPONSE)
    return Reply(response.status, response.getheader("retry-after"), response.getheader("location"), excerpt)


def retry_after_seconds(text: str | None, now: float) -> float | None:
    """Read a ``Retry-After``, in seconds or as an HTTP date (RFC 9110, 10.2.3); None: missing or invalid.

    Args:
        text: the header.
        now: Unix seconds.
    """
    text = (text or "").strip()
    if re.fullmatch(r"[0-9]{1,12}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:  # "-0000"
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)
