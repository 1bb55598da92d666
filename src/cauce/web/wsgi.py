"""A WSGI application (PEP 3333), to serve or to mount.

What WSGI cannot tell. A header that came twice is one here, joined by a comma, so ``Headers.get`` cannot refuse it. The
joined text goes to the verifier as it is, and passes only where a good signature of this very request is in it: a list
of signatures, such as Stripe's, is as good in two pieces as in one. Signed times and ids that came twice match nothing.
A path arrives decoded, and is encoded again for the address that some providers sign. And the connection belongs to the
server: ``Connection: close``, which the answer to too long a body has elsewhere, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http.client import responses
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.routing import compile_path

from cauce.web.answers import LEFT, ErrorCode, Failed, content, error, fields
from cauce.web.blocking import Blocking, in_chunks
from cauce.web.endpoints import PATHS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from starlette.types import Message, Scope

    from cauce.bus import Bus
    from cauce.config import Settings
    from cauce.web.secrets import SecretSource
    from cauce.webhooks import Answer, Provider

HOP_BY_HOP: Final = frozenset({"connection"})
"""Header fields of our answers that belong to the server: an application must not send them (PEP 3333)."""
AS_SENT: Final = "/!$&'()*+,;=:@"
"""What a path holds without percent signs, beside letters and digits (RFC 3986, ``pchar``)."""


def create_wsgi_app(
    bus: Bus, settings: Settings, *, providers: Iterable[Provider] = (), secrets: SecretSource | None = None
) -> WSGIApplication:
    """Make the application, to serve by itself or to mount in another; ``SCRIPT_NAME`` is part of its address.

    Args:
        bus: the application's bus, whose events ``procesar_lote`` processes.
        settings: Cauce's settings: the database, secrets and limits.
        providers: webhook providers, in addition to those of the bus and of ``cauce.webhooks.PROVIDERS``; a provider
            replaces one of the same ``origen``.
        secrets: a function from the name of a secret's setting to the secret, sync or async, as for ``create_app``. It
            is called in the thread of the event loop. By default the settings and the environment.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set, or a secret's setting cannot be read.
    """
    face = Blocking(bus, settings, providers=providers, secrets=secrets)
    routes = [(name, compile_path(path)[0]) for name, path in PATHS.items()]

    def find(environ: WSGIEnvironment) -> Answer:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode(errors="replace")
        for name, regex in routes:
            if match := regex.fullmatch(path):
                return face.respond(name, scope_of(environ, match.groupdict()), body_of(environ)) or LEFT
        return error(ErrorCode.UNKNOWN_ROUTE, "there is nothing at this address")

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = find(environ)
        start_response(f"{int(answer.status)} {responses.get(answer.status, '')}", end_to_end(answer))
        return [content(answer, environ["REQUEST_METHOD"])]

    return app


def end_to_end(answer: Answer) -> list[tuple[str, str]]:
    """Return the header fields of an answer that an application may send.

    Args:
        answer: the endpoint's answer.
    """
    return [field for field in fields(answer) if field[0] not in HOP_BY_HOP]


def scope_of(environ: WSGIEnvironment, path_params: Mapping[str, Any]) -> Scope:
    """Return a request as an ASGI scope.

    Args:
        environ: the request, as WSGI has it.
        path_params: the parameters in the request's path.
    """
    root: str = environ.get("SCRIPT_NAME", "")
    path = (root + environ.get("PATH_INFO", "")).encode("latin-1")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.1").removeprefix("HTTP/"),
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "path": path.decode(errors="replace"),
        "raw_path": quote(path, AS_SENT).encode(),
        "root_path": root.encode("latin-1").decode(errors="replace"),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": list(_headers(environ)),
        "path_params": dict(path_params),
    }


def body_of(environ: WSGIEnvironment) -> Iterator[Message]:
    """Read a request's body: as far as it was announced or, where the server marks its end, to that.

    Nothing is read before the first message is asked for: most endpoints ask for none.

    Args:
        environ: the request, as WSGI has it.

    Raises:
        Failed: the body has no length that can be read, and the server does not mark its end.
    """
    declared: str = environ.get("CONTENT_LENGTH") or ""
    read = environ["wsgi.input"].read
    if declared.isdecimal():
        yield from in_chunks(read, int(declared))
    elif environ.get("wsgi.input_terminated"):
        yield from in_chunks(read)
    elif declared or "HTTP_TRANSFER_ENCODING" in environ:
        raise Failed(error(ErrorCode.NO_LENGTH, "the body needs a Content-Length; this server takes no chunks"))
    else:
        yield from in_chunks(read, 0)


def _headers(environ: WSGIEnvironment) -> Iterator[tuple[bytes, bytes]]:
    """Yield the header fields, with their HTTP names."""
    for name, value in environ.items():
        if name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if value:
                yield name.lower().replace("_", "-").encode("latin-1"), value.encode("latin-1")
        elif name.startswith("HTTP_") and name not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
            yield name[5:].lower().replace("_", "-").encode("latin-1"), value.encode("latin-1")
