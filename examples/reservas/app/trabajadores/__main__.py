"""The worker, as ``cauce worker events:bus`` would run it; this file is for who wants to start it from Python."""

import asyncio
import logging
import signal

from cauce import Settings
from cauce.engine.worker import Worker
from events import bus


async def main() -> None:
    """Work until SIGTERM or Ctrl-C; what is in hand is finished first."""
    worker = Worker(bus, Settings())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
