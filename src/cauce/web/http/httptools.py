"""Connections read by httptools, from the extra ``fast``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cauce.web.http.bounded import Bounded

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_PENDING_BYTES: Final = 65_536
"""Bytes a client may send that are no part of a body, before its connection is closed; h11's own limit is the same."""


class BoundedHttpTools(Bounded, HttpToolsProtocol):  # type: ignore[misc]  # Bounded takes either of uvicorn's protocols
    """httptools, held to what h11 does by itself.

    It gathers the address, header fields and trailers of a request, however many come. Here what has arrived since the
    last byte of a body, or since the last whole request, is counted. A request that begins in the middle of what is
    read at once is counted from the next read on, so that none is wronged.

    It adds trailers to the header fields, which the application may already be using. Here they are dropped, as
    RFC 9110, section 6.5.1, requires unless they are known to be safe.
    """

    _pending = 0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = Parser(self)

    def data_received(self, data: bytes) -> None:
        """Read."""
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MAX_PENDING_BYTES and not self.transport.is_closing():
            self.send_400_response("Too many header bytes.")

    def on_headers_complete(self) -> None:
        """Begin a request, unless it comes once more without its ``Upgrade``."""
        if not self.url.isascii():  # which h11 refuses by itself, and uvicorn fails to log
            raise httptools.HttpParserInvalidURLError(self.url)
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.headers = []  # of nobody: what comes now is a trailer

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._pending = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()


class Parser(httptools.HttpRequestParser):
    """Reads a request that offers another protocol as if it did not, which RFC 9110, section 7.8, leaves to the server.

    httptools stops behind the header fields of such a request and calls what follows no HTTP: its body would be lost
    (https://github.com/encode/uvicorn/issues/2722). Java's HttpClient and ``curl --http2`` send them all the time.
    """

    def __init__(self, protocol: BoundedHttpTools) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it, for pipelined requests
        self._protocol = protocol

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # of compiled code, which takes any buffer
        """Read on."""
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head() + data[upgrade.args[0] :]
            else:
                return

    def _head(self) -> bytes:
        """Write the request's line and header fields down again, but for ``Upgrade``."""
        method, protocol = self.get_method(), self._protocol
        if method == b"CONNECT":  # which always asks for a tunnel, and this is no proxy
            raise httptools.HttpParserInvalidMethodError(method)
        lines = [b"%s %s HTTP/%s" % (method, protocol.url, self.get_http_version().encode())]
        lines += [b"%s: %s" % field for field in protocol.headers if field[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])
