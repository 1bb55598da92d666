"""Senders of webhooks. They use as little CPU as possible, so that the server is measured.

Deliveries are bytes that were signed beforehand; an answer is only read to find its end.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from benchmarks.results import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIMIT: Final = 300.0
"""Seconds that a flood may take."""
PATIENCE: Final = 60.0
"""Seconds that deliveries may take."""
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_GOOD: Final = b"HTTP/1.1 200 "


@dataclass(frozen=True, slots=True)
class Load:
    """The result of sending."""

    rate: float
    """Deliveries a second."""
    times: list[float]
    """Milliseconds from the first byte of each delivery to the last byte of its answer."""
    cpu: float
    """The sender's CPU seconds per second: above a half, the sender is the bottleneck."""


async def deliver(port: int, requests: Sequence[bytes], parallel: int) -> Load:
    """Send every request, so many at once, each connection one after another; each must be answered 200.

    Raises:
        BenchError: one was not, or a connection broke, or it took longer than ``PATIENCE``.
    """
    loop = asyncio.get_running_loop()
    todo, times = iter(requests), list[float]()
    began, cpu = time.perf_counter(), time.process_time()
    ended: list[asyncio.Future[None]] = []
    for _ in range(parallel):
        _, connection = await loop.create_connection(partial(_KeptAlive, todo, times), "127.0.0.1", port)
        ended.append(connection.ended)
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*ended)
    except TimeoutError:
        raise BenchError(f"{len(times)} of {len(requests)} deliveries were answered within {PATIENCE:g} s") from None
    seconds = time.perf_counter() - began
    return Load(len(requests) / seconds, times, (time.process_time() - cpu) / seconds)


async def shoot(port: int, requests: Sequence[bytes], parallel: int) -> Counter[int]:
    """Send every request on a connection of its own, so many at once; count the answers by status.

    A server that closes the connection while the client still sends may lose its answer; those count as 0.

    Raises:
        BenchError: it took longer than ``LIMIT``.
    """
    loop = asyncio.get_running_loop()
    todo, counted = iter(requests), Counter[int]()

    async def one_after_another() -> None:
        for request in todo:
            _, shot = await loop.create_connection(partial(_Shot, request), "127.0.0.1", port)
            counted[await shot.status] += 1

    try:
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*(one_after_another() for _ in range(parallel)))
    except TimeoutError:
        raise BenchError(f"{counted.total()} of {len(requests)} were answered within {LIMIT:g} s") from None
    return counted


class _KeptAlive(asyncio.Protocol):
    """Sends the next request when the answer to the last one is complete."""

    def __init__(self, requests: Iterator[bytes], times: list[float]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests, self._times = requests, times
        self._answer = b""
        self._began = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not _is_whole(self._answer):
            return
        self._times.append((time.perf_counter() - self._began) * 1e3)
        if self._answer.startswith(_GOOD):
            self._send()
        else:
            self._fail(f"a delivery was answered {self._answer[:300]!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server hung up in the middle of the deliveries: {exc}")

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            if not self.ended.done():
                self.ended.set_result(None)
            self._transport.close()
            return
        self._answer = b""
        self._began = time.perf_counter()
        self._transport.write(request)

    def _fail(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(BenchError(why))
            self._transport.close()


class _Shot(asyncio.Protocol):
    """Sends one request and reads until the server closes the connection."""

    def __init__(self, request: bytes) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._request, self._answer = request, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - cut or closed, it is over
        self.status.set_result(int(self._answer[9:12] or 0))


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    return bool(end) and found is not None and len(body) >= int(found[1])
