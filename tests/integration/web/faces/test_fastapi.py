"""FastAPI: the router is a router like any other of the application's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Annotated, Any, TypeAlias

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request

from cauce.testing import Database, wait_for
from cauce.web import create_app
from cauce.web.fastapi import create_router
from tests.integration.web.conftest import Sign
from tests.integration.web.faces.conftest import Place

OPEN = (
    "select count(*) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)


def router(place: Place) -> APIRouter:
    """Make the router."""
    return create_router(place.bus, place.settings, secrets=place.secrets)


def number(db: Database, query: str) -> int:
    """Ask the database for a number."""
    with db.connect() as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def post(client: httpx.Client, signed: Sign, path: str = "/api/webhooks/stripe") -> httpx.Response:
    """Deliver an event."""
    delivery = signed()
    return client.post(path, content=delivery.body, headers=delivery.headers)


Serve: TypeAlias = "Callable[[FastAPI], AbstractContextManager[httpx.Client]]"


@pytest.fixture
def serve(over_asgi: Callable[[FastAPI], AbstractContextManager[str]]) -> Serve:
    """Serves an application, and gives a client of it."""

    @contextlib.contextmanager
    def serving(app: FastAPI) -> Generator[httpx.Client]:
        with over_asgi(app) as url, httpx.Client(base_url=url) as client:
            yield client

    return serving


def test_its_connections_are_closed_with_the_application(
    serve: Serve, place: Place, db: Database, signed: Sign
) -> None:
    """FastAPI runs the router's lifespan with its own, though it be included twice over; and the next run works."""
    outer, app = APIRouter(prefix="/b"), FastAPI()
    outer.include_router(router(place), prefix="/c")
    app.include_router(outer, prefix="/a")
    for _ in range(2):
        with serve(app) as client:
            assert post(client, signed, "/a/b/c/api/webhooks/stripe").status_code == 200
            assert number(db, OPEN) == 1
        wait_for(lambda: number(db, OPEN) == 0, "the connection is closed")


def test_it_stands_in_no_schema(place: Place) -> None:
    """Nobody generates a client for webhooks; the application's own operations stay."""
    app = FastAPI()
    app.include_router(router(place))

    @app.get("/mine")
    def mine() -> None:
        """Do nothing."""

    assert list(app.openapi()["paths"]) == ["/mine"]
    assert app.url_path_for("webhooks", origen="stripe") == "/api/webhooks/stripe"


def test_dependencies_are_obeyed(serve: Serve, place: Place, db: Database, signed: Sign) -> None:
    """What ``include_router`` is given guards the endpoints too: they are operations, not a mounted application."""

    def guard(x_pass: Annotated[str, Header()] = "") -> None:
        if not x_pass:
            raise HTTPException(403, "no pass")

    app = FastAPI()
    app.include_router(router(place), dependencies=[Depends(guard)])
    with serve(app) as client:
        assert post(client, signed).status_code == 403
        assert client.get("/api/salud", headers={"x-pass": "yes"}).status_code == 200
    assert number(db, "select count(*) from cauce.eventos") == 0


def test_a_body_that_a_dependency_has_read(serve: Serve, place: Place, db: Database, signed: Sign) -> None:
    """Starlette keeps it, so the signature is checked on the same bytes."""
    seen: list[bytes] = []

    async def look(request: Request) -> None:
        seen.append(await request.body())

    look.__annotations__ = {"request": Request, "return": None}
    app = FastAPI()
    app.include_router(router(place), dependencies=[Depends(look)])
    with serve(app) as client:
        assert post(client, signed).status_code == 200
    assert seen == [signed().body]
    assert number(db, "select count(*) from cauce.eventos") == 1


@pytest.mark.parametrize("mounted", [False, True], ids=["router", "mounted"])
def test_a_limit_of_the_applications_own(
    serve: Serve, place: Place, db: Database, signed: Sign, *, mounted: bool
) -> None:
    """``max_body_size`` below ours is answered 413 too, declared or in chunks, and logged as no fault of ours."""
    app = FastAPI(max_body_size=10)
    if mounted:
        app.mount("/", create_app(place.bus, place.settings, secrets=place.secrets))
    else:
        app.include_router(router(place))
    delivery = signed()
    with serve(app) as client:
        assert post(client, signed).status_code == 413
        chunked = client.post("/api/webhooks/stripe", content=iter([delivery.body]), headers=delivery.headers)
    assert (chunked.status_code, chunked.json()["error"]) == (413, "cuerpo_demasiado_grande")
    assert number(db, "select count(*) from cauce.eventos") == 0


def test_a_fault_of_a_provider(serve: Serve, place: Place) -> None:
    """A source of secrets that fails is answered by the inbox, not by FastAPI."""

    def broken(_: str) -> Any:
        raise LookupError("the vault is sealed")

    app = FastAPI()
    app.include_router(create_router(place.bus, place.settings, secrets=broken))
    with serve(app) as client:
        answer = client.post("/api/webhooks/stripe", content=b"{}")
    assert answer.status_code >= 500
    assert "sealed" not in answer.text
    assert set(answer.json()) == {"error", "detalle"}
