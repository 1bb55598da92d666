"""Limits of every connection, whatever parses it: deadlines, and a maximum number of connections.

uvicorn has one deadline, for connections that are idle between two requests, and any byte ends it. Here a connection
that waits for its client always has a deadline, which no trickle of bytes moves:

    accepted, or a request has begun     HEADER_SECONDS until its header fields are whole
    between two requests                 KEEP_ALIVE_SECONDS until the next one begins (uvicorn's own timer)
    the body                             BODY_SECONDS of cauce.web.body, for the application reads it
    an answer that fills the buffers     SEND_SECONDS until the client has taken some of it

The application's work has none here: it has deadlines of its own, and the client waits for it, not the other way round.
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
"""Seconds for a request's header fields: from its first byte or, of a connection's first one, from its acceptance."""
KEEP_ALIVE_SECONDS: Final = 75
"""Seconds a connection may be idle between two requests, as in nginx: load balancers keep theirs for up to 60 s, and a
server that closes first would cost them a request."""
SEND_SECONDS: Final = 10.0
"""Seconds within which a client takes some of what was sent to it, or its connection is cut."""
MAX_CONNECTIONS: Final = 1_000
"""Open connections of a process, if its limit of descriptors allows for so many."""
SPARE_DESCRIPTORS: Final = 256
"""Descriptors left for everything else (database, log, the application's own), or half of them if there are fewer."""
LOG_SECONDS: Final = 60.0
"""Seconds between two lines in the log that say that connections were too many."""

_steps = count()  # not the time: uvloop tells it in milliseconds, and the order of what happens in one would be lost


def max_connections() -> int:
    """Return how many connections may be open: ``MAX_CONNECTIONS``, or as many as descriptors (ulimit -n) allow."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(limit - SPARE_DESCRIPTORS, limit // 2))


class Bounded(Uvicorns):
    """A connection with deadlines: a mixin for uvicorn's protocols."""

    _told: ClassVar[float | None] = None
    """When the log was last told that connections were too many."""
    _timer: asyncio.TimerHandle | None = None
    since: int
    """The step since which it has waited for its client, if it does."""
    _latest: Cycle | None = None
    """The latest request whose header fields are whole, and its answer."""
    _unsent = 0
    """Bytes that the client had not taken when its deadline was set."""
    _is_last = False
    """No request comes after the latest."""

    # ---------------------------------------------------------------------------------------------- called by the loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin; if there are too many connections, end the one that has waited longest for its client."""
        super().connection_made(transport)
        self.since = next(_steps)
        self._watch()
        if len(self.connections) > max_connections():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Read."""
        super().data_received(data)
        self._watch()

    # asyncio admits a bool here; uvicorn has it annotated without one
    def eof_received(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer what a client asked before it stopped sending; without a whole request, close."""
        self._is_last = self.owes_answer
        return self._is_last

    def pause_writing(self) -> None:
        """Wait until the client has read what there is."""
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
        """Wait for the next request, or for the client to take the last answer."""
        super().on_response_complete()
        self.since = next(_steps)
        if self._is_last and not self.owes_answer:
            self.transport.close()
        if self.transport.is_closing():
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; behind a whole request, whose answer that is not, by closing after its answer."""
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
        """Say nothing: whoever offers another protocol (h2c) is answered in this one, and that is no fault."""

    # ------------------------------------------------------------------------------------------------------ deadlines

    @property
    def is_answering(self) -> bool:
        """Whether the application has a request in hand."""
        return self._latest is not None and not self._latest.response_complete

    @property
    def owes_answer(self) -> bool:
        """Whether a request is whole and has no answer yet, be it in hand or in the queue."""
        cycle = cast("Cycle | None", self.cycle)  # None before the first
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    @property
    def waits_for_client(self) -> bool:
        """Whether the next move is the client's, and not the application's."""
        return not self.is_answering or self.cycle.more_body or self.flow.write_paused

    def _watch(self) -> None:
        """Set the deadline of what is waited for, unless it has one; take it away while nothing is."""
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
            self._watch()  # it reads on, though slowly
        elif self.transport.is_closing() or self.flow.write_paused:
            self.transport.abort()  # closing would wait for the client to read
        elif self._latest is None:
            detalle = f"the header fields did not arrive within {HEADER_SECONDS:g} s"
            self._refuse(error(ErrorCode.SLOW_HEADERS, detalle, {"connection": "close"}))
        else:  # its last request has its answer, and the next has not come: whatever was sent would answer neither
            self.transport.close()
            self._watch()

    def _make_room(self) -> None:
        """End the connection that has waited longest for its client, or refuse this one if none waits."""
        connections = cast("set[Bounded]", self.connections) - {self}
        waiting = [one for one in connections if one.waits_for_client and not one.transport.is_closing()]
        if waiting:
            min(waiting, key=lambda one: one.since).transport.abort()
        else:
            detalle = f"{max_connections()} connections are open here, and all are being answered. Try again later"
            headers = {"connection": "close", "retry-after": str(RETRY_AFTER_SECONDS)}
            self._refuse(error(ErrorCode.TOO_MANY_CONNECTIONS, detalle, headers))
        self._tell()

    def _tell(self) -> None:
        now = self.loop.time()
        if Bounded._told is None or now - Bounded._told >= LOG_SECONDS:
            Bounded._told = now
            logger.warning(
                "more than %d connections are open: those that have waited longest for their clients are closed."
                " The bound is %d, or ulimit -n less %d",
                max_connections(),
                MAX_CONNECTIONS,
                SPARE_DESCRIPTORS,
            )

    def _refuse(self, answer: Answer) -> None:
        """Send an answer that no request is waited for, and close."""
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields(answer)]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)
        self.transport.close()
        self._unwatch()
        self._watch()
