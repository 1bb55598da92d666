"""Diagnose and store refused deliveries after their answer, at a limited rate.

It never changes or delays an answer: a task stores the queued deliveries one at a time, so that good deliveries find a
free connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg

from cauce.database import quarantine
from cauce.webhooks.explaining.diagnose import Inquiry

if TYPE_CHECKING:
    from cauce.web.connections import HttpConnections
    from cauce.webhooks import Provider, Rejected, Secret, WebhookRequest

logger = logging.getLogger("cauce.web")

BURST: Final = 50
"""Refused deliveries of one origin and reason that are kept at any rate of arrival."""
SECONDS_EACH: Final = 5.0
"""After the burst, one more is kept every so many seconds: a flood needs over an hour to fill the quarantine (``ROWS``
of one origin and reason)."""
BURST_BYTES: Final = 524_288
"""Bytes of one origin and reason that are kept at any rate of arrival."""
BYTES_PER_SECOND: Final = 800
"""Bytes kept per second after the burst: a flood needs over an hour to fill the half of ``BYTES`` that is always left
to large deliveries, less one of the largest size."""
WAITING: Final = 32
"""Refused deliveries that may wait to be stored; further ones are dropped."""
FINISH_SECONDS: Final = 3.0
"""Seconds to store the waiting deliveries when the application ends."""
DIAGNOSED_BYTES: Final = 16_384
"""The largest body that is diagnosed on arrival, in bytes, which takes up to 50 ms. Larger ones are diagnosed when an
operator looks at them."""


class Quarantine:
    """Puts deliveries into the quarantine, for one process and its event loop.

    Args:
        connections: to the database.
        clock: returns seconds since any fixed time.
    """

    def __init__(self, connections: HttpConnections, clock: Callable[[], float] = time.monotonic) -> None:
        self._connections, self._clock = connections, clock
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._waiting: deque[tuple[Inquiry, Rejected]] = deque()
        self._writer: asyncio.Task[None] | None = None

    def take(
        self, provider: Provider, request: WebhookRequest, secrets: Sequence[Secret], now: float, rejected: Rejected
    ) -> None:
        """Queue a refused delivery to be kept, or drop it if there are too many. Does not wait.

        Args:
            provider: the provider that it was sent to.
            request: the request as received.
            secrets: the secrets that it was verified with.
            now: the time of the verification, in Unix seconds.
            rejected: why it was refused.
        """
        if len(self._waiting) >= WAITING:
            return
        which = provider.origen, rejected.reason.value
        allowance = self._allowances.get(which)
        if allowance is None:
            allowance = self._allowances[which] = Allowance(self._clock())
        if not allowance.spend(self._clock(), partial(quarantine.weight, provider, request, rejected)):
            return
        self._waiting.append((Inquiry(provider, request, secrets, now, {}), rejected))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def finish(self) -> None:
        """Wait until all queued deliveries are stored or have failed, but at most ``FINISH_SECONDS``."""
        if self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer], timeout=FINISH_SECONDS)
            self._writer.cancel()

    async def _write(self) -> None:
        while self._waiting:
            inquiry, rejected = self._waiting.popleft()
            provider, request, origen = inquiry.provider, inquiry.request, inquiry.provider.origen
            try:
                causa = await _cause(inquiry, rejected)
                keep = partial(quarantine.keep, provider=provider, request=request, rejected=rejected, causa=causa)
                number = await self._connections.run(keep)
            except psycopg.Error as problem:
                logger.warning("cannot store a refused delivery of %s: %s", origen, problem)
            except Exception:
                logger.exception("cannot store a refused delivery of %s", origen)
            else:
                logger.info("stored a refused delivery of %s: cauce webhook rejected %s", origen, number)


class Allowance:
    """How many more deliveries of one origin and reason may be kept, and how many bytes: two token buckets."""

    def __init__(self, now: float) -> None:
        self._left, self._bytes, self._then = float(BURST), float(BURST_BYTES), now

    def spend(self, now: float, weight: Callable[[], int]) -> bool:
        """Take one delivery and its weight in bytes out of the buckets, if both hold enough.

        The weight is computed only if there is a delivery left.
        """
        passed, self._then = now - self._then, now
        self._left = min(BURST, self._left + passed / SECONDS_EACH)
        self._bytes = min(BURST_BYTES, self._bytes + passed * BYTES_PER_SECOND)
        if self._left < 1 or self._bytes < (bytes_ := weight()):
            return False
        self._left, self._bytes = self._left - 1, self._bytes - bytes_
        return True


async def _cause(inquiry: Inquiry, rejected: Rejected) -> str | None:
    """Diagnose in a thread. Do it now: today's secrets and the headers that are not stored are gone later."""
    if len(inquiry.request.body) > DIAGNOSED_BYTES:
        return None
    try:
        return (await asyncio.to_thread(inquiry.cause, rejected)).found or None
    except Exception:
        logger.exception("cannot diagnose a refused delivery of %s", inquiry.provider.origen)
        return None
