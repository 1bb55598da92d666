"""``procesar_lote`` over HTTP: who may call it, with what, and what it answers."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.integration.web.conftest import Inbox, Sign

PATH = "/api/trabajadores/procesar_lote"
BEARER = {"authorization": "Bearer cron secret"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_processes_what_is_due(inbox: Inbox, signed: Sign, method: str) -> None:
    """Events, retries and events that nobody knows, counted by what became of them."""
    events: list[dict[str, object]] = [{}, {"fail": True}, {"type": "never.heard.of"}]
    for number, event in enumerate(events):
        inbox.deliver(signed({"id": f"evt_{number}", "type": "checkout.session.completed", **event}))
    answer = inbox.request(method, PATH, headers=BEARER)
    assert answer.status_code == 200
    assert answer.json() == {
        "procesados": 1,
        "reintentos": 1,
        "errores": 0,
        "ignorados": 1,
        "devueltos": 0,
        "lotes": 1,
        "pendientes": 0,
    }
    states = [(evento["estado"], evento["ignorado"]) for evento in inbox.events()]
    assert states == [("procesado", False), ("en_proceso", False), ("procesado", True)]


def test_two_calls_at_once_share_the_work(inbox: Inbox, signed: Sign) -> None:
    """Every event is processed by one of them, and by one only."""
    for number in range(40):
        inbox.deliver(signed({"id": f"evt_{number}", "type": "checkout.session.completed"}))

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*[client.post(f"{PATH}?limite=25", headers=BEARER) for _ in range(2)])

    answers = inbox.run(work)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sum(answer.json()["procesados"] for answer in answers) == 40
    assert {evento["estado"] for evento in inbox.events()} == {"procesado"}


def test_the_limit_holds(inbox: Inbox, signed: Sign) -> None:
    """``limite`` bounds what is claimed; the rest is counted."""
    for number in range(5):
        inbox.deliver(signed({"id": f"evt_{number}", "type": "checkout.session.completed"}))
    answer = inbox.request("GET", f"{PATH}?limite=3&segundos=300", headers=BEARER).json()
    assert (answer["procesados"], answer["pendientes"]) == (3, 2)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "cron secret"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer cron secreT"},
        {"authorization": "Bearer cron secret2"},
        {"authorization": "Basic cron secret"},
        {"authorization": "Bearer caf\u00e9"},
    ],
)
def test_without_the_secret(inbox: Inbox, signed: Sign, headers: dict[str, str]) -> None:
    """401, saying how to authenticate and not with what; nothing is processed."""
    inbox.deliver(signed())
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = inbox.request("GET", PATH, headers=raw)
    assert (answer.status_code, answer.json()["error"]) == (401, "no_autorizado")
    assert answer.headers["www-authenticate"] == 'Bearer realm="cauce"'
    assert "cron secret" not in answer.text
    assert inbox.events()[0]["estado"] == "pendiente"


def test_two_authorizations_are_none(inbox: Inbox) -> None:
    """A header that came twice is not read as one of the two."""
    answer = inbox.request("GET", PATH, headers=[*BEARER.items(), ("authorization", "Bearer x")])
    assert answer.status_code == 401


@pytest.mark.parametrize("secret", ["", "  "])
def test_no_secret_is_no_access(inbox: Inbox, signed: Sign, secret: str) -> None:
    """503 for every request, also with an empty secret."""
    inbox.deliver(signed())
    inbox.configure(cron_secret=secret)
    for headers in ({}, {"authorization": f"Bearer {secret}"}, BEARER):
        answer = inbox.request("POST", PATH, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (503, "sin_secreto")
    assert inbox.events()[0]["estado"] == "pendiente"


@pytest.mark.parametrize(
    ("query", "allowed"),
    [
        ("limite=0", "limite must be one whole number from 1 to 10000"),
        ("limite=10001", "limite must be one whole number from 1 to 10000"),
        ("limite=", "limite must be one whole number from 1 to 10000"),
        ("limite=1&limite=2", "limite must be one whole number from 1 to 10000"),
        ("segundos=0", "segundos must be one whole number from 1 to 300"),
        ("segundos=301", "segundos must be one whole number from 1 to 300"),
        ("segundos=nan", "segundos must be one whole number from 1 to 300"),
        ("segundos=%D9%A3", "segundos must be one whole number from 1 to 300"),
    ],
)
def test_a_parameter_out_of_bounds(inbox: Inbox, signed: Sign, query: str, allowed: str) -> None:
    """400 with what is allowed; nothing is processed."""
    inbox.deliver(signed())
    answer = inbox.request("GET", f"{PATH}?{query}", headers=BEARER)
    assert (answer.status_code, answer.json()) == (400, {"error": "parametro_invalido", "detalle": allowed})
    assert inbox.events()[0]["estado"] == "pendiente"


@pytest.mark.parametrize("query", ["limite=1&segundos=1", "limite=10000&segundos=300", "other=1"])
def test_parameters_at_their_bounds(inbox: Inbox, query: str) -> None:
    """The limits themselves are allowed, and unknown parameters are ignored."""
    assert inbox.request("GET", f"{PATH}?{query}", headers=BEARER).status_code == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
def test_other_methods(inbox: Inbox, method: str) -> None:
    """405, before anybody is asked for a secret."""
    answer = inbox.request(method, PATH, headers=BEARER)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
