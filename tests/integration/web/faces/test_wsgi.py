"""WSGI: what an environment tells, what it cannot, and the life of the loop behind it."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final
from wsgiref.types import WSGIApplication

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from cauce import Bus, ConfigError, Settings
from cauce.cli.simulator import Plan
from cauce.testing import Database, wait_for
from cauce.web import body as reading
from cauce.web.blocking import CHUNK_BYTES
from cauce.web.wsgi import create_wsgi_app, scope_of
from cauce.webhooks import PROVIDERS, Headers, Rejected, Secret, Verified
from cauce.webhooks.explaining.diagnose import signature_headers
from cauce.webhooks.trying.keys import new_keys
from cauce.webhooks.trying.samples import samples_of
from tests.integration.web.conftest import Delivery, Sign
from tests.integration.web.faces.conftest import Place

OPEN: Final = (
    "select count(*) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)


def environ(delivery: Delivery | None = None, /, **more: Any) -> dict[str, Any]:
    """Make a request to Stripe's inbox, or with ``PATH_INFO`` to another address."""
    body = delivery.body if delivery else b""
    signature = delivery.headers["stripe-signature"] if delivery else ""
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/api/webhooks/stripe",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_HOST": "localhost",
        "HTTP_STRIPE_SIGNATURE": signature,
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        **more,
    }


