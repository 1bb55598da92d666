"""For tests of applications: a database, the work of a worker done at once, a handler called alone.

The fixtures are those of the plugin ``pytest_cauce``, which pytest finds by itself:

- ``cauce_db``: a fresh, migrated database, a ``Database``; ``cauce_bus`` and ``cauce_schema`` say with what in it
- ``cauce_server``: the PostgreSQL it is in

    def test_a_reservation_is_confirmed(cauce_db):
        with cauce_db.connect() as conn:
            publicar_evento(conn, ReservaEvents.reserva_creada, ReservaCreada(reserva_id=42))
        drain(bus, cauce_db.settings)
        with cauce_db.connect() as conn:
            assert [evento.estado for evento in eventos(conn)] == ["procesado"]

What ends in ``_async`` is for async tests; the rest runs an event loop of its own, and needs no plugin for that.
"""

from __future__ import annotations

from cauce.testing.calling import call, call_async
from cauce.testing.databases import Database, Server
from cauce.testing.draining import Drained, DrainError, FailedAttempt, drain, drain_async
from cauce.testing.reading import StoredEvent, eventos
from cauce.testing.waiting import wait_for, wait_for_async

__all__ = [
    "Database",
    "DrainError",
    "Drained",
    "FailedAttempt",
    "Server",
    "StoredEvent",
    "call",
    "call_async",
    "drain",
    "drain_async",
    "eventos",
    "wait_for",
    "wait_for_async",
]
