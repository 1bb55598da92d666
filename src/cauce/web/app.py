"""The Starlette application, to serve or to mount."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from cauce.web.answers import Endpoint, ErrorCode, error
from cauce.web.endpoints import PATHS, Endpoints

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.web.secrets import SecretSource
    from cauce.webhooks import Answer, Provider


def create_app(
    bus: Bus,
    settings: Settings,
    *,
    providers: Iterable[Provider] = (),
    secrets: SecretSource | None = None,
) -> Starlette:
    """Make the application, to serve by itself or to mount in another.

    ``POST /api/webhooks/{origen}``, ``GET|POST /api/trabajadores/procesar_lote``, ``GET /api/salud``. It connects to
    the database at the first request. Its lifespan closes the connections; an application that mounts this one may run
    it (``async with app.router.lifespan_context(app)``), or else the database server logs lost clients.

    Args:
        bus: the application's bus, whose events ``procesar_lote`` processes.
        settings: Cauce's settings: the database, secrets and limits.
        providers: webhook providers, in addition to those of the bus and of ``cauce.webhooks.PROVIDERS``; a provider
            replaces one of the same ``origen``.
        secrets: a function from the name of a secret's setting (``GITHUB_WEBHOOK_SECRET``) to its text, a ``Secret``,
            several, or None; sync or async. It is called for every delivery, so a rotation needs no restart. A sync
            function must not block. An async function may take ``cauce.web.secrets.SOURCE_SECONDS`` (2 s), and its
            result is used for ``KEPT_SECONDS`` (5 s). If it raises or takes longer, the delivery is answered 503. By
            default ``settings.stripe_webhook_secret`` and, for all others, the environment.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set, or a secret's setting cannot be read.
        WrongArgument: ``bus`` is not a ``Bus``, or ``settings`` is not a ``Settings``.
    """
    endpoints = Endpoints(bus, settings, providers=providers, secrets=secrets)

    app = Starlette(
        routes=[Route(PATHS[name], endpoint, name=name) for name, endpoint in endpoints.by_name.items()],
        lifespan=endpoints.lifespan,
    )
    app.router.redirect_slashes = False  # no sender of webhooks follows a redirection
    app.router.default = _Nowhere()
    return app


class _Nowhere(Endpoint):
    """Every other address."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or turn a WebSocket away."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await super().__call__(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive) -> Answer:  # noqa: ARG002 - nothing is asked
        """Answer 404."""
        return error(ErrorCode.UNKNOWN_ROUTE, "there is nothing at this address")
