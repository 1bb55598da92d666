"""``GET|POST /api/trabajadores/procesar_lote``: a cron's call works as a worker for some seconds."""

from __future__ import annotations

import hmac
import logging
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import psycopg

from cauce.engine.cron import procesar_lote
from cauce.errors import CauceError
from cauce.web.answers import Endpoint, ErrorCode, Failed, error, json_answer, no_database, wrong_method
from cauce.web.body import read_headers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.webhooks import Answer, Headers

logger = logging.getLogger("cauce.web")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A whole number in the query, with its bounds."""

    name: str
    default: int
    least: int
    most: int

    def read(self, query: dict[str, list[str]]) -> int:
        """Return its value.

        Raises:
            Failed: it is there twice, is no whole number, or is out of bounds.
        """
        texts = query.get(self.name)
        if texts is None:
            return self.default
        if len(texts) == 1 and re.fullmatch("[0-9]{1,9}", texts[0]) and self.least <= int(texts[0]) <= self.most:
            return int(texts[0])
        detalle = f"{self.name} must be one whole number from {self.least} to {self.most}"
        raise Failed(error(ErrorCode.BAD_PARAMETER, detalle))


LIMITE: Final = Parameter("limite", 500, 1, 10_000)
"""Deliveries that one call claims at most."""
SEGUNDOS: Final = Parameter("segundos", 20, 1, 300)
"""Seconds after which a call begins no further batch."""


class ProcesarLote(Endpoint):
    """Processes what is due, for whoever knows ``CRON_SECRET``. Two calls at once share the work, as workers do."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._bus, self._settings = bus, settings
        self._secret = settings.cron_secret.get_secret_value().strip().encode()

    async def answer(self, scope: Scope, receive: Receive) -> Answer:  # noqa: ARG002 - there is nothing in the body
        """Do one call's work."""
        if scope["method"] not in ("GET", "POST"):
            return wrong_method("GET", "POST")
        self._authorize(read_headers(scope))
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        limite, segundos = LIMITE.read(query), SEGUNDOS.read(query)
        try:
            return json_answer(await procesar_lote(self._bus, self._settings, limite=limite, segundos=segundos))
        except (psycopg.Error, CauceError) as problem:
            logger.exception(
                "procesar_lote could not use the database, and is answered %d", HTTPStatus.SERVICE_UNAVAILABLE
            )
            return no_database(problem)

    def _authorize(self, headers: Headers) -> None:
        """Compare the bearer's secret in constant time.

        Raises:
            Failed: it is another one, or none is configured here.
        """
        if not self._secret:
            raise Failed(error(ErrorCode.NO_SECRET, "CRON_SECRET is not set here"))
        scheme, _, given = (headers.get("authorization") or "").partition(" ")
        good = hmac.compare_digest(given.strip().encode("latin-1"), self._secret)
        if scheme.lower() != "bearer" or not good:
            detalle = "send the header Authorization: Bearer, followed by CRON_SECRET"
            raise Failed(error(ErrorCode.UNAUTHORIZED, detalle, {"www-authenticate": 'Bearer realm="cauce"'}))
