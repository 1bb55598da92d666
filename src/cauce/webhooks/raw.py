"""Read and write a ``WebhookRequest`` as captured HTTP/1 bytes (RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cauce.webhooks.request import Headers, WebhookRequest

_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) (\S+) HTTP/[0-9.]+")
_BLANK: Final = re.compile(rb"\r?\n\r?\n")
_LENGTH: Final = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Captured:
    """A request read from a file; ``notes`` are warnings about the file."""

    request: WebhookRequest
    notes: tuple[str, ...] = ()


def read_request(raw: bytes) -> Captured:
    """Read a captured request: request line, headers, blank line, body. Lines end in CRLF or LF.

    Bytes after ``Content-Length`` are dropped.

    Raises:
        ValueError: it is not an HTTP/1 request.
    """
    head, body = _split(raw)
    line, *fields = head.replace(b"\r\n", b"\n").split(b"\n")
    found = _REQUEST_LINE.fullmatch(line.strip())
    if found is None:
        shown = line[:60].decode("latin-1")
        raise ValueError(f"the first line is {shown!r}; expected a line like POST /api/webhooks/stripe HTTP/1.1")
    headers = Headers(_pairs(fields))
    target = found[2].decode("latin-1")
    url = target if "://" in target else f"http://{headers.get('host') or 'localhost'}{target}"
    body, notes = _cut(body, headers)
    return Captured(WebhookRequest(body, headers, url, found[1].decode("ascii")), notes)


def write_request(request: WebhookRequest) -> bytes:
    """Write a request. The first line contains the whole URL if it is https, so that the scheme is kept."""
    url = urlsplit(request.url)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [f"{request.method} {request.url if url.scheme != 'http' else target} HTTP/1.1", f"host: {url.netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    lines.append(f"content-length: {len(request.body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body


def _split(raw: bytes) -> tuple[bytes, bytes]:
    found = _BLANK.search(raw)
    return (raw.rstrip(), b"") if found is None else (raw[: found.start()], raw[found.end() :])


def _pairs(lines: Iterable[bytes]) -> Iterable[tuple[bytes, bytes]]:
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name.strip():
            raise ValueError(f"{line[:60].decode('latin-1')!r} is not a header; expected: name: value")
        yield name.strip(), value.strip()


def _cut(body: bytes, headers: Headers) -> tuple[bytes, tuple[str, ...]]:
    """Return the body cut to the declared length, and warnings about it."""
    notes: list[str] = []
    if "chunked" in (headers.get("transfer-encoding") or "").lower():
        decoded = _unchunked(body)
        if decoded is None:
            notes.append("Transfer-Encoding is chunked, but the body here is not; it is used unchanged")
        body = body if decoded is None else decoded
    declared = headers.get("content-length") or ""
    if _LENGTH.fullmatch(declared):
        length = int(declared)
        if len(body) < length:
            notes.append(f"the body has {len(body)} bytes, but Content-Length is {length}: it was cut or rewritten")
        elif len(body) > length:
            notes.append(f"{len(body) - length} bytes after the {length} of Content-Length are ignored")
            body = body[:length]
    encoding = headers.get("content-encoding") or "identity"
    if encoding != "identity":
        notes.append(f"Content-Encoding is {encoding}: the signed body may be the one before or after encoding")
    return body, tuple(notes)


def _unchunked(body: bytes) -> bytes | None:
    """Join the chunks; None if the body is not chunked."""
    pieces: list[bytes] = []
    while True:
        line, mark, rest = body.partition(b"\r\n")
        size = re.match(rb"[0-9a-fA-F]{1,8}(?=[;\s]|$)", line)
        if not mark or size is None:
            return None
        length = int(size[0], 16)
        if length == 0:
            return b"".join(pieces)
        if rest[length : length + 2] != b"\r\n":
            return None
        pieces.append(rest[:length])
        body = rest[length + 2 :]
