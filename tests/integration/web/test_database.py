"""The database goes away, comes back, hangs, or is not what it should be: nothing is lost, and the sender is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import httpx
import psycopg
import pytest

from cauce.database import schema
from cauce.embedded import EmbeddedPostgres
from cauce.testing import wait_for_async
from cauce.web import connections
from tests.integration.web.conftest import Delivery, Inbox, Sign

LOTE = "/api/trabajadores/procesar_lote"
BEARER = {"authorization": "Bearer cron secret"}


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop."""
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            schema.migrate(conn)
        yield server


def is_no_database(answer: httpx.Response) -> bool:
    """Whether that is the answer of an inbox without its database."""
    told = (answer.status_code, answer.headers.get("retry-after"), answer.json()["error"])
    return told == (503, "10", "base_de_datos_no_disponible")


def test_a_database_that_is_down_and_comes_back(
    own_server: EmbeddedPostgres, make_inbox: Callable[[str], Inbox], signed: Sign
) -> None:
    """503 while it is down, from every endpoint; 200 from the first request after; each event once."""
    inbox = make_inbox(own_server.dsn)
    first, second = signed({"id": "evt_1", "type": "t"}), signed({"id": "evt_2", "type": "t"})

    async def post(client: httpx.AsyncClient, delivery: Delivery) -> httpx.Response:
        return await client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers)

    async def work(client: httpx.AsyncClient) -> list[int]:
        statuses = [(await post(client, first)).status_code]
        await asyncio.to_thread(own_server.stop, "immediate")
        assert is_no_database(await post(client, second))
        assert is_no_database(await client.post(LOTE, headers=BEARER))
        assert (await client.get("/api/salud")).json()["base_de_datos"] is False
        await asyncio.to_thread(own_server.start)
        statuses.append((await client.get("/api/salud")).status_code)
        return statuses + [(await post(client, one)).status_code for one in (second, first)]

    assert inbox.run(work) == [200, 200, 200, 200]
    assert [evento["id_externo"] for evento in inbox.events()] == ["evt_1", "evt_2"]


def test_a_restart_costs_no_webhook(
    own_server: EmbeddedPostgres, make_inbox: Callable[[str], Inbox], signed: Sign
) -> None:
    """Every kept connection is dead by then, and no sender notices."""
    inbox = make_inbox(own_server.dsn)

    async def burst(client: httpx.AsyncClient, name: str, size: int) -> list[int]:
        deliveries = [signed({"id": f"{name}_{number}", "type": "t"}) for number in range(size)]
        posts = [client.post("/api/webhooks/stripe", content=one.body, headers=one.headers) for one in deliveries]
        return [answer.status_code for answer in await asyncio.gather(*posts)]

    async def work(client: httpx.AsyncClient) -> list[int]:
        statuses: list[int] = []
        for size in (1, 20):  # one that meets several dead connections, and several that meet one each
            statuses += await burst(client, f"before_{size}", 20)
            await asyncio.to_thread(own_server.restart)
            statuses += await burst(client, f"after_{size}", size)
        return statuses

    assert inbox.run(work) == [200] * 61
    assert len(inbox.events()) == 61


def test_a_killed_connection_costs_no_webhook(inbox: Inbox, signed: Sign) -> None:
    """The administrator ends the connections; the next delivery makes a new one, and says it is new."""
    kill = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        answers: list[httpx.Response] = []
        for number in range(2):
            delivery = signed({"id": f"evt_{number}", "type": "t"})
            answers.append(await client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers))
            await asyncio.to_thread(inbox.query, kill + " and pid <> pg_backend_pid()")
        return answers

    answers = inbox.run(work)
    assert [answer.json()["duplicado"] for answer in answers] == [False, False]
    assert [answer.json()["id"] for answer in answers] == [evento["id"] for evento in inbox.events()]


