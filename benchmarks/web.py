"""The inbox in a process of its own, or the floor's: the smallest Starlette handler that verifies, stores and commits.

    python -m benchmarks.web cauce|floor DSN

Says which port it listens on, which event loop and which HTTP parser uvicorn chose; serves until it is terminated.
Everything around the two applications is the same.
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
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks import application
from cauce.web import create_app
from cauce.web.connections import MAX_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

PATH: Final = "/api/webhooks/stripe"
SECRET: Final = "whsec_of_the_benchmarks"  # noqa: S105 - of nothing but this
TOLERANCE: Final = 300
"""Seconds that a signature is good for, on both sides."""
KEEP: LiteralString = "insert into recibidos (id, tipo, payload) values (%s, %s, %s) on conflict (id) do nothing"


class Floor:
    """As many connections as ours has, in autocommit; an event's row is committed before it is answered."""

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
        conn = await self._idle.get()
        try:
            await conn.execute(KEEP, (event["id"], event["type"], body.decode()))
        finally:
            self._idle.put_nowait(conn)
        return JSONResponse({"id": event["id"]})

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            while self._idle.qsize() < MAX_CONNECTIONS:
                conn = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True, prepare_threshold=0)
                self._idle.put_nowait(await stack.enter_async_context(conn))
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
        app = Floor(dsn).application()
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