def call(app: WSGIApplication, request: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """Call an application as a server does."""
    started: list[tuple[str, dict[str, str]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
        started.append((status, dict(headers)))

    body = b"".join(app(request, start_response))
    (answer,) = started
    return (*answer, body)


@pytest.fixture
def app(place: Place) -> WSGIApplication:
    """The application, without a server."""
    return create_wsgi_app(place.bus, place.settings, secrets=place.secrets)


def stored(db: Database) -> list[str]:
    """Return the ids in the table."""
    with db.connect() as conn:
        return [row[0] for row in conn.execute("select id_externo from cauce.eventos order by id")]


def connections(db: Database) -> int:
    """Return how many others are connected."""
    with db.connect(autocommit=True) as conn:
        row = conn.execute(OPEN).fetchone()
    assert row is not None
    return int(row[0])


def test_a_database_is_needed_at_once(bus: Bus) -> None:
    """A missing ``DATABASE_URL`` is said when the application is made."""
    with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
        create_wsgi_app(bus, Settings(database_url=""))


def test_the_address_of_a_mounted_application(app: WSGIApplication) -> None:
    """``SCRIPT_NAME`` and ``PATH_INFO`` are one path again, encoded as it was sent, the query as it is."""
    seen: list[dict[str, Any]] = []

    def spy(environ: dict[str, Any], start_response: Any) -> Any:
        seen.append(environ)
        return app(environ, start_response)

    path = "/pagos (a)/caf\u00e9/api/webhooks/nobody".encode().decode("latin-1")
    request = environ(PATH_INFO=path, QUERY_STRING="a=%20&b=\u00e9")
    mounted = DispatcherMiddleware(app, {"/pagos (a)/caf\u00e9".encode().decode("latin-1"): spy})
    status, _, _ = call(mounted, request)
    scope = scope_of(seen[0], {})
    assert status.startswith("404 ")
    assert scope["path"] == "/pagos (a)/caf\u00e9/api/webhooks/nobody"
    assert scope["root_path"] == "/pagos (a)/caf\u00e9"
    assert scope["raw_path"] == b"/pagos%20(a)/caf%C3%A9/api/webhooks/nobody"
    assert scope["query_string"] == "a=%20&b=\u00e9".encode("latin-1")


def test_headers_get_their_names_back() -> None:
    """Content's two as well, unless they are empty; no byte of a value is changed."""
    request = environ(CONTENT_TYPE="", CONTENT_LENGTH="3", HTTP_X_GITHUB_EVENT="caf\u00e9", HTTP_CONTENT_LENGTH="9")
    headers = dict(scope_of(request, {})["headers"])
    assert headers == {
        b"content-length": b"3",
        b"host": b"localhost",
        b"stripe-signature": b"",
        b"x-github-event": b"caf\xe9",
    }


@pytest.mark.parametrize("origen", PROVIDERS)
def test_what_a_server_joins_is_not_believed(origen: str) -> None:
    """A header that came twice passes only with a good signature in it, and tells nothing that was signed otherwise.

    A list of signatures is as good in two pieces as in one; what nobody signs (``sin_firmar``) anybody can change.
    """
    now = 1_764_000_000.0
    keys = new_keys(PROVIDERS[origen], now)
    provider, verifying = keys.trusted_by(PROVIDERS[origen]), [Secret(keys.verify)]
    tipo, url = next(iter(samples_of(origen))), "https://example.com/api"
    plan = Plan(provider=provider, tipo=tipo, url=url, secret=Secret(keys.sign), id_externo="x", started=now)
    good, bad = plan.request(now), replace(plan, bad_signature=True).request(now)
    verdict = provider.verify(good, verifying, now)
    assert isinstance(verdict, Verified)
    (alone,) = provider.describe(good, verdict)
    for name, value in good.headers:
        other = bad.headers.get(name) or ""
        for joined in (f"{value},{value}", f"{value}, {other}", f"{other},{value}", f"x,{value}", f"{value},x"):
            fields = Headers.of({**dict(good.headers), name: joined})
            both = provider.verify(replace(good, headers=fields), verifying, now)
            if isinstance(both, Verified):
                (event,) = provider.describe(replace(good, headers=fields), both)
                same = replace(
                    event, cabeceras=alone.cabeceras, **{field: getattr(alone, field) for field in alone.sin_firmar}
                )
                assert same == alone
        if name in signature_headers(provider):
            fields = Headers.of({**dict(good.headers), name: f"{other},{other}"})
            assert isinstance(provider.verify(replace(good, headers=fields), verifying, now), Rejected)


@pytest.mark.parametrize(
    ("length", "more", "status"),
    [
        ("", {}, 400),  # no body, so a bad signature
        ("", {"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
        ("", {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, 200),
        ("", {"wsgi.input_terminated": True}, 200),
        ("-1", {}, 411),
        ("5,5", {}, 411),
        ("\u00b2", {}, 411),
        ("9" * 5000, {}, 413),
    ],
)
def test_the_length_of_a_body(
    app: WSGIApplication, signed: Sign, *, length: str, more: dict[str, object], status: int
) -> None:
    """What has no length is read to its end only where the server marks that; a length that is none is refused."""
    answer, _, _ = call(app, environ(signed(), CONTENT_LENGTH=length, **more))
    assert answer.startswith(f"{status} ")


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read."""
        chunk = super().read(size)
        self.taken += len(chunk)
        return chunk


@pytest.mark.parametrize(
    ("request_of", "taken"),
    [
        ({"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}, 4 * CHUNK_BYTES),  # the fourth is over 200,000
        ({"CONTENT_LENGTH": "1000000"}, 0),
        ({"PATH_INFO": "/api/webhooks/nobody"}, 0),
        ({"PATH_INFO": "/api/trabajadores/procesar_lote"}, 0),
        ({"REQUEST_METHOD": "PUT"}, 0),
    ],
)
def test_no_more_is_read_than_is_wanted(app: WSGIApplication, request_of: dict[str, object], taken: int) -> None:
    """A body is left alone but for the inbox of a known provider, and there as soon as it is too long."""
    body = Counting(b"x" * 1_000_000)
    call(app, environ(**{"CONTENT_LENGTH": "100", "wsgi.input": body, **request_of}))
    assert body.taken == taken


def test_no_header_belongs_to_the_connection(app: WSGIApplication) -> None:
    """413 asks elsewhere to hang up, which a WSGI application must not."""
    status, headers, _ = call(app, environ(CONTENT_LENGTH="1000000"))
    assert (status, set(headers)) == ("413 Request Entity Too Large", {"content-type", "content-length"})


class Failing(io.BytesIO):
    """A body whose client is gone."""

    def read(self, size: int | None = -1) -> bytes:
        """Fail, as servers do."""
        raise ConnectionResetError(f"gone before {size} bytes")


@pytest.mark.parametrize("body", [io.BytesIO(b"half"), Failing()], ids=["too short", "reset"])
def test_a_client_that_is_gone(app: WSGIApplication, caplog: pytest.LogCaptureFixture, body: io.BytesIO) -> None:
    """The server gets something to send to nobody; nothing is logged."""
    status, _, content = call(app, environ(CONTENT_LENGTH="1000", **{"wsgi.input": body}))
    assert (status, content) == ("400 Bad Request", b"")
    assert caplog.messages == []


def test_a_fault_in_the_body(app: WSGIApplication, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the server's own while it reads is a fault like any other: 500, and a traceback in the log."""

    class Broken(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            raise LookupError("no more")

    status, _, content = call(app, environ(CONTENT_LENGTH="1", **{"wsgi.input": Broken()}))
    assert status.startswith("500 ")
    assert b"interno" in content
    assert b"no more" not in content
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_a_body_that_is_slow(
    app: WSGIApplication, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A blocking read delays no other request, and 408 is answered when it returns."""
    decided = threading.Event()
    statuses: list[str] = []
    monkeypatch.setattr(reading, "BODY_SECONDS", 0.05)

    def decide(_: object) -> dict[str, str]:
        decided.set()
        return {}

    monkeypatch.setattr(reading, "hang_up", decide)

    class Slow(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            health = call(app, environ(REQUEST_METHOD="GET", PATH_INFO="/api/salud"))
            statuses.append(health[0])
            assert decided.wait(30)
            return b"x"

    statuses.append(call(app, environ(CONTENT_LENGTH="1000", **{"wsgi.input": Slow()}))[0])
    statuses.append(call(app, environ(REQUEST_METHOD="GET", PATH_INFO="/api/salud"))[0])  # after the late chunk
    assert statuses == ["200 OK", "408 Request Timeout", "200 OK"]
    assert caplog.messages == []


def test_a_worker_that_is_interrupted(app: WSGIApplication) -> None:
    """What a signal raises in the thread of the server is not swallowed, and the next request is answered."""

    class Interrupted(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            raise SystemExit(1)

    with pytest.raises(SystemExit):
        call(app, environ(CONTENT_LENGTH="1000", **{"wsgi.input": Interrupted()}))
    assert call(app, environ(REQUEST_METHOD="GET", PATH_INFO="/api/salud"))[0] == "200 OK"


def loops() -> int:
    """Return how many loops there are behind faces that somebody holds."""
    gc.collect()
    return sum(thread.name == "cauce-web" for thread in threading.enumerate())


def test_what_nobody_holds_is_closed(place: Place, db: Database, signed: Sign) -> None:
    """No thread and no connection before the first request, one of each after it, and none when the face is gone."""
    before = loops()
    app = create_wsgi_app(place.bus, place.settings, secrets=place.secrets)
    assert (loops() - before, connections(db)) == (0, 0)
    for _ in range(2):
        assert call(app, environ(signed()))[0] == "200 OK"
    assert (loops() - before, connections(db)) == (1, 1)
    del app
    assert loops() == before
    wait_for(lambda: connections(db) == 0, "the connection is closed")  # the server takes a moment to notice


def test_first_requests_at_once(place: Place, db: Database, signed: Sign) -> None:
    """However many threads come first, there is one loop."""
    before = loops()
    app = create_wsgi_app(place.bus, place.settings, secrets=place.secrets)
    delivery, barrier = signed(), threading.Barrier(10)

    def deliver(_: int) -> str:
        barrier.wait()
        return call(app, environ(delivery))[0]

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(deliver, range(10))) == {"200 OK"}
    assert (loops() - before, stored(db)) == (1, ["evt_1"])


FORK: Final = """
import io, os, signal, sys, threading
import psycopg
from cauce import Bus, EventHandlers, Settings
from cauce.web.wsgi import create_wsgi_app

app = create_wsgi_app(Bus(catalogs=[], event_handlers=EventHandlers()), Settings())

def backends():
    with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
        query = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        return {row[0] for row in conn.execute(query + " and backend_type = 'client backend'")}

def health():
    statuses = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/salud"}
    environ |= {"wsgi.url_scheme": "http", "wsgi.input": io.BytesIO()}
    app(environ, lambda status, headers: statuses.append(status))
    return statuses

assert health() == ["200 OK"]
first = backends()
assert len(first) == 1
child = os.fork()
if child == 0:
    signal.alarm(30)
    assert health() == health() == ["200 OK"]
    assert first < backends() and len(backends()) == 2, backends()
    sys.exit(0)  # and not os._exit: what Python does at the end must not touch what is the parent's
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert health() == ["200 OK"]
assert first <= backends(), "the parent's connection was cut"
print("done", flush=True)
"""


def test_a_process_that_forks_after_its_first_request(db: Database) -> None:
    """Parent and child are answered on connections of their own; all are closed at the end, and properly."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", FORK],
        env={**os.environ, "DATABASE_URL": db.dsn},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
    assert connections(db) == 0


def test_the_package_needs_no_framework() -> None:
    """``cauce.web`` loads none of them, and each face only its own."""
    program = """
import sys
import cauce.cli, cauce.web.serving, cauce.web, cauce.web.wsgi
frameworks = {"django", "fastapi", "flask", "werkzeug"}
assert not frameworks & set(sys.modules)
import cauce.web.flask
assert frameworks & set(sys.modules) == {"flask", "werkzeug"}
import cauce.web.fastapi
assert frameworks & set(sys.modules) == {"fastapi", "flask", "werkzeug"}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
