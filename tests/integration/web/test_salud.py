"""The health check: what it looks at, what it answers, and that it is quiet."""

from __future__ import annotations

import logging

import pytest

from cauce import sql
from cauce.web import without_query, without_salud
from tests.integration.web.conftest import Inbox

NEWEST = max(sql.migrations())


def test_all_is_well(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    """200 with the tables' version; no worker is no illness; nothing is logged."""
    with caplog.at_level(logging.INFO, "cauce"):
        answer = inbox.request("GET", "/api/salud")
    assert answer.status_code == 200
    assert answer.json() == {
        "estado": "bien",
        "base_de_datos": True,
        "esquema": NEWEST,
        "esquema_esperado": NEWEST,
        "trabajador_visto_hace": None,
    }
    assert caplog.messages == []


def test_the_newest_worker_is_reported(inbox: Inbox) -> None:
    """Seconds since any worker was last seen."""
    inbox.query(
        "insert into cauce.trabajadores (trabajador, grupos, maquina, pid, visto_en)"
        " values ('old', '{}', '', 1, now() - interval '1 day'), ('new', '{}', '', 2, now() - interval '1 hour')"
        " returning 1"
    )
    assert 3600 <= inbox.request("GET", "/api/salud").json()["trabajador_visto_hace"] < 86_400


@pytest.mark.parametrize(("change", "status"), [(-1, 503), (1, 200)], ids=["older", "newer"])
def test_the_tables_version(inbox: Inbox, change: int, status: int) -> None:
    """Tables older than the program are an illness; newer ones are a deploy under way."""
    if change < 0:
        inbox.query("delete from cauce.migraciones where numero = %s returning 1", NEWEST)
    else:
        inbox.query("insert into cauce.migraciones (numero, nombre) values (%s, 'next') returning 1", NEWEST + 1)
    answer = inbox.request("GET", "/api/salud")
    assert (answer.status_code, answer.json()["esquema"]) == (status, NEWEST + change)
    assert answer.json().get("error") == (None if status == 200 else "esquema_anticuado")


def test_the_methods(inbox: Inbox) -> None:
    """Load balancers ask with HEAD as well; nobody posts here."""
    answer = inbox.request("HEAD", "/api/salud")
    assert (answer.status_code, answer.content) == (200, b"")
    answer = inbox.request("POST", "/api/salud")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "status", "kept"),
    [
        ("/api/salud", 200, False),
        ("/mounted/api/salud?x=1", 200, False),
        ("/api/salud", 503, True),
        ("/api/webhooks/stripe", 200, True),
    ],
)
def test_the_access_log_without_it(*, path: str, status: int, kept: bool) -> None:
    """The filter drops healthy checks from uvicorn's access log, and nothing else."""
    message = '%s - "%s %s HTTP/%s" %d'
    arguments = ("127.0.0.1:1", "GET", path, "1.1", status)
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 1, message, arguments, None)
    assert without_salud(record) is kept
    assert without_salud(logging.LogRecord("uvicorn.access", logging.INFO, "", 1, "started", None, None))


@pytest.mark.parametrize(
    ("path", "logged"),
    [("/api/webhooks/acme?token=secret&x=?", "/api/webhooks/acme"), ("/api/webhooks/acme", "/api/webhooks/acme")],
)
def test_the_access_log_without_queries(path: str, logged: str) -> None:
    """The filter cuts them from uvicorn's access log, and leaves every line in."""
    message, arguments = '%s - "%s %s HTTP/%s" %d', ("127.0.0.1:1", "POST", path, "1.1", 200)
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 1, message, arguments, None)
    other = logging.LogRecord("uvicorn.access", logging.INFO, "", 1, "started", None, None)
    assert without_query(record)
    assert without_query(other)
    assert record.getMessage() == f'127.0.0.1:1 - "POST {logged} HTTP/1.1" 200'
    assert other.getMessage() == "started"
