"""The endpoints for frameworks that block (WSGI, Flask, Django), on an event loop in a thread.

The endpoints run in a loop of their own, in a daemon thread that the first request starts. The thread that the server
calls waits for the answer and meanwhile reads the body, a chunk at a time, whenever the endpoint asks for one: so the
limit to bodies, the deadline and the order of all checks are those of ``cauce.web.body``, and a read that blocks blocks
nobody else. A process that forks (a server that loads the application and then forks its workers) is no danger: each
process begins with a loop, endpoints and connections of its own, at its own first request, and lets those it inherited
alone.

A blocking read cannot be interrupted. When a body takes longer than ``BODY_SECONDS``, the answer is decided then, but
it is sent when the read that is under way returns. How long that may be is the server's business: gunicorn kills a
synchronous worker after ``--timeout``, most others trust a proxy in front of them to buffer slow requests.
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
"""Bytes that are read of a body at a time."""
CLOSE_SECONDS: Final = 5.0
"""Seconds that the end of the process waits for the loop to close its connections."""


class Blocking:
    """The endpoints of an application, for callers that block; ``create_app`` says what the arguments are.

    It may be used from any thread and after a fork. Its connections are closed when it is collected or at exit.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set, or a secret's setting cannot be read.
    """

    def __init__(
        self, bus: Bus, settings: Settings, *, providers: Iterable[Provider] = (), secrets: SecretSource | None = None
    ) -> None:
        settings.require_database_url()
        providers = tuple(providers)
        known = own_providers(bus, providers)
        source = secrets or secrets_in(settings, known)  # which refuses what cannot be read now, and not later
        self._make: Callable[[], Endpoints] = lambda: Endpoints(bus, settings, providers=providers, secrets=source)
        self._loops: dict[int, _Loop] = {}
        self._locks: dict[int, threading.Lock] = {}

    def respond(self, name: str, scope: Scope, body: Iterator[Message]) -> Answer | None:
        """Have an endpoint answer a request, and wait; None if the client has left.

        Args:
            name: the endpoint's.
            scope: the request's, as ASGI has it, with its ``path_params``.
            body: the request's, as ASGI's messages. It is read in this thread and only as far as it is wanted; an
                ``OSError`` means that the client has left.
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
        except BaseException:  # a server that ends its worker by a signal
            answer.cancel()
            raise

    def _loop(self) -> _Loop:
        """Return the loop of this process; start it if there is none."""
        pid = os.getpid()
        if pid not in self._loops:
            # Not one lock for all: a child may be forked while another thread of its parent holds that.
            with self._locks.setdefault(pid, threading.Lock()):
                if pid not in self._loops:
                    started = _Loop(self._make())
                    weakref.finalize(self, started.stop)  # which Python also calls at the end of the process
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
        if threading.current_thread() is not self._thread:  # which may be the one that collects the garbage
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
    """Raise an error when the body is asked for, because it is gone."""
    text = (
        "the application has read the request's body before the inbox, and has not kept it. Whatever does so (a"
        " middleware, a hook) must leave these addresses alone, or read request.get_data() in Flask and request.body in"
        " Django"
    )
    return map(_raise, [RuntimeError(text)])


def in_chunks(read: Callable[[int], bytes], length: int | None = None) -> Iterator[Message]:
    """Read a body a chunk at a time.

    Args:
        read: returns so many bytes at most, and none at the end.
        length: bytes that were announced, of which none may be missing; None to read to the end.
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
    """Read on; what is wrong with the body is for the endpoint to answer."""
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
