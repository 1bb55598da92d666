"""Limits of every connection, with either parser: deadlines, and a maximum number of connections.

uvicorn has one deadline, for connections that are idle between two requests, and any byte ends it. Here a connection
that waits for its client always has a deadline, which slow single bytes do not extend:

    accepted, or a request has begun     HEADER_SECONDS until its header fields are complete
    between two requests                 KEEP_ALIVE_SECONDS until the next one begins (uvicorn's own timer)
    the body                             BODY_SECONDS of cauce.web.body, where the application reads it
    an answer that fills the buffers     SEND_SECONDS until the client has read some of it

While the application works, no deadline runs here: the application has its own.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, ClassVar, Final, cast

from cauce.web.answers import RETRY_AFTER_SECONDS, ErrorCode, error, fields

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Uvicorns
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle as Cycle

    from cauce.webhooks import Answer
else:
    Uvicorns = asyncio.Protocol  # a subclass adds one of uvicorn's two, which have the same methods

logger = logging.getLogger("cauce.http")

HEADER_SECONDS: Final = 10.0
"""Seconds for the header fields of a request, from its first byte; of a connection's first request, from the accept."""
KEEP_ALIVE_SECONDS: Final = 75
"""Seconds that a connection may be idle between two requests, as in nginx. Load balancers keep connections for up to
60 s, and lose a request if the server closes first."""
SEND_SECONDS: Final = 10.0
"""Seconds within which a client must read some of the answer, or its connection is cut."""
MAX_CONNECTIONS: Final = 1_000
"""The most open connections of a process, if its limit of file descriptors allows so many."""
SPARE_DESCRIPTORS: Final = 256
"""File descriptors left for the database, the log and the application; at most half of them."""
LOG_SECONDS: Final = 60.0
"""Seconds between two warnings in the log about too many connections."""

_steps = count()  # not the time: uvloop's has milliseconds, so events within one would have no order


def max_connections() -> int:
    """Return how many connections may be open: ``MAX_CONNECTIONS``, or as many as ``ulimit -n`` allows."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(limit - SPARE_DESCRIPTORS, limit // 2))


class Bounded(Uvicorns):
    """A connection with deadlines: a mixin for uvicorn's protocols."""

    _told: ClassVar[float | None] = None
    """When the log last had a warning about too many connections."""
    _timer: asyncio.TimerHandle | None = None
    since: int
    """The step since which it waits for its client, if it does."""
    _latest: Cycle | None = None
    """The latest request with complete header fields, and its answer."""
    _unsent = 0
    """Bytes that the client had not read when its deadline was set."""
    _is_last = False
    """No request follows the latest one."""

    # ---------------------------------------------------------------------------------------------- called by the loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        """Begin. If there are too many connections, close the one that has waited longest for its client."""
        super().connection_made(transport)
        self.since = next(_steps)
        self._watch()
        if len(self.connections) > max_connections():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Read."""
        super().data_received(data)
        self._watch()

    # asyncio allows a bool here, but uvicorn's annotation is None
    def eof_received(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer a complete request that the client sent before it stopped sending; without one, close."""
        self._is_last = self.owes_answer
        return self._is_last

    def pause_writing(self) -> None:
        """Wait until the client has read the buffered answer."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self.is_answering:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._unwatch()
        super().connection_lost(exc)

    # --------------------------------------------------------------------------------------------- called by uvicorn

    def on_response_complete(self) -> None:
        """Wait for the next request, or until the client has read the last answer."""
        super().on_response_complete()
        self.since = next(_steps)
        if self._is_last and not self.owes_answer:
            self.transport.close()
        if self.transport.is_closing():
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse data that is not HTTP. If a complete request came before it, send its answer and close instead."""
        if self.owes_answer:
            self._is_last = True
            self.flow.pause_reading()
        else:
            super().send_400_response(msg)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._watch()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: a client that offers another protocol (h2c) gets an HTTP/1.1 answer, which is correct."""

    # ------------------------------------------------------------------------------------------------------ deadlines

    @property
    def is_answering(self) -> bool:
        """Whether the application is processing a request."""
        return self._latest is not None and not self._latest.response_complete

    @property
    def owes_answer(self) -> bool:
        """Whether a complete request has no answer yet, in process or in the queue."""
        cycle = cast("Cycle | None", self.cycle)  # None before the first
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    @property
    def waits_for_client(self) -> bool:
        """Whether the connection waits for the client, not for the application."""
        return not self.is_answering or self.cycle.more_body or self.flow.write_paused

    def _watch(self) -> None:
        """Set a deadline if the connection waits for its client and has none; otherwise remove it."""
        unread = self.transport.is_closing() or self.flow.write_paused
        if self.cycle is not self._latest:
            self._latest, self.since = self.cycle, next(_steps)
        if self.is_answering and not unread:
            self._unwatch()
        elif self._timer is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._timer = self.loop.call_later(SEND_SECONDS if unread else HEADER_SECONDS, self._time_out)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        if self._unsent and self.transport.get_write_buffer_size() < self._unsent:
            self._watch()  # the client reads, but slowly
        elif self.transport.is_closing() or self.flow.write_paused:
            self.transport.abort()  # closing would wait for the client to read
        elif self._latest is None:
            detalle = f"the header fields did not arrive within {HEADER_SECONDS:g} s"
            self._refuse(error(ErrorCode.SLOW_HEADERS, detalle, {"connection": "close"}))
        else:  # the last request has its answer, and the next is not complete: an error would answer neither
            self.transport.close()
            self._watch()

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client, or refuse this one if none waits."""
        connections = cast("set[Bounded]", self.connections) - {self}
        waiting = [one for one in connections if one.waits_for_client and not one.transport.is_closing()]
        if waiting:
            min(waiting, key=lambda one: one.since).transport.abort()
        else:
            detalle = f"{max_connections()} connections are open, and all are being answered. Try again later"
            headers = {"connection": "close", "retry-after": str(RETRY_AFTER_SECONDS)}
            self._refuse(error(ErrorCode.TOO_MANY_CONNECTIONS, detalle, headers))
        self._tell()

    def _tell(self) -> None:
        now = self.loop.time()
        if Bounded._told is None or now - Bounded._told >= LOG_SECONDS:
            Bounded._told = now
            logger.warning(
                "more than %d connections are open; closing those that have waited longest for their clients."
                " The limit is %d, or ulimit -n minus %d",
                max_connections(),
                MAX_CONNECTIONS,
                SPARE_DESCRIPTORS,
            )

    def _refuse(self, answer: Answer) -> None:
        """Send an answer without waiting for a request, and close."""
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields(answer)]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)
        self.transport.close()
        self._unwatch()
        self._watch()
