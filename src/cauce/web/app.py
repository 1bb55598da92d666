"""The application: its routes, and what they share."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from cauce.web.answers import ErrorCode, error
from cauce.web.connections import Connections
from cauce.web.salud import PATH, Salud
from cauce.web.trabajadores import ProcesarLote
from cauce.web.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from starlette.requests import Request

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.web.webhooks import SecretSource
    from cauce.webhooks import Provider


def create_app(
    bus: Bus,
    settings: Settings,
    *,
    providers: Iterable[Provider] = (),
    secrets: SecretSource | None = None,
) -> Starlette:
    """Make the application, to serve by itself or to mount in another.

    ``POST /api/webhooks/{origen}``, ``GET|POST /api/trabajadores/procesar_lote``, ``GET /api/salud``. Nothing is
    connected to before the first request. Its lifespan closes the connections at the end; an application that mounts
    this one may run it (``async with app.router.lifespan_context(app)``) or leave it, at the price of the server's
    log saying that clients went away.

    Args:
        bus: whose events ``procesar_lote`` processes. Webhooks are stored whether the bus knows their type or not.
        settings: database, secrets, limits.
        providers: of webhooks, beside those of ``cauce.webhooks.PROVIDERS``; one of the same ``origen`` replaces it.
        secrets: from the name of a provider's setting (``GITHUB_WEBHOOK_SECRET``) to its secret, or several separated
            by commas, or None; asked for every delivery. By default ``settings.stripe_webhook_secret`` and, for all
            others, the environment.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set.
    """
    connections = Connections(settings)
    inbox = Webhooks(connections, providers, secrets or _secrets_of(settings), settings.max_body_bytes)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await connections.close()

    app = Starlette(
        routes=[
            Route("/api/webhooks/{origen}", inbox),
            Route("/api/trabajadores/procesar_lote", ProcesarLote(bus, settings)),
            Route(PATH, Salud(connections)),
        ],
        exception_handlers={HTTPException: _unknown_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # no sender of webhooks follows a redirection
    return app


def _secrets_of(settings: Settings) -> SecretSource:
    """Look secrets up in the settings, then in the environment."""
    stripe = settings.stripe_webhook_secret.get_secret_value()

    def secret(name: str) -> str | None:
        return stripe if name == "STRIPE_WEBHOOK_SECRET" else os.environ.get(name)

    return secret


async def _unknown_route(_: Request, __: Exception) -> Response:
    """Answer for an address that is none of ours."""
    answer = error(ErrorCode.UNKNOWN_ROUTE, "there is nothing at this address")
    return Response(answer.body, answer.status, media_type=answer.content_type)
