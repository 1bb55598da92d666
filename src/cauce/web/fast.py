"""What the extra ``fast`` brings to the processes of ``cauce``: uvloop here, httptools in ``cauce.web.http``.

Neither is ever required, and nothing but speed may depend on them.
"""

from __future__ import annotations

import asyncio


def event_loop() -> asyncio.AbstractEventLoop:
    """Make uvloop's event loop if that is installed, else asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def name_of(loop: asyncio.AbstractEventLoop) -> str:
    """Return the package of an event loop: ``asyncio`` or ``uvloop``."""
    return type(loop).__module__.partition(".")[0]
