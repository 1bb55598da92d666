"""The endpoints for blocking frameworks (WSGI, Flask, Django), on an event loop in a thread.

The first request starts the loop, in a daemon thread. The server's thread waits for the answer; when the endpoint asks
for a chunk of the body, that thread reads it. So ``cauce.web.body`` applies its limits and deadline, and a blocking
read delays no other request. After a fork (some servers load the application, then fork their workers), each process
starts its own loop, endpoints and connections at its first request and does not use those that it inherited.

A blocking read cannot be interrupted. If a body takes longer than ``BODY_SECONDS``, the answer is sent only when the
current read returns. The server limits that time: gunicorn kills a sync worker after ``--timeout``; most others rely on
a proxy that buffers slow requests.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from cauce.web.endpoints import Endpoints, own_providers
from cauce.web.secrets import SecretSource, secrets_in

if TYPE_CHECKING:
    from starlette.types import Message, Scope

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.webhooks import Answer, Provider

CHUNK_BYTES: Final = 65_536
"""Bytes of a body that are read at a time."""
CLOSE_SECONDS: Final = 5.0
"""Seconds that the process waits at its end for the loop to close its connections."""


class Blocking:
    """The endpoints of an application for blocking callers; the arguments are those of ``create_app``.

    Any thread may use it, also after a fork. Its connections are closed when it is garbage-collected or at exit.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set, or a secret's setting cannot be read.
    """

    def __init__(
        self, bus: Bus, settings: Settings, *, providers: Iterable[Provider] = (), secrets: SecretSource | None = None
    ) -> None:
        settings.require_database_url()
        providers = tuple(providers)
        known = own_providers(bus, providers)
        source = secrets or secrets_in(settings, known)  # raises for unreadable secrets now, not at the first request
        self._make: Callable[[], Endpoints] = lambda: Endpoints(bus, settings, providers=providers, secrets=source)
        self._loops: dict[int, _Loop] = {}
        self._locks: dict[int, threading.Lock] = {}

    def respond(self, name: str, scope: Scope, body: Iterator[Message]) -> Answer | None:
        """Have an endpoint answer a request, and wait; None if the client has disconnected.

        Args:
            name: the name of the endpoint.
            scope: the ASGI scope of the request, with its ``path_params``.
            body: the body as ASGI messages. It is read in this thread, and only as far as needed; an ``OSError`` means
                that the client has disconnected.
        """
        running = self._loop()
        wanted: SimpleQueue[asyncio.Future[Message] | None] = SimpleQueue()

        async def receive() -> Message:
            chunk: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            wanted.put(chunk)
            return await chunk

        endpoint = running.endpoints.by_name[name]
        answer = asyncio.run_coroutine_threadsafe(endpoint.respond(scope, receive), running.loop)
        answer.add_done_callback(lambda _: wanted.put(None))
        try:
            while (chunk := wanted.get()) is not None:
                message, error = _next(body)
                running.loop.call_soon_threadsafe(_settle, chunk, message, error)
            return answer.result()
        except BaseException:  # the server ends its worker by a signal
            answer.cancel()
            raise

    def _loop(self) -> _Loop:
        """Return the loop of this process; start it if there is none."""
        pid = os.getpid()
        if pid not in self._loops:
            # A lock for each process: another thread of the parent may hold its lock while a child is forked.
            with self._locks.setdefault(pid, threading.Lock()):
                if pid not in self._loops:
                    started = _Loop(self._make())
                    weakref.finalize(self, started.stop)  # Python also calls it at the end of the process
                    self._loops[pid] = started
        return self._loops[pid]


class _Loop:
    """An event loop in a thread, and the endpoints that belong to it."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="cauce-web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the connections and end the thread; in a child of this process, do nothing."""
        if os.getpid() != self._pid:
            return
        asyncio.run_coroutine_threadsafe(self._close(), self.loop)
        if threading.current_thread() is not self._thread:  # any thread may run the garbage collection
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def _close(self) -> None:
        try:
            await self.endpoints.close()
        finally:
            self.loop.stop()


def whole(body: bytes) -> Iterator[Message]:
    """Yield a body that was already read."""
    yield {"type": "http.request", "body": body, "more_body": False}


def lost() -> Iterator[Message]:
    """Raise an error when the body is read, because it is lost."""
    text = (
        "the application has read the request's body before the inbox, and has not kept it. The middleware or hook that"
        " does so must skip these addresses, or read request.get_data() in Flask and request.body in Django"
    )
    return map(_raise, [RuntimeError(text)])


def in_chunks(read: Callable[[int], bytes], length: int | None = None) -> Iterator[Message]:
    """Read a body a chunk at a time.

    Args:
        read: returns at most this many bytes, and none at the end.
        length: the announced number of bytes; if some are missing, the client has left. None: read to the end.
    """
    left, more = length, True
    while more:
        chunk = read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
        if left is None:
            more = bool(chunk)
        else:
            left -= len(chunk)
            more = left > 0
            if more and not chunk:
                break
        yield {"type": "http.request", "body": chunk, "more_body": more}


def _raise(error: Exception) -> Message:
    raise error


def _next(body: Iterator[Message]) -> tuple[Message | None, Exception | None]:
    """Read the next message; return an error instead of raising it, so that the endpoint answers it."""
    gone: Message = {"type": "http.disconnect"}
    try:
        return next(body, gone), None
    except OSError:
        return gone, None
    except Exception as error:  # noqa: BLE001 - raised again where the endpoint waits for it
        return None, error


def _settle(chunk: asyncio.Future[Message], message: Message | None, error: Exception | None) -> None:
    """Resolve the endpoint's future, unless it is done."""
    if chunk.done():
        return
    if message is None:
        chunk.set_exception(error or AssertionError())
    else:
        chunk.set_result(message)
