"""How every endpoint answers: one shape of error, one closed list of codes, no internals shown to strangers.

Endpoints are ASGI applications without a framework's request and response objects, for speed.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg

from cauce.database.refusals import explained
from cauce.errors import ForeignRestore, SchemaError
from cauce.web.framing import RULE, hang_up, is_ambiguous
from cauce.webhooks import Answer

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger("cauce.web")

JSON: Final = "application/json"
RETRY_AFTER_SECONDS: Final = 10
"""Seconds after which a sender may retry, if the database is unavailable."""
NOT_MIGRATED: Final = "the tables of schema cauce are missing or old; run: cauce migrate module:bus"
WRONG_CLUSTER: Final = "the database was restored into a younger cluster, where nothing is published or processed"


class ErrorCode(StrEnum):
    """Every ``error`` that an endpoint answers, with its HTTP status."""

    status: HTTPStatus
    """The HTTP status of the answer."""

    def __new__(cls, value: str, status: HTTPStatus) -> Self:
        """Keep the status beside the text."""
        code = str.__new__(cls, value)
        code._value_, code.status = value, status
        return code

    BAD_SIGNATURE = "firma_invalida", HTTPStatus.BAD_REQUEST
    BAD_PARAMETER = "parametro_invalido", HTTPStatus.BAD_REQUEST
    UNAUTHORIZED = "no_autorizado", HTTPStatus.UNAUTHORIZED
    UNKNOWN_ORIGIN = "origen_desconocido", HTTPStatus.NOT_FOUND
    UNKNOWN_ROUTE = "ruta_desconocida", HTTPStatus.NOT_FOUND
    WRONG_METHOD = "metodo_no_permitido", HTTPStatus.METHOD_NOT_ALLOWED
    BAD_FRAMING = "longitud_ambigua", HTTPStatus.BAD_REQUEST
    SHORT_BODY = "cuerpo_incompleto", HTTPStatus.BAD_REQUEST
    SLOW_HEADERS = "cabeceras_demasiado_lentas", HTTPStatus.REQUEST_TIMEOUT
    SLOW_BODY = "cuerpo_demasiado_lento", HTTPStatus.REQUEST_TIMEOUT
    NO_LENGTH = "longitud_requerida", HTTPStatus.LENGTH_REQUIRED
    BODY_TOO_LARGE = "cuerpo_demasiado_grande", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    HEADERS_TOO_LARGE = "cabeceras_demasiado_grandes", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    INTERNAL = "interno", HTTPStatus.INTERNAL_SERVER_ERROR
    NO_SECRET = "sin_secreto", HTTPStatus.SERVICE_UNAVAILABLE
    CANNOT_VERIFY = "verificacion_no_disponible", HTTPStatus.SERVICE_UNAVAILABLE
    NO_DATABASE = "base_de_datos_no_disponible", HTTPStatus.SERVICE_UNAVAILABLE
    RESTORED = "base_de_datos_restaurada", HTTPStatus.SERVICE_UNAVAILABLE
    TOO_MANY_CONNECTIONS = "demasiadas_conexiones", HTTPStatus.SERVICE_UNAVAILABLE
    OLD_SCHEMA = "esquema_anticuado", HTTPStatus.SERVICE_UNAVAILABLE


class Failed(Exception):  # noqa: N818 - control flow inside an endpoint, never seen outside
    """Carries an error answer to ``Endpoint.respond``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Disconnected(Exception):  # noqa: N818 - control flow inside an endpoint, never seen outside
    """The client disconnected before its request was complete."""


def json_answer(
    value: Mapping[str, Any], status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Answer:
    """Make an answer of a JSON object."""
    return Answer(status, json.dumps(value).encode(), JSON, tuple((headers or {}).items()))


def error(code: ErrorCode, detalle: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Make an error answer.

    ``detalle`` may appear in the sender's log: no secrets, nothing of the body, no text of the database.
    """
    return json_answer({"error": code, "detalle": detalle}, code.status, headers)


def no_database(problem: Exception) -> Answer:
    """Answer that the database is unavailable, refuses a statement, is not migrated, or is a foreign restore."""
    known = explained(problem) if isinstance(problem, psycopg.Error) else problem
    if isinstance(known, ForeignRestore):
        code, detalle = ErrorCode.RESTORED, f"{WRONG_CLUSTER}; nothing was stored. Try again later"
    elif isinstance(known, SchemaError):
        code, detalle = ErrorCode.OLD_SCHEMA, f"{NOT_MIGRATED}. Nothing was stored; try again later"
    else:
        code, detalle = ErrorCode.NO_DATABASE, "the database could not be used; nothing was stored. Try again later"
    return error(code, detalle, {"retry-after": str(RETRY_AFTER_SECONDS)})


def wrong_method(*allowed: str) -> Answer:
    """Answer that only these methods are served here."""
    names = ", ".join(allowed)
    return error(ErrorCode.WRONG_METHOD, f"this address takes {names} only", {"allow": names})


class Endpoint(ABC):
    """An ASGI application that answers every request, whatever happens."""

    @abstractmethod
    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Answer a request; raise ``Failed`` to answer an error."""

    async def respond(self, scope: Scope, receive: Receive) -> Answer | None:
        """Answer one request, whatever happens; None if the client has disconnected."""
        try:
            if is_ambiguous(scope):
                return error(ErrorCode.BAD_FRAMING, RULE, hang_up(scope))
            return await self.answer(scope, receive)
        except Failed as failed:
            return failed.answer
        except Disconnected:
            return None
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            return error(ErrorCode.INTERNAL, "something went wrong here; the log of the server says what")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request over ASGI."""
        answer = await self.respond(scope, receive)
        if answer is not None:
            await send_answer(answer, scope, send)


LEFT: Final = Answer(HTTPStatus.BAD_REQUEST)
"""The answer for a client that has disconnected, where a framework must send one."""


def fields(answer: Answer) -> list[tuple[str, str]]:
    """Return all header fields of an answer, those of its body included."""
    headers = list(answer.headers)
    if answer.content_type is not None:
        headers.append(("content-type", answer.content_type))
    if answer.status != HTTPStatus.NO_CONTENT:
        headers.append(("content-length", str(len(answer.body))))
    return headers


def content(answer: Answer, method: str) -> bytes:
    """Return the body to send: none to a HEAD, whose header fields still describe the body."""
    return b"" if method == "HEAD" else answer.body


async def send_answer(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer over ASGI."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields(answer)]
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    await send({"type": "http.response.body", "body": content(answer, scope["method"])})
