"""A process that serves until it is told to stop: the HTTP server, signals, and the order of stopping.

The first SIGTERM or SIGINT stops gracefully, the second at once. The signal handlers are Python's own, not the event
loop's: they run even while a handler of the application blocks the loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Final, Protocol

import uvicorn

from cauce.errors import CauceError, ConfigError
from cauce.web import create_app, without_query, without_salud
from cauce.web.fast import event_loop, name_of
from cauce.web.http import http_protocol
from cauce.web.http.bounded import KEEP_ALIVE_SECONDS

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.webhooks import Provider

logger = logging.getLogger("cauce.serving")

BACKLOG: Final = 2048
"""Connections that may wait to be accepted; uvicorn's own default."""
ACCEPTED_AT_ONCE: Final = 16
"""Connections that asyncio's loop accepts before anything else runs. With more, a burst takes every descriptor before
the first connection is counted (``cauce.web.http.bounded.max_connections``)."""

ACCESS_FILTERS: Final = (without_salud, without_query)
"""Filters of the access log: no successful health checks, and no queries, which may hold secrets."""


class Part(Protocol):
    """Something that runs until stopped: a worker, an HTTP server."""

    async def run(self) -> None:
        """Run until stopped."""
        ...

    def stop(self) -> None:
        """Stop soon."""
        ...


class HttpServer:
    """The HTTP application of a bus, served by uvicorn on an address that is taken at once.

    Args:
        bus: the application's.
        settings: as the application's and a worker's.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        providers: of webhooks, beside those of the bus.

    Raises:
        ConfigError: the address cannot be listened on, or ``DATABASE_URL`` is not set.
    """

    def __init__(
        self, bus: Bus, settings: Settings, host: str, port: int, *, providers: Iterable[Provider] = ()
    ) -> None:
        app = create_app(bus, settings, providers=providers)
        self._socket = _listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._server = UvicornServer(configured(app, settings.grace_seconds))

    async def run(self) -> None:
        """Serve until stopped; requests under way get the grace period.

        Raises:
            CauceError: the application did not start.
        """
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        access = logging.getLogger("uvicorn.access")
        for filter_ in ACCESS_FILTERS:
            access.addFilter(filter_)
        logger.info("listening on %s", self.url)
        try:
            await self._server.serve(sockets=[self._socket])
        except SystemExit:
            raise CauceError("the HTTP application did not start; the log says why") from None
        finally:
            for filter_ in ACCESS_FILTERS:
                access.removeFilter(filter_)
            self._socket.close()
        logger.info("no longer listening on %s", self.url)

    def stop(self) -> None:
        """Take no more requests."""
        self._server.should_exit = True


def configured(app: ASGIApp, grace_seconds: float) -> uvicorn.Config:
    """Return how an application is served; requests under way get ``grace_seconds`` to finish in the end."""
    return uvicorn.Config(
        app,
        http=http_protocol(),
        ws="none",  # an endpoint is no WebSocket, and a request that offers to become one is read as it is
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=ACCEPTED_AT_ONCE,
        lifespan="on",
        proxy_headers=False,  # CAUCE_PUBLIC_URL says how senders call it, and no header does
        log_config=None,
        timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )


class UvicornServer(uvicorn.Server):
    """Leaves the signals to ``serve``."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until ``should_exit``."""
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and let ``BACKLOG`` wait: asyncio takes one number for both."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)


def serve(*parts: Part) -> None:
    """Run all parts in one event loop until a signal, or until one of them ends; then stop the others.

    The loop is uvloop's if it is installed; the log names it.

    Raises:
        Exception: what a part raised.
    """
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(_serve(parts))


async def _serve(parts: tuple[Part, ...]) -> None:
    loop = asyncio.get_running_loop()
    told: list[int] = []

    def stop() -> None:
        for part in parts:
            part.stop()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        if len(told) > 1:
            os.write(2, f"cauce: {signal.Signals(number).name} again: stopped at once\n".encode())
            os._exit(128 + number)
        loop.call_soon_threadsafe(logger.info, "%s: stopping", signal.Signals(number).name)
        loop.call_soon_threadsafe(stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    logger.info("on the event loop of %s", name_of(loop))
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop()
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)  # whoever comes early waits a moment, and is not refused
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with {option}"
        ) from error
    return listening
