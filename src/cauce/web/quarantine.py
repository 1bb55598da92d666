"""Diagnose and store refused deliveries after their answer, at a limited rate.

Nothing here changes or delays an answer: a task writes the queued deliveries one at a time, so that good deliveries
find a free connection.
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
"""Refused deliveries of one origin and reason that are kept however fast they come."""
SECONDS_EACH: Final = 5.0
"""Seconds after which one more of them is: a flood needs over an hour to bring as many as are kept (``ROWS``)."""
BURST_BYTES: Final = 524_288
"""Bytes of them that are kept however fast they come."""
BYTES_PER_SECOND: Final = 800
"""Bytes of them that are kept afterwards: a flood needs over an hour to bring as many as large ones always have, which
is half of ``BYTES``, less the largest that there can be."""
WAITING: Final = 32
"""Refused deliveries that may wait to be written down; when more come, they are dropped."""
FINISH_SECONDS: Final = 3.0
"""Seconds that those that wait get when the application ends."""
DIAGNOSED_BYTES: Final = 16_384
"""Bytes of the largest body whose rewritings are tried when it comes, which takes up to 50 ms; others wait until
somebody looks at them."""


class Quarantine:
    """The way into the quarantine, for one process and its event loop.

    Args:
        connections: to the database.
        clock: seconds, of no particular beginning.
    """

    def __init__(self, connections: HttpConnections, clock: Callable[[], float] = time.monotonic) -> None:
        self._connections, self._clock = connections, clock
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._waiting: deque[tuple[Inquiry, Rejected]] = deque()
        self._writer: asyncio.Task[None] | None = None

    def take(
        self, provider: Provider, request: WebhookRequest, secrets: Sequence[Secret], now: float, rejected: Rejected
    ) -> None:
        """Have a refused delivery kept, unless too many are; the answer need not wait for it.

        Args:
            provider: whose it is said to be.
            request: as it came.
            secrets: that it was verified with.
            now: the moment that it was judged at, in Unix seconds.
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
        """Wait until all that was taken is kept, or has failed to be, but no longer than ``FINISH_SECONDS``."""
        if self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer], timeout=FINISH_SECONDS)
            self._writer.cancel()

    async def _write(self) -> None:
        while self._waiting:
            inquiry, rejected = self._waiting.popleft()
            origen = inquiry.provider.origen
            try:
                causa = await _cause(inquiry, rejected)
                number = await self._connections.run(
                    partial(
                        quarantine.keep,
                        provider=inquiry.provider,
                        request=inquiry.request,
                        rejected=rejected,
                        causa=causa,
                    )
                )
            except psycopg.Error as problem:
                logger.warning("cannot keep a refused delivery of %s: %s", origen, problem)
            except Exception:
                logger.exception("cannot keep a refused delivery of %s", origen)
            else:
                logger.info("a refused delivery of %s is kept: cauce webhook rejected %s", origen, number)


class Allowance:
    """How many more of one origin and reason, and bytes of them, may be kept now: two token buckets."""

    def __init__(self, now: float) -> None:
        self._left, self._bytes, self._then = float(BURST), float(BURST_BYTES), now

    def spend(self, now: float, weight: Callable[[], int]) -> bool:
        """Take one of that weight, if both are left; the weight is asked for only where it counts."""
        passed, self._then = now - self._then, now
        self._left = min(BURST, self._left + passed / SECONDS_EACH)
        self._bytes = min(BURST_BYTES, self._bytes + passed * BYTES_PER_SECOND)
        if self._left < 1 or self._bytes < (bytes_ := weight()):
            return False
        self._left, self._bytes = self._left - 1, self._bytes - bytes_
        return True


async def _cause(inquiry: Inquiry, rejected: Rejected) -> str | None:
    """Find out why, in a thread: only now are the secrets of this moment there, and headers that are not kept."""
    if len(inquiry.request.body) > DIAGNOSED_BYTES:
        return None
    try:
        return (await asyncio.to_thread(inquiry.cause, rejected)).found or None
    except Exception:
        logger.exception("cannot diagnose a refused delivery of %s", inquiry.provider.origen)
        return None
