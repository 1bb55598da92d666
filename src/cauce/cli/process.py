"""What only the command's own process may do: configure logging, and exit in spite of stuck threads."""

from __future__ import annotations

import logging
import os
import sys
import threading
from time import monotonic
from typing import Final, Literal, NoReturn

logger = logging.getLogger("cauce.cli")

LogLevel = Literal["debug", "info", "warning", "error"]

IDLE_THREAD_SECONDS: Final = 1.0
"""Seconds that idle threads get to end, before what still runs counts as stuck."""


def configure_logging(level: LogLevel) -> None:
    """Log to stderr: time, level, logger, message. Only the command line configures logging; the library never does."""
    chosen = "debug" if os.environ.get("CAUCE_DEBUG") else level
    logging.basicConfig(
        level=chosen.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def leave(code: int) -> NoReturn:
    """End the process without waiting for threads that are stuck in a handler: no thread can be stopped."""
    until = monotonic() + IDLE_THREAD_SECONDS
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0.0, until - monotonic()))
    stuck = [thread.name for thread in others if thread.is_alive()]
    if not stuck:
        sys.exit(code)
    logger.warning("exiting while threads are stuck in a handler: %s", ", ".join(stuck))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
