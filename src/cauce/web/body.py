"""Read a request's headers and body, within limits."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException

from cauce.web.answers import Disconnected, ErrorCode, Failed, error
from cauce.web.framing import hang_up
from cauce.webhooks import Answer, Headers
from cauce.webhooks.limits import MAX_HEADER_BYTES, MAX_HEADERS

if TYPE_CHECKING:
    from starlette.types import Receive, Scope


logger = logging.getLogger("cauce.web")

BODY_SECONDS: Final = 20.0
"""Seconds a body may take to arrive, its first byte included."""
_MAX_DIGITS: Final = 15  # of a Content-Length


def read_headers(scope: Scope) -> Headers:
    """Return the headers.

    Raises:
        Failed: there are more than ``MAX_HEADERS``, or they have more than ``MAX_HEADER_BYTES``.
    """
    raw = scope["headers"]
    if len(raw) > MAX_HEADERS or sum(len(name) + len(value) for name, value in raw) > MAX_HEADER_BYTES:
        detalle = f"a request may have {MAX_HEADERS} header fields of {MAX_HEADER_BYTES} bytes together"
        raise Failed(error(ErrorCode.HEADERS_TOO_LARGE, detalle, hang_up(scope)))
    return Headers(raw)


async def read_body(scope: Scope, receive: Receive, headers: Headers, limit: int) -> bytes:
    """Return the body; never hold more than ``limit`` bytes of it, chunked or not.

    Raises:
        Failed: it is longer, takes longer than ``BODY_SECONDS``, or is incomplete.
        Disconnected: the client disconnected before the end.
    """
    body = await _read(scope, receive, headers, limit)
    if _is_short(headers, body):
        logger.warning(
            "the HTTP server handed on %d bytes of a longer body, which is answered 400. uvicorn with httptools does so"
            " when a request has Upgrade: run it with --http cauce.web.http.httptools:BoundedHttpTools, or --http h11",
            len(body),
        )
        detalle = f"{len(body)} bytes of the body arrived, fewer than were announced"
        raise Failed(error(ErrorCode.SHORT_BODY, detalle, hang_up(scope)))
    return body


def _is_short(headers: Headers, body: bytes) -> bool:
    """Say whether something of a body is missing: by its length or, of one in chunks that is empty, by ``Upgrade``."""
    declared = headers.get("content-length") or ""
    if declared.isdecimal():
        return len(body) < int(declared)
    return not body and bool(headers.all("transfer-encoding")) and bool(headers.all("upgrade"))


async def _read(scope: Scope, receive: Receive, headers: Headers, limit: int) -> bytes:
    declared = headers.get("content-length") or ""
    if declared.isdecimal() and (len(declared) > _MAX_DIGITS or int(declared) > limit):
        raise Failed(_too_large(scope, limit))
    try:
        async with asyncio.timeout(BODY_SECONDS):
            chunk, more = await _next_chunk(receive)
            if not more and len(chunk) <= limit:
                return chunk
            body = bytearray()  # not a list: a million chunks of a byte would take fifty times their size
            while True:
                if len(body) + len(chunk) > limit:
                    raise Failed(_too_large(scope, limit))
                body += chunk
                if not more:
                    return bytes(body)
                chunk, more = await _next_chunk(receive)
    except TimeoutError:
        detalle = f"the body did not arrive within {BODY_SECONDS:g} s"
        raise Failed(error(ErrorCode.SLOW_BODY, detalle, hang_up(scope))) from None


async def _next_chunk(receive: Receive) -> tuple[bytes, bool]:
    try:
        message = await receive()
    except HTTPException as refusal:
        if refusal.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        detalle = "the application around this one takes no body of that size"  # Starlette's ``max_body_size``
        raise Failed(error(ErrorCode.BODY_TOO_LARGE, detalle)) from None
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message.get("body", b""), message.get("more_body", False)


def _too_large(scope: Scope, limit: int) -> Answer:
    return error(ErrorCode.BODY_TOO_LARGE, f"a body may have {limit} bytes", hang_up(scope))
