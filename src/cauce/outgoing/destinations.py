"""What is known of a webhook's destination: since when it fails, whether it is disabled. Kept in ``cauce.destinos``.

A destination that answered 410, or where nothing has succeeded for days, gets no more requests until somebody enables
it. One short query goes before each delivery, over one connection a process, from a thread: whatever loop the handler
runs in. The state is a courtesy to the receiver: where the database cannot be asked, deliveries go out without it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg import Connection

from cauce.config import Settings

if TYPE_CHECKING:
    from datetime import datetime

logger = logging.getLogger("cauce.outgoing")

DISABLE_AFTER: Final = 5 * 86_400.0
"""Seconds without a success after which a failure disables a destination; Svix waits as long."""
MAX_REASON: Final = 500
"""Characters kept of an error or a reason."""

FIND: LiteralString = (
    "select destino, fallando_desde, ultimo_fallo_en, ultimo_error, deshabilitado_en, motivo"
    " from cauce.destinos where destino = %s"
)


@dataclass(frozen=True, slots=True)
class Destino:
    """A row of ``cauce.destinos``: a destination that has failed since it last was enabled."""

    destino: str
    fallando_desde: datetime | None
    """The first failure since the last success; None: the last delivery succeeded."""
    ultimo_fallo_en: datetime | None
    ultimo_error: str | None
    deshabilitado_en: datetime | None
    """Since when nothing is sent there; None: it is enabled."""
    motivo: str | None


class Destinations:
    """The record of all destinations, in the application's database; one object may serve every ``Webhook``.

    Args:
        settings: where the database is; None: read from the environment when it is first needed.
        disable_after: seconds without a success after which a failure disables a destination.
    """

    def __init__(self, settings: Settings | None = None, *, disable_after: float = DISABLE_AFTER) -> None:
        self._settings, self._disable_after = settings, disable_after
        self._lock = threading.Lock()
        self._conn: Connection[Any] | None = None

    def find(self, destino: str) -> Destino | None:
        """Return what is known of a destination; None: it has never failed."""
        row = self._ask(FIND, destino)
        return Destino(*row) if row else None

    def disable(self, destino: str, motivo: str) -> None:
        """Let nothing go there any more."""
        self._ask("select cauce.deshabilitar_destino(%s, %s)", destino, motivo[:MAX_REASON])

    def enable(self, destino: str) -> bool:
        """Let deliveries go there again; say whether it was disabled. Those given up are brought back by a retry."""
        row = self._ask("select cauce.habilitar_destino(%s)", destino)
        return bool(row and row[0])

    def failed(self, destino: str, error: str) -> str | None:
        """Note a failure; return the reason if the destination is disabled now."""
        row = self._ask(
            "select cauce.anotar_fallo_de_destino(%s, %s, make_interval(secs => %s))",
            destino, error[:MAX_REASON], self._disable_after,
        )  # fmt: skip
        return row[0] if row else None

    def succeeded(self, destino: str) -> None:
        """Note a success after failures."""
        self._ask("select cauce.anotar_exito_de_destino(%s)", destino)

    def close(self) -> None:
        """Close the connection; the next use makes a new one."""
        with self._lock:
            if self._conn is not None:
                self._conn.close()
                self._conn = None

    def _ask(self, query: LiteralString, *arguments: object) -> Any:  # noqa: ANN401 - a row, whose columns the query says
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
            settings = self._settings or Settings()
            self._conn = psycopg.connect(
                settings.require_database_url(),
                autocommit=True,
                connect_timeout=10,
                prepare_threshold=None if settings.pooler else 5,
                application_name="cauce destinations",
            )
            weakref.finalize(self, self._conn.close)  # also when the process ends: a bus has nobody to close it
        return self._conn
