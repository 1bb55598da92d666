"""Migrates the database's tables, and checks them before anything uses them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cauce import sql
from cauce.database.refusals import explaining
from cauce.errors import SchemaError

if TYPE_CHECKING:
    from psycopg import Connection

    from cauce.bus import Bus

MIGRATION_LOCK = 1128355142
"""Advisory lock that makes concurrent migrations take turns."""


class Subscription(NamedTuple):
    """One subscriber of one event in one group; the dedicated handler is the subscriber ``manejador``."""

    grupo: str
    suscriptor: str
    origen: str
    tipo: str

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"{self.suscriptor} of {self.origen}/{self.tipo} in group {self.grupo}"


def migrate(conn: Connection[Any], bus: Bus | None = None) -> list[str]:
    """Bring the tables up to date, each migration in a transaction of its own, and write the application's catalog.

    Safe to run twice, or several times at once.

    Args:
        conn: a connection in autocommit, of the role that will own the tables.
        bus: the application whose events, subscribers and groups are written.

    Returns:
        The migrations it applied.

    Raises:
        SchemaError: the tables are newer than this program, the database is not in UTF8, or the connection is not in
            autocommit.
        CatalogError: another application owns a handler or a subscriber of this one.
        ForeignRestore: the database was restored into a younger cluster.
    """
    if not conn.autocommit:
        raise SchemaError("migrate needs a connection in autocommit: psycopg.connect(dsn, autocommit=True)")
    _refuse_other_encodings(conn)
    applied: list[str] = []
    while (name := _apply_next(conn)) is not None:
        applied.append(name)
    check_restore(conn)
    if bus is not None:
        save_catalog(conn, bus, replace=True)
    return applied


def check(conn: Connection[Any]) -> None:
    """Check that the tables have this program's version, and the database's encoding and cluster.

    Raises:
        SchemaError: the tables are missing, older or newer, or the encoding is not UTF8.
        ForeignRestore: the database was restored into a younger cluster.
    """
    _refuse_other_encodings(conn)
    check_version(conn)
    check_restore(conn)


def check_version(conn: Connection[Any]) -> None:
    """Check that the tables have this program's version; read-only.

    Raises:
        SchemaError: they are missing, older or newer.
    """
    version, newest = _version(conn), max(sql.migrations())
    _refuse_newer(version)
    if version < newest:
        found = f"at version {version} of {newest}" if version else "missing"
        raise SchemaError(f"the tables of schema cauce are {found}; run: cauce migrate module:bus")


def check_restore(conn: Connection[Any]) -> None:
    """Refuse a database restored into a younger cluster, and record the cluster's transaction id.

    Raises:
        ForeignRestore: a stored transaction id is ahead of the cluster's.
    """
    conn.execute("select cauce.comprobar_restauracion()")
    with explaining():
        conn.execute("select cauce.comprobar_instancia()")


def save_catalog(conn: Connection[Any], bus: Bus, *, replace: bool, take_over: bool = False) -> list[Subscription]:
    """Write the application's events, subscriptions and groups.

    Args:
        conn: a connection in autocommit.
        bus: the application.
        replace: True for a deploy: remove subscriptions that the application no longer has. False for a program that
            starts and may be the older one: add what was never stored, and change nothing.
        take_over: become the owner of subscriptions of this bus that belong to other applications.

    Returns:
        The removed subscriptions; without ``replace``, those of this bus that an earlier deploy removed, which get no
        events.

    Raises:
        CatalogError: another application owns a handler or a subscriber of this one; nothing was written.
    """
    values = (bus.application, json.dumps(bus.rows()), json.dumps(bus.subscriptions()), replace, take_over)
    return _save(conn, values)


def forget_application(conn: Connection[Any], application: str) -> list[Subscription]:
    """Remove every subscription of an application, and return them."""
    return _save(conn, (application, "[]", "[]", True, False))


def _save(conn: Connection[Any], values: tuple[object, ...]) -> list[Subscription]:
    with explaining():
        cursor = conn.execute("select * from cauce.guardar_catalogo(%s, %s, %s, %s, %s)", values)
    return sorted(Subscription._make(row) for row in cursor)


def _refuse_other_encodings(conn: Connection[Any]) -> None:
    """Refuse a database that cannot hold every payload, or whose text psycopg would return as bytes."""
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SchemaError(
            f"database {conn.info.dbname} is in {encoding}, and Cauce needs UTF8: no other can hold every"
            " payload. Create another database and move the data there:"
            " create database ... encoding 'UTF8' locale 'C.UTF-8' template template0"
        )


def _apply_next(conn: Connection[Any]) -> str | None:
    """Apply the next migration and return its name; None if there is none."""
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        version = _version(conn)
        _refuse_newer(version)
        number = version + 1
        if number not in sql.migrations():
            return None
        migration = sql.migrations()[number]
        conn.execute(migration.text)
        conn.execute("insert into cauce.migraciones (numero, nombre) values (%s, %s)", (number, migration.name))
    return f"{number:04}_{migration.name}"


def _version(conn: Connection[Any]) -> int:
    row = conn.execute("select to_regclass('cauce.migraciones') is not null").fetchone()
    if not row or not row[0]:
        return 0
    row = conn.execute("select coalesce(max(numero), 0) from cauce.migraciones").fetchone()
    return int(row[0]) if row else 0


def _refuse_newer(version: int) -> None:
    newest = max(sql.migrations())
    if version > newest:
        raise SchemaError(
            f"the tables of schema cauce are at version {version}, this program knows {newest}; upgrade cauce here"
        )
