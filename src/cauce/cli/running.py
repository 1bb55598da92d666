"""The commands that run until stopped: ``worker``, ``serve``, ``dev``; and ``demo``, which ends by itself."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from cauce import schema
from cauce.cli.loading import connect, load_bus, load_settings
from cauce.cli.process import configure_logging
from cauce.cli.process import serve as run_until_stopped
from cauce.worker import Worker, relax_garbage_collection

if TYPE_CHECKING:
    from cauce.bus import Bus
    from cauce.config import Settings

LogLevel = Literal["debug", "info", "warning", "error"]

logger = logging.getLogger("cauce.cli")


class HttpServer:
    """uvicorn, as a part that runs until stopped; signals are the process's business."""

    def __init__(self, bus: Bus, settings: Settings, host: str, port: int) -> None:
        import uvicorn  # noqa: PLC0415 - `cauce status` need not load an HTTP server

        from cauce.web import create_app, without_salud  # noqa: PLC0415 - likewise

        config = uvicorn.Config(create_app(bus, settings), host=host, port=port, log_config=None)
        logging.getLogger("uvicorn.access").addFilter(without_salud)
        self._server = uvicorn.Server(config)
        self._server.capture_signals = _no_signals  # type: ignore[method-assign,assignment]  # uvicorn's own end the process

    async def run(self) -> None:
        """Serve until stopped.

        Raises:
            OSError: the address cannot be listened on.
        """
        try:
            await self._server.serve()
        except SystemExit as error:  # uvicorn's way of saying that it could not bind; it has logged why
            raise OSError(f"the address {self._server.config.host}:{self._server.config.port} is taken") from error

    def stop(self) -> None:
        """Finish the requests under way, and no more."""
        self._server.should_exit = True


class _NoSignals:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def _no_signals() -> _NoSignals:
    return _NoSignals()


def worker(  # noqa: PLR0913 - the command's options, by name
    bus: str,
    *,
    app_dir: str = ".",
    grupo: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    slots: int | None = None,
    concurrency: int | None = None,
    batch_size: int | None = None,
    log_level: LogLevel = "info",
) -> None:
    """Work on events until SIGTERM or Ctrl-C: what is in hand is finished, the rest given back.

    Args:
        bus: the application's bus, as module:name.
        app_dir: folder where its modules are.
        grupo: work on this group only; may be given several times. All groups by default.
        slots: batches in hand at once, a group (CAUCE_SLOTS).
        concurrency: handlers without tx that run at once in a batch (CAUCE_CONCURRENCY).
        batch_size: events in a batch at most (CAUCE_BATCH_SIZE).
        log_level: what is logged to stderr.
    """
    configure_logging(log_level)
    settings = load_settings(slots=slots, concurrency=concurrency, batch_size=batch_size)
    working = Worker(load_bus(bus, app_dir), settings, grupo or ())
    connect(settings).close()  # says at once, and clearly, that there is no database
    relax_garbage_collection()
    run_until_stopped(working)


def serve(  # noqa: PLR0913 - likewise
    bus: str,
    *,
    app_dir: str = ".",
    host: str = "127.0.0.1",
    port: int = 8000,
    worker: Annotated[bool, Parameter(negative=())] = False,
    log_level: LogLevel = "info",
) -> None:
    """Answer HTTP until SIGTERM or Ctrl-C: webhooks, procesar_lote, salud.

    Args:
        bus: the application's bus, as module:name.
        app_dir: folder where its modules are.
        host: address to listen on.
        port: port to listen on.
        worker: also work on the events, in the same process.
        log_level: what is logged to stderr.
    """
    configure_logging(log_level)
    settings = load_settings()
    loaded = load_bus(bus, app_dir)
    connect(settings).close()
    http = HttpServer(loaded, settings, host, port)
    run_until_stopped(*([http, Worker(loaded, settings)] if worker else [http]))


def dev(
    bus: str, *, app_dir: str = ".", host: str = "127.0.0.1", port: int = 8000, log_level: LogLevel = "info"
) -> None:
    """Run everything for development: PostgreSQL unless DATABASE_URL is set, the tables, HTTP and a worker.

    Args:
        bus: the application's bus, as module:name.
        app_dir: folder where its modules are.
        host: address to listen on.
        port: port to listen on.
        log_level: what is logged to stderr.
    """
    configure_logging(log_level)
    settings = load_settings()
    loaded = load_bus(bus, app_dir)
    if settings.database_url:
        _develop(loaded, settings, host, port)
        return
    from cauce.embedded import EmbeddedPostgres, default_folder  # noqa: PLC0415 - an extra, and only here

    with EmbeddedPostgres(default_folder()) as server:
        os.environ["DATABASE_URL"] = server.dsn  # for the application's own code
        _say(f"PostgreSQL  {server.folder} (kept)")
        _develop(loaded, settings.model_copy(update={"database_url": server.dsn}), host, port)


def _develop(bus: Bus, settings: Settings, host: str, port: int) -> None:
    with connect(settings) as conn:
        applied = schema.migrate(conn, bus)
    _say(f"tables      {'migrated: ' + ', '.join(applied) if applied else 'up to date'}")
    _say(f"database    psql '{settings.database_url}'")
    _say(f"webhooks    POST http://{host}:{port}/api/webhooks/{{origen}}")
    _say(f"cron        GET or POST http://{host}:{port}/api/trabajadores/procesar_lote")
    _say(f"health      http://{host}:{port}/api/salud")
    run_until_stopped(HttpServer(bus, settings, host, port), Worker(bus, settings))


def demo(*, stay: Annotated[bool | None, Parameter(negative="--no-stay")] = None) -> int:
    """See events travel: an embedded PostgreSQL, signed webhooks over HTTP, a worker; ends with every event's journey.

    Args:
        stay: serve on afterwards until Ctrl-C; by default if there is a terminal.
    """
    from cauce.demo import play  # noqa: PLC0415 - brings an application along

    return play(stay=sys.stdin.isatty() and sys.stdout.isatty() if stay is None else stay)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


__all__ = ["HttpServer", "demo", "dev", "serve", "worker"]
