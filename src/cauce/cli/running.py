"""``worker``, ``serve``, ``dev``, ``demo``: the commands that run until they are stopped."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators
from psycopg import sql
from rich.console import Console

from cauce.cli.loading import load_bus, load_providers, load_settings
from cauce.cli.process import LogLevel, configure_logging
from cauce.config import Settings
from cauce.database import schema
from cauce.database.connecting import connect
from cauce.engine.worker import Worker, relax_garbage_collection
from cauce.web.endpoints import own_providers
from cauce.web.serving import HttpServer, Part
from cauce.web.serving import serve as serve_parts
from cauce.webhooks import PROVIDERS, Provider

if TYPE_CHECKING:
    from cauce.bus import Bus


Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))]


def worker(
    bus: str,
    /,
    *,
    app_dir: str = ".",
    grupo: list[str] | None = None,
    slots: int | None = None,
    concurrency: int | None = None,
    batch_size: int | None = None,
    grace_seconds: float | None = None,
    log_level: LogLevel = "info",
) -> None:
    """Process events until stopped.

    SIGTERM or Ctrl-C: what runs may finish within the grace period, the rest is given back; the second time, stop at
    once. Restarts of the database are waited out.

    Args:
        bus: The application's bus, as module:name.
        app_dir: Where modules are looked for first.
        grupo: Work only for this group; can be given several times.
        slots: Batches of a group in flight at once (CAUCE_SLOTS).
        concurrency: Handlers without tx that run at once in a batch (CAUCE_CONCURRENCY).
        batch_size: The largest number of events in a batch (CAUCE_BATCH_SIZE).
        grace_seconds: Seconds that running handlers may take to finish (CAUCE_GRACE_SECONDS).
        log_level: What to log.
    """
    configure_logging(log_level)
    settings = load_settings(slots=slots, concurrency=concurrency, batch_size=batch_size, grace_seconds=grace_seconds)
    working = Worker(load_bus(bus, app_dir), settings, grupo or ())
    connect(settings).close()  # fails at once, with one line, if there is no database
    relax_garbage_collection()
    serve_parts(working)


def serve(
    bus: str,
    /,
    *,
    app_dir: str = ".",
    provider: list[str] | None = None,
    host: str = "127.0.0.1",
    port: Port = 8000,
    worker: bool = False,
    log_level: LogLevel = "info",
) -> None:
    """Serve webhooks, procesar_lote and salud over HTTP until stopped.

    Args:
        bus: The application's bus, as module:name.
        app_dir: Where modules are looked for first.
        provider: A provider of webhooks beside those of the bus, as module:name; can be given several times.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        worker: Process events in the same process as well.
        log_level: What to log.
    """
    configure_logging(log_level)
    settings, loaded = load_settings(), load_bus(bus, app_dir)
    providers = load_providers(provider, app_dir)
    parts: list[Part] = [HttpServer(loaded, settings, host, port, providers=providers)]
    if worker:
        connect(settings).close()
        parts.append(Worker(loaded, settings))
    serve_parts(*parts)


def dev(
    bus: str,
    /,
    *,
    app_dir: str = ".",
    provider: list[str] | None = None,
    host: str = "127.0.0.1",
    port: Port = 8000,
    log_level: LogLevel = "info",
) -> None:
    """Run all of an application in one process: PostgreSQL, migrated, HTTP and a worker.

    The PostgreSQL is that of DATABASE_URL or, without it, an embedded one that keeps its data from one time to the
    next: one server a user, one database an application.

    Args:
        bus: The application's bus, as module:name.
        app_dir: Where modules are looked for first.
        provider: A provider of webhooks beside those of the bus, as module:name; can be given several times.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        log_level: What to log.
    """
    configure_logging(log_level)
    with ExitStack() as stack:
        if not load_settings().database_url:
            # in the environment, because the application's own code connects to it as well
            os.environ["DATABASE_URL"] = _embedded(stack, Path(app_dir).resolve())
        settings, loaded = load_settings(), load_bus(bus, app_dir)
        providers = load_providers(provider, app_dir)
        http = HttpServer(loaded, settings, host, port, providers=providers)
        with connect(settings) as conn:
            schema.migrate(conn, loaded)
        _announce(loaded, providers, http.url, settings.database_url)
        workers = [Worker(loaded, settings)] if loaded.groups else []  # it may only receive webhooks
        serve_parts(http, *workers)


def demo(
    *, stay: Annotated[bool | None, Parameter(negative="--no-stay")] = None, log_level: LogLevel = "error"
) -> None:
    """See events travel: a PostgreSQL of its own, real HTTP, a worker, failures, and where each event ended.

    Args:
        stay: Serve on afterwards until Ctrl-C; by default if there is a terminal.
        log_level: What to log. The failures of the demo are warnings.
    """
    from cauce.cli.demo import play  # noqa: PLC0415 - only demo needs it

    configure_logging(log_level)
    play(stay=sys.stdin.isatty() and sys.stdout.isatty() if stay is None else stay)


def _embedded(stack: ExitStack, app: Path) -> str:
    """Start the user's own PostgreSQL, or join it, and return the address of the application's database."""
    from cauce.embedded import EmbeddedPostgres, default_folder  # noqa: PLC0415 - only dev needs it

    server = stack.enter_context(EmbeddedPostgres(default_folder(), tcp=True))
    slug = re.sub(r"[^a-z0-9]+", "_", "_".join(app.parts[-2:]).lower()).strip("_")[:40]
    name = f"{slug}_{sha256(os.fsencode(app)).hexdigest()[:6]}".lstrip("_")
    with connect(Settings(database_url=server.dsn)) as conn:
        if not conn.execute("select from pg_database where datname = %s", (name,)).rowcount:
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return server.database(name)


def _announce(bus: Bus, providers: Iterable[Provider], url: str, database_url: str) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print("Webhooks    ", end="", style="bold")
    own = {provider.origen: provider for provider in own_providers(bus, providers)}
    known = {**PROVIDERS, **own}
    hooks = [known[origen] for origen in dict.fromkeys([*(origen for origen, _ in bus.types), *own]) if origen in known]
    lines = [f"POST {url}/api/webhooks/{hook.origen}{_without_secret(hook)}" for hook in hooks]
    console.print(*(lines or [f"POST {url}/api/webhooks/{{origen}}"]), sep="\n            ")
    console.print("Cron        ", end="", style="bold")
    console.print(f"POST {url}/api/trabajadores/procesar_lote")
    console.print("Health      ", end="", style="bold")
    console.print(f"GET  {url}/api/salud")
    console.print("Database    ", end="", style="bold")
    console.print(f"psql '{database_url}'")
    console.print("Elsewhere   ", end="", style="bold")
    console.print(f"export DATABASE_URL='{database_url}'; cauce status")
    console.print("Ctrl-C stops.\n")


def _without_secret(provider: Provider) -> str:
    name = provider.secret_setting
    return "" if os.environ.get(name) else f"   (503 until {name} is set)"
