"""How connections are read: uvicorn's protocols, with the bounds that a server on the open internet needs.

Two parsers, one set of rules: ``.bounded`` has them, ``.httptools`` and ``.h11`` what each parser needs to keep them.
Either can serve any ASGI application: ``uvicorn --http cauce.web.http.httptools:BoundedHttpTools shop:app``. What an
application can check by itself, such as a body's length, is in ``cauce.web``. docs/adr/0011-http.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cauce.web.http import h11

if TYPE_CHECKING:
    import asyncio


def http_protocol() -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol: httptools if it is installed, else h11."""
    try:
        from cauce.web.http import httptools  # noqa: PLC0415 - needs an extra
    except ImportError:
        return h11.BoundedH11
    return httptools.BoundedHttpTools
