"""The state of a webhook's destination, in ``cauce.destinos``: since when it fails, whether it is disabled.

A destination that answered 410, or has failed for days, gets no more requests until it is enabled again. A short query
precedes each delivery, over one connection per process, in a thread. If it fails, deliveries go out all the same.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg

from cauce import sql
from cauce.config import Settings
from cauce.database.connecting import connect

if TYPE_CHECKING:
    from psycopg import Connection

logger = logging.getLogger("cauce.outgoing")

DISABLE_AFTER: Final = 5 * 86_400.0
"""Seconds without a success after which a failure disables a destination; Svix waits as long."""
MAX_REASON: Final = 500
"""Characters of an error or a reason that are kept."""


@dataclass(frozen=True, slots=True)
class Destino:
    """A row of ``cauce.destinos``: a destination that has failed since it last was enabled."""

    destino: str
    """The destination's name."""
    fallando_desde: datetime | None
    """The first failure since the last success; None: the last delivery succeeded."""
    ultimo_fallo_en: datetime | None
    """The last failure."""
    ultimo_error: str | None
    """The error of the last failure."""
    deshabilitado_en: datetime | None
    """When it was disabled; None: it is enabled."""
    motivo: str | None
    """Why it was disabled."""


class Destinations:
    """The record of all destinations, in the application's database; one object may serve every ``Webhook``.

    Args:
        settings: the settings with the database's address; by default read from the environment at the first use.
        disable_after: seconds without a success after which a failure disables a destination.
    """

    def __init__(self, settings: Settings | None = None, *, disable_after: float = DISABLE_AFTER) -> None:
        self._settings, self._disable_after = settings, disable_after
        self._lock = threading.Lock()
        self._conn: Connection[Any] | None = None

    def find(self, destino: str) -> Destino | None:
        """Return the record of a destination; None if it has never failed.

        Args:
            destino: the destination's name, as in the column ``destino``.
        """
        row = self._ask(sql.query("destination"), {"destino": destino})
        return Destino(*row) if row else None

    def disable(self, destino: str, motivo: str) -> None:
        """Stop sending to a destination.

        Args:
            destino: the destination's name, as in the column ``destino``.
            motivo: the reason, of which 500 characters are kept.
        """
        self._ask("select cauce.deshabilitar_destino(%s, %s)", (destino, motivo[:MAX_REASON]))

    def enable(self, destino: str) -> bool:
        """Send to a destination again; return whether it was disabled. ``cauce retry`` brings its dead letters back.

        Args:
            destino: the destination's name, as in the column ``destino``.
        """
        row = self._ask("select cauce.habilitar_destino(%s)", (destino,))
        return bool(row and row[0])

    def failed(self, destino: str, error: str) -> str | None:
        """Record a failure; return the reason if the destination is disabled now.

        Args:
            destino: the destination's name, as in the column ``destino``.
            error: the error, of which 500 characters are kept.
        """
        row = self._ask(
            "select cauce.anotar_fallo_de_destino(%s, %s, make_interval(secs => %s))",
            (destino, error[:MAX_REASON], self._disable_after),
        )
        return row[0] if row else None

    def succeeded(self, destino: str) -> None:
        """Record a success after failures.

        Args:
            destino: the destination's name, as in the column ``destino``.
        """
        self._ask("select cauce.anotar_exito_de_destino(%s)", (destino,))

    def close(self) -> None:
        """Close the connection; the next use makes a new one."""
        with self._lock:
            if self._conn is not None:
                self._conn.close()
                self._conn = None

    def _ask(self, query: LiteralString | bytes, arguments: Sequence[object] | Mapping[str, object]) -> Any:  # noqa: ANN401 - a row, whose columns the query says
        """Run a statement, once more on a new connection if the old one turns out to be lost."""
        with self._lock:
            fresh = self._conn is None or self._conn.closed
            try:
                return self._connection().execute(query, arguments).fetchone()
            except psycopg.OperationalError:
                if fresh:
                    raise
                return self._connection().execute(query, arguments).fetchone()

    def _connection(self) -> Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._settings or Settings(), name="cauce destinations")
            weakref.finalize(self, self._conn.close)  # also when the process ends: a bus has nobody to close it
        return self._conn
