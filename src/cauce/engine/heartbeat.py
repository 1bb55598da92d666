"""The heartbeat: keeps the leases of what a worker holds, from a thread and a connection of its own.

A handler that blocks the event loop must not cost the worker its leases; a thread of its own keeps beating. It connects
when something has been in hand for a while, which short batches never are, and disconnects when nothing is.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from cauce.database.claims import Batch

logger = logging.getLogger("cauce.heartbeat")

SHOW_AFTER: Final = 1.0
"""Seconds a worker holds an event before its state says ``en_proceso``."""
IDLE_SECONDS: Final = 10.0
"""Seconds after which the connection is closed, if nothing is in hand."""

RENOVAR = "select cauce.renovar(%s, %s, make_interval(secs => %s))"
MARCAR = "select cauce.marcar_en_proceso(%s, %s)"


class Held:
    """A batch in hand: its fencing token, since when, and what the heartbeat has done for it."""

    __slots__ = ("ficha", "renewed", "shown", "since")

    def __init__(self, ficha: int) -> None:
        self.ficha, self.since, self.renewed, self.shown = ficha, monotonic(), monotonic(), False


class Heartbeat(threading.Thread):
    """Renews leases by explicit (lote, ficha): a batch whose claim was lost on the way expires, as it must."""

    def __init__(self, dsn: str, lease: float) -> None:
        super().__init__(name="cauce-heartbeat", daemon=True)
        self._dsn, self._lease = dsn, lease
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
                logger.warning("the heartbeat could not reach the database, and tries again: %r", error)
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
                    logger.warning("the lease of batch %s is lost: another worker has it", lote)
        if slow:
            conn.execute(MARCAR, (list(slow), [held.ficha for held in slow.values()]))
            for held in slow.values():
                held.shown = True

    def _connect(self) -> psycopg.Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(self._dsn, autocommit=True, connect_timeout=5, prepare_threshold=None)
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.close()
        self._conn = None
