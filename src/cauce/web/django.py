"""Django URL patterns to include, for its WSGI handler and its ASGI handler.

The views are synchronous. For an asynchronous view, the WSGI handler makes an event loop per request, and connections
cannot be kept from one loop to the next; the ASGI handler runs a synchronous view in a thread, where it may block.
"""

# Django has no types in its wheel.
# pyright: basic, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.core.handlers.asgi import ASGIRequest
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from cauce.web.answers import LEFT, content
from cauce.web.blocking import Blocking, in_chunks, lost, whole
from cauce.web.endpoints import PATHS
from cauce.web.wsgi import body_of, end_to_end, scope_of

if TYPE_CHECKING:
    from starlette.types import Message, Scope

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.web.secrets import SecretSource
    from cauce.webhooks import Provider


def create_urls(
    bus: Bus, settings: Settings, *, providers: Iterable[Provider] = (), secrets: SecretSource | None = None
) -> list[URLPattern]:
    """Make URL patterns of the three endpoints, to add to ``urlpatterns`` or to ``include`` under a prefix.

    The views are exempt from CSRF protection, from ``LoginRequiredMiddleware`` and from ``ATOMIC_REQUESTS``: callers
    prove themselves by a signature or a bearer token, and the views use their own connection.

    Args:
        bus: the application's bus, whose events ``procesar_lote`` processes.
        settings: Cauce's settings: the database, secrets and limits. ``DATA_UPLOAD_MAX_MEMORY_SIZE`` is ignored,
            unless a middleware reads the body first: ``CAUCE_MAX_BODY_BYTES`` limits the body. Under ASGI, Django first
            writes the whole request to disk.
        providers: webhook providers, in addition to those of the bus and of ``cauce.webhooks.PROVIDERS``; a provider
            replaces one of the same ``origen``.
        secrets: a function from the name of a secret's setting to the secret, sync or async, as for ``create_app``. It
            is called in the thread of the event loop. By default the settings and the environment.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set, or a secret's setting cannot be read.
    """
    face = Blocking(bus, settings, providers=providers, secrets=secrets)
    patterns: list[Any] = [
        path(route[1:].replace("{", "<").replace("}", ">"), _view(face, name), name=f"cauce_{name}")
        for name, route in PATHS.items()
    ]
    return patterns


def _view(face: Blocking, name: str) -> Callable[..., HttpResponse]:
    """Make a view of an endpoint."""

    def view(request: HttpRequest, **path_params: str) -> HttpResponse:
        answer = face.respond(name, _scope(request, path_params), _body(request)) or LEFT
        response = HttpResponse(content(answer, request.method or ""), status=answer.status)
        del response["Content-Type"]
        for field, value in end_to_end(answer):
            response[field] = value
        return response

    vars(view).update(csrf_exempt=True, login_required=False)  # what csrf_exempt and login_not_required do
    transaction.non_atomic_requests(view)
    return view


def _scope(request: HttpRequest, path_params: dict[str, Any]) -> Scope:
    """Return a request as ASGI has it: the server's own scope, or one made of WSGI's environment."""
    if isinstance(request, ASGIRequest):
        return {**request.scope, "path_params": path_params}
    return scope_of(_environ(request), path_params)


def _environ(request: HttpRequest) -> dict[str, Any]:
    """Return WSGI's environment as the server gave it: Django decodes its paths in place."""
    paths = {name: request.META[name].encode().decode("latin-1") for name in ("SCRIPT_NAME", "PATH_INFO")}
    return {**request.META, **paths}


def _body(request: HttpRequest) -> Iterator[Message]:
    """Return the body as the server gives it, or as a middleware has read and kept it.

    Not through ``request.read`` under WSGI: it does not read chunks.
    """
    kept: bytes | None = vars(request).get("_body")  # where ``request.body`` keeps what it has read
    if kept:
        return whole(kept)
    if kept is None and vars(request).get("_read_started"):
        return lost()
    return in_chunks(request.read) if isinstance(request, ASGIRequest) else body_of(request.META)
