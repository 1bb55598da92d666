"""The worker, started from Python; ``cauce worker events:bus`` does the same."""

import asyncio
import logging
import signal

from cauce import Settings
from cauce.engine.worker import Worker
from events import bus


async def main() -> None:
    """Work until SIGTERM or Ctrl-C; running handlers finish first."""
    worker = Worker(bus, Settings())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