def test_a_database_that_hangs(inbox: Inbox, signed: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``DATABASE_SECONDS`` the sender gets its 503, those too who never got a connection; the next is stored."""
    monkeypatch.setattr(connections, "DATABASE_SECONDS", 0.3)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    inbox.configure()

    async def post(client: httpx.AsyncClient, number: int) -> httpx.Response:
        delivery = signed({"id": f"evt_{number}", "type": "t"})
        return await client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers)

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        async with await psycopg.AsyncConnection.connect(inbox.settings.database_url) as holder:
            await holder.execute("lock table cauce.eventos in access exclusive mode")
            answers = await asyncio.gather(*[post(client, number) for number in range(6)])
        assert all(is_no_database(answer) for answer in answers)
        monkeypatch.undo()
        return [await post(client, number) for number in range(6)]

    assert [answer.status_code for answer in inbox.run(work)] == [200] * 6
    assert sorted(evento["id_externo"] for evento in inbox.events()) == [f"evt_{number}" for number in range(6)]


def test_an_address_that_does_not_answer(inbox: Inbox, signed: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that takes the connection and says nothing is given up; it would be waited for over two minutes."""
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 2)  # the least that libpq waits
    dsn = inbox.settings.database_url
    with socket.create_server(("127.0.0.1", 0)) as silent:
        inbox.configure(database_url=f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/postgres")
        assert is_no_database(inbox.deliver(signed()))
    inbox.configure(database_url=dsn)
    assert inbox.events() == []


def test_a_database_without_the_tables(
    dsn: str, make_inbox: Callable[[str], Inbox], signed: Sign, caplog: pytest.LogCaptureFixture
) -> None:
    """503 to the sender, because it can be corrected; every answer and the log say how."""
    inbox = make_inbox(dsn)
    webhook, lote = inbox.deliver(signed()), inbox.request("GET", LOTE, headers=BEARER)
    for answer in (webhook, lote, inbox.request("GET", "/api/salud")):
        assert (answer.status_code, answer.json()["error"]) == (503, "esquema_anticuado")
        assert "run: cauce migrate module:bus" in answer.json()["detalle"]
    assert webhook.headers["retry-after"] == lote.headers["retry-after"] == "10"
    assert caplog.text.count("run: cauce migrate module:bus") == 2


def test_a_database_restored_into_a_younger_cluster(inbox: Inbox, signed: Sign) -> None:
    """What would never be delivered is not stored; the sender tries again; the health check says so, and what to do."""
    inbox.query("update cauce.instancia set xid = '999999999999' returning 1")
    webhook, lote = inbox.deliver(signed()), inbox.request("GET", LOTE, headers=BEARER)
    health = inbox.request("GET", "/api/salud")
    for answer in (webhook, lote, health):
        assert (answer.status_code, answer.json()["error"]) == (503, "base_de_datos_restaurada")
        assert "restored into a younger cluster" in answer.json()["detalle"]
    assert webhook.headers["retry-after"] == lote.headers["retry-after"] == "10"
    assert (health.json()["estado"], health.json()["base_de_datos"]) == ("mal", True)
    assert inbox.events() == []
    inbox.query("update cauce.instancia set xid = pg_current_xact_id() returning 1")
    assert inbox.deliver(signed()).status_code == 200
    assert inbox.request("GET", "/api/salud").json()["estado"] == "bien"


def test_an_abandoned_request_leaves_no_connection_taken(inbox: Inbox, signed: Sign) -> None:
    """A server that cancels what its client no longer waits for gives every connection back."""
    delivery = signed()

    def they_wait() -> bool:
        query = "select count(*) n from pg_stat_activity where wait_event_type = 'Lock'"
        (row,) = inbox.query(query + " and datname = current_database()")
        return bool(row["n"])

    async def work(client: httpx.AsyncClient) -> int:
        async with await psycopg.AsyncConnection.connect(inbox.settings.database_url) as holder:
            await holder.execute("lock table cauce.eventos in access exclusive mode")
            posts = [
                asyncio.ensure_future(
                    client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers)
                )
                for _ in range(2 * connections.MAX_CONNECTIONS)
            ]
            await wait_for_async(they_wait)
            for post in posts:
                post.cancel()
            await asyncio.gather(*posts, return_exceptions=True)
        answers = await asyncio.gather(
            *[
                client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers)
                for _ in range(2 * connections.MAX_CONNECTIONS)
            ]
        )
        return len([answer for answer in answers if answer.status_code == 200])

    assert inbox.run(work) == 2 * connections.MAX_CONNECTIONS
    assert len(inbox.events()) == 1
