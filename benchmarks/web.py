"""The inbox in a process of its own, or a floor's: the smallest Starlette handler that verifies, stores and commits.

    python -m benchmarks.web cauce|bare|pool DSN

``pool`` is that handler as psycopg's documentation writes it, ``bare`` the same with its connections taken by hand.
Everything around the applications is the same. Says which port it listens on, which event loop and which HTTP parser
uvicorn chose; serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
import uvicorn
from psycopg_pool import AsyncConnectionPool
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks import application
from cauce.web import create_app
from cauce.web.connections import MAX_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

PATH: Final = "/api/webhooks/stripe"
SECRET: Final = "whsec_of_the_benchmarks"  # noqa: S105 - of nothing but this
TOLERANCE: Final = 300
"""Seconds that a signature is good for, on both sides."""
KEEP: LiteralString = "insert into recibidos (id, tipo, payload) values (%s, %s, %s) on conflict (id) do nothing"


class Bare:
    """As many connections as ours has, in autocommit: an INSERT is all that travels, and committed when it returns."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._idle: asyncio.LifoQueue[psycopg.AsyncConnection[Any]] = asyncio.LifoQueue()

    def application(self) -> Starlette:
        """Return what uvicorn serves."""
        return Starlette(routes=[Route(PATH, self.receive, methods=["POST"])], lifespan=self._lifespan)

    async def receive(self, request: Request) -> Response:
        """Verify, store, commit, answer."""
        body = await request.body()
        if not genuine(request.headers.get("stripe-signature", ""), body):
            return JSONResponse({"error": "firma"}, 400)
        event = json.loads(body)
        await self._keep((event["id"], event["type"], body.decode()))
        return JSONResponse({"id": event["id"]})

    async def _keep(self, row: tuple[str, str, str]) -> None:
        conn = await self._idle.get()
        try:
            await conn.execute(KEEP, row)
        finally:
            self._idle.put_nowait(conn)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            while self._idle.qsize() < MAX_CONNECTIONS:
                conn = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True, prepare_threshold=0)
                self._idle.put_nowait(await stack.enter_async_context(conn))
            yield


class Pooled(Bare):
    """The connections of psycopg's own pool, each used as a transaction."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self._pool = AsyncConnectionPool(dsn, min_size=MAX_CONNECTIONS, kwargs={"prepare_threshold": 0}, open=False)

    async def _keep(self, row: tuple[str, str, str]) -> None:
        async with self._pool.connection() as conn:
            await conn.execute(KEEP, row)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        async with self._pool:
            yield


def genuine(header: str, body: bytes) -> bool:
    """Check a signature of Stripe's: HMAC-SHA256 over ``{t}.{body}``, signed not long ago."""
    pairs = dict(part.partition("=")[::2] for part in header.split(","))
    signed_at = pairs.get("t", "")
    if not signed_at.isdecimal() or abs(time.time() - int(signed_at)) > TOLERANCE:
        return False
    expected = hmac.digest(SECRET.encode(), f"{signed_at}.".encode() + body, "sha256").hex()
    return hmac.compare_digest(expected, pairs.get("v1", ""))


def main() -> None:
    """Serve as the command line says."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    side, dsn = sys.argv[1:]
    if side == "cauce":
        settings = application.settings(dsn).model_copy(update={"stripe_webhook_secret": SecretStr(SECRET)})
        app = create_app(application.make_bus(), settings)
    else:
        app = (Bare if side == "bare" else Pooled)(dsn).application()
    config = uvicorn.Config(app, log_config=None, access_log=False)
    config.load()
    listener = socket.create_server(("127.0.0.1", 0), backlog=config.backlog)
    told = {
        "port": listener.getsockname()[1],
        "loop": (config.get_loop_factory() or asyncio.new_event_loop).__module__,
        "http": config.http_protocol_class.__module__,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
