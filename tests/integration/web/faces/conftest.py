"""Every face of the inbox, in its real framework, behind a real server on the loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from types import ModuleType
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import httpx
import psycopg
import pytest
import uvicorn
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test.utils import override_settings
from django.urls import include, path
from fastapi import FastAPI
from flask import Flask
from psycopg.rows import dict_row
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler as WerkzeugHandler
from werkzeug.serving import make_server

from cauce import Bus, Settings
from cauce.testing import Database, Server
from cauce.web import SecretSource, create_app
from cauce.web.django import create_urls
from cauce.web.fastapi import create_router
from cauce.web.flask import create_blueprint
from cauce.web.wsgi import create_wsgi_app
from tests import django_settings

CAP: Final = 200_000
"""Bytes of a body at most, more than are read at a time."""
CRON_SECRET: Final = "cron secret"
SECONDS: Final = 30.0
"""After which a test that waits for a server gives up."""
SECRETS: Final = {
    "STRIPE_WEBHOOK_SECRET": "whsec_one",
    "SLACK_SIGNING_SECRET": "slack's",
    "SQUARE_WEBHOOK_SIGNATURE_KEY": "square's",
    "DISCORD_PUBLIC_KEY": "d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737",
}


django_settings.configure()


@dataclass(frozen=True)
class Place:
    """What a face is made of."""

    bus: Bus
    settings: Settings
    secrets: SecretSource


@dataclass(frozen=True)
class Face:
    """An inbox that is being served, and its database."""

    name: str
    url: str
    """The address it is under, prefix included."""
    dsn: str
    client: httpx.Client = field(repr=False)
    prefix: str = ""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Make one request."""
        return self.client.request(method, self.url + path, **more)

    def speak(self, head: str, *pieces: bytes, end: bool = False) -> bytes:
        """Send a request by hand: the head without its first slash's prefix, then the body; read until the server ends.

        Args:
            head: with ``{prefix}`` where the prefix belongs.
            pieces: of the body, sent together with the head.
            end: whether to say that nothing more will come.
        """
        text = head.replace("{prefix}", self.prefix).replace("\n", "\r\n") + "\r\n"
        with socket.create_connection(self.address, timeout=SECONDS) as sock:
            with contextlib.suppress(ConnectionError):  # a server that refuses may hang up early
                sock.sendall(text.encode("latin-1") + b"".join(pieces))
                if end:
                    sock.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := sock.recv(65_536):
                answer += chunk
                if end_of(answer):
                    break
        return answer

    def query(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Ask the database."""
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as conn:
            return conn.execute(query, values).fetchall()

    def stored(self, *names: str) -> list[str]:
        """Return which of these ids are in the table, in the order they came."""
        rows = self.query("select id_externo from cauce.eventos where id_externo = any(%s) order by id", list(names))
        return [row["id_externo"] for row in rows]

    def count(self) -> int:
        """Return how many events there are."""
        return int(self.query("select count(*) n from cauce.eventos")[0]["n"])


def end_of(answer: bytes) -> bool:
    """Whether an answer is complete, as far as its own Content-Length says."""
    head, found, body = answer.partition(b"\r\n\r\n")
    fields = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    lengths = [int(value) for name, _, value in fields if name == b"content-length"]
    return bool(found and lengths and len(body) >= lengths[0])


@contextlib.contextmanager
def serve_asgi(app: Any, *, lifespan: bool = True) -> Generator[str]:
    """Serve it by uvicorn in a thread; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # What ``X-Forwarded-*`` says is the server's to believe: this one is told not to.
        config = uvicorn.Config(app, log_config=None, lifespan="on" if lifespan else "off", proxy_headers=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class QuietWerkzeug(WerkzeugHandler):
    """Logs no requests."""

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - Werkzeug's name
        """Log nothing."""


class Quiet(WSGIRequestHandler):
    """The same, of wsgiref."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class ThreadedServer(ThreadingMixIn, WSGIServer):
    """The standard library's server, a thread a request."""

    daemon_threads = True


@contextlib.contextmanager
def running(server: Any) -> Generator[str]:
    """Run a server in a thread; yield its address."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serve_wsgi(app: Any) -> AbstractContextManager[str]:
    """Serve it by Werkzeug's server, which takes chunks."""
    return running(make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietWerkzeug))


def serve_wsgiref(app: Any) -> AbstractContextManager[str]:
    """Serve it by the standard library's server, which knows the bare minimum."""
    server = ThreadedServer(("127.0.0.1", 0), Quiet)
    server.set_app(app)
    return running(server)


@contextlib.contextmanager
def django_urls(place: Place, prefix: str = "") -> Generator[None]:
    """Have Django route to the face."""
    urls = ModuleType("urls_of_a_face")
    patterns = create_urls(place.bus, place.settings, secrets=place.secrets)
    urls.urlpatterns = [path(prefix, include(patterns))] if prefix else patterns  # type: ignore[attr-defined]  # a module made here
    with override_settings(ROOT_URLCONF=urls):
        yield


def not_found(_: object, start_response: Any) -> list[bytes]:
    """Answer 404: the WSGI application around a mounted one."""
    start_response("404 Not Found", [("content-length", "0")])
    return []


@contextlib.contextmanager
def starlette_alone(place: Place) -> Generator[str]:
    """The Starlette application itself."""
    with serve_asgi(create_app(place.bus, place.settings, secrets=place.secrets)) as url:
        yield url


@contextlib.contextmanager
def fastapi_router(place: Place) -> Generator[str]:
    """A router in a FastAPI application, under a prefix."""
    app = FastAPI(redirect_slashes=False)
    app.include_router(create_router(place.bus, place.settings, secrets=place.secrets), prefix="/pagos")
    with serve_asgi(app) as url:
        yield url + "/pagos"


@contextlib.contextmanager
def fastapi_mount(place: Place) -> Generator[str]:
    """The Starlette application, mounted at the root of a FastAPI application."""
    endpoints = create_app(place.bus, place.settings, secrets=place.secrets)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        async with endpoints.router.lifespan_context(endpoints):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/", endpoints)
    with serve_asgi(app) as url:
        yield url


@contextlib.contextmanager
def wsgi_on_wsgiref(place: Place) -> Generator[str]:
    """The WSGI application, served by the standard library."""
    with serve_wsgiref(create_wsgi_app(place.bus, place.settings, secrets=place.secrets)) as url:
        yield url


@contextlib.contextmanager
def flask_blueprint(place: Place) -> Generator[str]:
    """A blueprint in a Flask application, under a prefix."""
    app = Flask(__name__)
    app.register_blueprint(
        create_blueprint(place.bus, place.settings, secrets=place.secrets), url_prefix="/pagos/(caf\u00e9)"
    )
    with serve_wsgi(app) as url:
        yield url + "/pagos/(caf%C3%A9)"


@contextlib.contextmanager
def flask_mount(place: Place) -> Generator[str]:
    """The WSGI application, mounted beside a Flask application."""
    mounted = create_wsgi_app(place.bus, place.settings, secrets=place.secrets)
    with serve_wsgi(DispatcherMiddleware(Flask(__name__), {"/cauce": mounted})) as url:
        yield url + "/cauce"


@contextlib.contextmanager
def django_on_wsgi(place: Place) -> Generator[str]:
    """Django's WSGI handler, with the face under a prefix that is not ASCII."""
    with django_urls(place, "pagos/\u20ac/"), serve_wsgi(WSGIHandler()) as url:
        yield url + "/pagos/%E2%82%AC"


@contextlib.contextmanager
def django_on_asgi(place: Place) -> Generator[str]:
    """Django's ASGI handler, with the face under a prefix."""
    with django_urls(place, "pagos/"), serve_asgi(ASGIHandler(), lifespan=False) as url:
        yield url + "/pagos"


FACES: Final = {
    face.__name__: face
    for face in (
        starlette_alone, fastapi_router, fastapi_mount, wsgi_on_wsgiref, flask_blueprint, flask_mount, django_on_wsgi,
        django_on_asgi,
    )
}  # fmt: skip


@pytest.fixture(scope="session")
def make_settings() -> Callable[[str], Settings]:
    """Makes an application's settings of a database's address."""

    def make(dsn: str) -> Settings:
        return Settings.model_validate({"database_url": dsn, "cron_secret": CRON_SECRET, "max_body_bytes": CAP})

    return make


@pytest.fixture(scope="module", params=FACES)
def face(
    request: pytest.FixtureRequest, cauce_server: Server, bus: Bus, make_settings: Callable[[str], Settings]
) -> Iterator[Face]:
    """Each face, with a database that the tests of a module share: each test uses ids of its own."""
    serve = FACES[request.param]
    with (
        cauce_server.migrated() as database,
        serve(Place(bus, make_settings(database.dsn), SECRETS.get)) as url,
        httpx.Client(timeout=SECONDS) as client,
    ):
        yield Face(request.param, url, database.dsn, client, httpx.URL(url).raw_path.decode().rstrip("/"))


@pytest.fixture
def place(db: Database, bus: Bus, make_settings: Callable[[str], Settings]) -> Place:
    """What a face is made of, on a fresh database."""
    return Place(bus, make_settings(db.dsn), SECRETS.get)


@pytest.fixture(scope="session")
def over_asgi() -> Callable[..., AbstractContextManager[str]]:
    """Serves an ASGI application."""
    return serve_asgi


@pytest.fixture(scope="session")
def over_wsgi() -> Callable[[Any], AbstractContextManager[str]]:
    """Serves a WSGI application."""
    return serve_wsgi


@pytest.fixture(scope="session")
def in_django() -> Callable[..., AbstractContextManager[None]]:
    """Routes Django to a face."""
    return django_urls
