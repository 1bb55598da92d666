"""What the extra ``fast`` brings to the processes of ``cauce``: uvloop and httptools, where they are installed.

Neither is ever required, and nothing but speed may depend on them. So the parser gets the bound that h11 has by itself.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

MAX_PENDING_BYTES: Final = 65_536
"""Bytes a client may send that are no part of a body, before its connection is closed; h11's own limit is the same."""


def event_loop() -> asyncio.AbstractEventLoop:
    """Make uvloop's event loop if that is installed, else asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def http_protocol() -> type[asyncio.Protocol] | Literal["h11"]:
    """Return what uvicorn shall read HTTP with: httptools, within bounds, if that is installed, else h11."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415 - needs an extra
    except ImportError:
        return "h11"

    class Bounded(HttpToolsProtocol):
        """httptools and uvicorn gather the address, header fields and trailers of a request, however many come.

        What has arrived since the last byte of a body, or since the last whole request, is counted. A request that
        begins in the middle of what is read at once is counted from the next read on, so that none is wronged.
        """

        _pending = 0

        def data_received(self, data: bytes) -> None:
            self._pending += len(data)
            super().data_received(data)
            if self._pending > MAX_PENDING_BYTES and not self.transport.is_closing():
                self.send_400_response("Too many header bytes.")

        def on_body(self, body: bytes) -> None:
            self._pending = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._pending = 0
            super().on_message_complete()

    return Bounded


def name_of(loop: asyncio.AbstractEventLoop) -> str:
    """Say whose an event loop is."""
    return type(loop).__module__.partition(".")[0]
