"""The measured server, and a fresh database for every measurement."""

from __future__ import annotations

import contextlib
import secrets
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal, LiteralString
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from benchmarks.application import make_bus
from benchmarks.results import BenchError
from cauce.database import schema
from cauce.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Side = Literal["cauce", "floor"]

SETTINGS: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "replica",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",  # the benchmarks write their checkpoints themselves, between measurements
    "max_connections": "100",
}
"""Settings of a server started here: durable, with enough WAL that no checkpoint runs during a measurement."""
QUICK_SETTINGS: Final = {"fsync": "off", "shared_buffers": "128MB"}
"""Settings of a server where nothing is measured."""
TOLD: Final = (
    "server_version", "fsync", "synchronous_commit", "wal_level", "full_page_writes", "shared_buffers", "max_wal_size",
    "checkpoint_timeout", "autovacuum", "jit", "data_checksums",
)  # fmt: skip
"""Settings that the report names."""

BUSINESS: LiteralString = (
    "create table reservas (id bigint generated always as identity primary key, referencia text, importe integer,"
    " creada_en timestamptz default now())"
)


class Server:
    """A PostgreSQL server, with a template for each side."""

    def __init__(self, url: str) -> None:
        if not urlsplit(url).scheme.startswith("postgres"):
            raise BenchError(f"--database-url must be an address like postgresql://user@host/name, not {url!r}")
        self.url = url
        self._prefix = f"cauce_bench_{secrets.token_hex(3)}"
        self._templates: set[Side] = set()

    @contextlib.contextmanager
    def database(self, side: Side) -> Iterator[str]:
        """Create a database and write a checkpoint; afterwards drop it, even if sessions are connected."""
        name = f"{self._prefix}_{side}_{secrets.token_hex(3)}"
        template = self._template(side)
        with self._admin() as admin:
            admin.execute(
                sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
            )
            try:
                admin.execute("checkpoint")
                yield self._address(name)
            finally:
                self._drop(admin, name)

    def close(self) -> None:
        """Drop the templates."""
        with self._admin() as admin:
            for side in self._templates:
                self._drop(admin, self._template_name(side))
        self._templates.clear()

    def settings(self) -> dict[str, str]:
        """Return the server's values of the settings that matter."""
        with self._admin() as admin:
            rows = admin.execute(
                "select name, case when unit in ('8kB', 'MB', 'kB', 's') then current_setting(name) else setting end"
                " from pg_settings where name = any (%s)",
                (list(TOLD),),
            )
            found = dict(rows.fetchall())
        return {name: found[name] for name in TOLD if name in found}

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def _address(self, name: str) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}/{name}{'?' if parts.query else ''}{parts.query}"

    def _template_name(self, side: Side) -> str:
        return f"{self._prefix}_{side}"

    def _template(self, side: Side) -> str:
        name = self._template_name(side)
        if side not in self._templates:
            with self._admin() as admin:
                admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            self._templates.add(side)
            with psycopg.connect(self._address(name), autocommit=True) as conn:
                conn.execute(BUSINESS)
                if side == "cauce":
                    schema.migrate(conn, make_bus())
                else:
                    conn.execute(files("benchmarks").joinpath("floor.sql").read_bytes())
        return name

    @staticmethod
    def _drop(admin: psycopg.Connection[Any], name: str) -> None:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextlib.contextmanager
def serve(url: str, extra: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Use the server at that address, or one started for this run with ``SETTINGS`` and ``extra``."""
    with contextlib.ExitStack() as stack:
        if not url:
            url = stack.enter_context(EmbeddedPostgres(settings={**SETTINGS, **(extra or {})})).dsn
        server = Server(url)
        stack.callback(server.close)
        yield server
