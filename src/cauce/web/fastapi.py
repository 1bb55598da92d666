"""A FastAPI router to include, with a prefix and dependencies if needed.

``app.mount("/", create_app(...))`` works too, but without the application's dependencies, and FastAPI does not run the
lifespan of a mounted application.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from cauce.web.answers import LEFT, Endpoint, content, fields
from cauce.web.endpoints import METHODS, PATHS, Endpoints

if TYPE_CHECKING:
    from starlette.types import Message, Receive

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.web.secrets import SecretSource
    from cauce.webhooks import Provider


def create_router(
    bus: Bus, settings: Settings, *, providers: Iterable[Provider] = (), secrets: SecretSource | None = None
) -> APIRouter:
    """Make a router of the three endpoints, for ``app.include_router``; at the end it closes its connections.

    The endpoints are FastAPI routes, so the arguments of ``include_router`` (``prefix``, ``dependencies``) apply. They
    are not in the OpenAPI schema, because no generated client calls them.

    Args:
        bus: the application's bus, whose events ``procesar_lote`` processes.
        settings: Cauce's settings: the database, secrets and limits.
        providers: webhook providers, in addition to those of the bus and of ``cauce.webhooks.PROVIDERS``; a provider
            replaces one of the same ``origen``.
        secrets: a function from the name of a secret's setting to the secret, sync or async, as for ``create_app``. By
            default the settings and the environment.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set, or a secret's setting cannot be read.
        WrongArgument: ``bus`` is not a ``Bus``, or ``settings`` is not a ``Settings``.
    """
    endpoints = Endpoints(bus, settings, providers=providers, secrets=secrets)
    router = APIRouter(lifespan=endpoints.lifespan, redirect_slashes=False)
    for name, endpoint in endpoints.by_name.items():
        router.add_api_route(PATHS[name], _route(endpoint), methods=[*METHODS], name=name, include_in_schema=False)
    return router


def _route(endpoint: Endpoint) -> Callable[[Request], Coroutine[Any, Any, Response]]:

    async def respond(request: Request) -> Response:
        answer = await endpoint.respond(request.scope, _receive(request)) or LEFT
        response = Response(content(answer, request.method), answer.status)
        response.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields(answer)]
        return response

    # FastAPI resolves annotations, and those of this module are text.
    respond.__annotations__ = {"request": Request, "return": Response}
    return respond


def _receive(request: Request) -> Receive:
    """Receive a request's body, though a dependency may have read it: Starlette keeps it for the next reader."""
    chunks = request.stream()

    async def receive() -> Message:
        try:
            chunk = await anext(chunks, b"")
        except ClientDisconnect:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    return receive
