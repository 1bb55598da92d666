"""The heartbeat: renews the leases of a worker's batches, from its own thread and connection.

A separate thread renews the leases even while a handler blocks the event loop. It connects when a batch has been in
flight for a while, which short batches never are, and disconnects when none is.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from cauce.database.connecting import connect

if TYPE_CHECKING:
    import psycopg

    from cauce.config import Settings
    from cauce.database.claims import Batch

logger = logging.getLogger("cauce.heartbeat")

SHOW_AFTER: Final = 1.0
"""Seconds that an event is in flight before its state becomes ``en_proceso``."""
CONNECT_SECONDS: Final = 5
"""Seconds to reach the database."""
IDLE_SECONDS: Final = 10.0
"""Seconds after which the connection is closed, if no batch is in flight."""

RENOVAR = "select cauce.renovar(%s, %s, make_interval(secs => %s))"
MARCAR = "select cauce.marcar_en_proceso(%s, %s)"


class Held:
    """A batch in flight: its fencing token, when it was claimed and renewed, and whether its state was updated."""

    __slots__ = ("ficha", "renewed", "shown", "since")

    def __init__(self, ficha: int) -> None:
        self.ficha, self.since, self.renewed, self.shown = ficha, monotonic(), monotonic(), False


class Heartbeat(threading.Thread):
    """Renews leases by (lote, ficha). If the answer to a claim was lost, its batch is unknown here and expires."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="cauce-heartbeat", daemon=True)
        self._settings, self._lease = settings, settings.lease_seconds
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()
        self._stop_now = threading.Event()
        self._conn: psycopg.Connection[Any] | None = None
        self._used = 0.0

    def hold(self, batch: Batch) -> None:
        """Keep this batch's lease from now on."""
        with self._lock:
            self._held[batch.lote] = Held(batch.ficha)

    def release(self, batch: Batch) -> None:
        """Let this batch go."""
        with self._lock:
            self._held.pop(batch.lote, None)

    def stop(self) -> None:
        """End the thread, soon."""
        self._stop_now.set()

    def run(self) -> None:
        """Beat until stopped, whatever the connection does."""
        while not self._stop_now.wait(min(SHOW_AFTER, self._lease / 6)):
            try:
                self.beat()
            except Exception as error:  # noqa: BLE001 - without the heartbeat every lease of the process is lost
                logger.warning("heartbeat failed; retrying: %r", error)
                self._disconnect()
        self._disconnect()

    def beat(self) -> None:
        """Renew the leases that are a third old, then show what has been in hand for a while."""
        now = monotonic()
        with self._lock:
            due = {lote: held for lote, held in self._held.items() if now - held.renewed >= self._lease / 3}
            slow = {lote: held for lote, held in self._held.items() if not held.shown and now - held.since > SHOW_AFTER}
        if not due and not slow:
            if not self._held and now - self._used > IDLE_SECONDS:
                self._disconnect()
            return
        conn = self._connect()
        self._used = now
        if due:
            fichas = [held.ficha for held in due.values()]
            alive = {row[0] for row in conn.execute(RENOVAR, (list(due), fichas, self._lease))}
            for lote, held in due.items():
                held.renewed = now
                if lote not in alive:
                    logger.warning("batch %s: lease lost to another worker", lote)
        if slow:
            conn.execute(MARCAR, (list(slow), [held.ficha for held in slow.values()]))
            for held in slow.values():
                held.shown = True

    def _connect(self) -> psycopg.Connection[Any]:
        if self._conn is None or self._conn.closed:
            # two statements, seldom; and the leases run out while it waits
            self._conn = connect(self._settings, seconds=CONNECT_SECONDS, prepare=None)
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.close()
        self._conn = None
