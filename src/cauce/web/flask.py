"""A Flask blueprint to register. Werkzeug's dispatcher can also mount ``create_wsgi_app``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Request, Response, request

from cauce.web.answers import LEFT
from cauce.web.blocking import Blocking, lost, whole
from cauce.web.endpoints import METHODS, PATHS
from cauce.web.wsgi import body_of, end_to_end, scope_of

if TYPE_CHECKING:
    from starlette.types import Message

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.web.secrets import SecretSource
    from cauce.webhooks import Provider


def create_blueprint(
    bus: Bus, settings: Settings, *, providers: Iterable[Provider] = (), secrets: SecretSource | None = None
) -> Blueprint:
    """Make a blueprint of the three endpoints, for ``app.register_blueprint``, with an ``url_prefix`` or without.

    Args:
        bus: the application's bus, whose events ``procesar_lote`` processes.
        settings: Cauce's settings: the database, secrets and limits. Flask's ``MAX_CONTENT_LENGTH`` is ignored:
            ``CAUCE_MAX_BODY_BYTES`` limits the body.
        providers: webhook providers, in addition to those of the bus and of ``cauce.webhooks.PROVIDERS``; a provider
            replaces one of the same ``origen``.
        secrets: a function from the name of a secret's setting to the secret, sync or async, as for ``create_app``. It
            is called in the thread of the event loop. By default the settings and the environment.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set, or a secret's setting cannot be read.
    """
    face = Blocking(bus, settings, providers=providers, secrets=secrets)
    blueprint = Blueprint("cauce", __name__)
    for name, path in PATHS.items():
        rule = path.replace("{", "<").replace("}", ">")
        view = _view(face, name)
        blueprint.add_url_rule(rule, name, view, methods=METHODS, provide_automatic_options=False)
    return blueprint


def _view(face: Blocking, name: str) -> Callable[..., Response]:
    """Make a view of an endpoint."""

    def view(**path_params: Any) -> Response:  # noqa: ANN401 - what Flask's converters make of a path
        answer = face.respond(name, scope_of(request.environ, path_params), _body(request)) or LEFT
        response = Response(answer.body, answer.status)  # Werkzeug sends no body to a HEAD
        response.headers.clear()
        response.headers.extend(end_to_end(answer))
        return response

    return view


def _body(request: Request) -> Iterator[Message]:
    """Return the body as the server gives it, or as a hook of the application has read and kept it."""
    if "stream" not in vars(request):  # where Werkzeug keeps the stream it has begun to read
        return body_of(request.environ)
    kept = request.get_data()
    return whole(kept) if request.content_length in (None, len(kept)) else lost()
