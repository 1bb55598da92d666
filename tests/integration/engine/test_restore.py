"""Restored elsewhere: a database whose transaction ids lie ahead of its cluster's neither publishes nor claims (A6)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import psycopg
import pytest

from cauce import ForeignRestore
from cauce.database import inbox, schema
from cauce.embedded import EmbeddedPostgres
from tests.conftest import programs
from tests.integration.engine.kit import Conn, claim, drain, publish, settle, value


def ahead(conn: Conn) -> int:
    """A transaction id that this cluster has not reached."""
    return int(value(conn, "select pg_current_xact_id()::text::bigint + 1000000"))


def assert_refused(conn: Conn) -> None:
    """Publishing and claiming are refused alike, by every way in, with one clear message."""
    ways: list[Callable[[], object]] = [
        lambda: publish(conn),
        lambda: conn.execute("insert into cauce.eventos (origen, tipo, payload) values ('p', 'x', '{}')"),
        lambda: conn.execute("""select cauce.publicar_eventos('[{"origen": "p", "tipo": "x", "payload": {}}]')"""),
        lambda: psycopg.RawCursor(conn).execute(inbox.insert_of(1), ["p", "x", "1", "{}", None, "{}", None]),
        lambda: claim(conn),
        lambda: claim(conn, rung=True),
    ]
    for way in ways:
        with pytest.raises(psycopg.DatabaseError, match="restored into a younger PostgreSQL cluster") as refused:
            way()
        assert refused.value.sqlstate == "CA002"
        assert "pg_resetwal" in (refused.value.diag.message_hint or "")
    for check in (schema.check, schema.migrate):
        with pytest.raises(ForeignRestore, match="younger"):
            check(conn)


@pytest.mark.parametrize("trace", ["position", "event", "mark"])
def test_any_transaction_id_from_the_future_stops_the_bus(conn: Conn, connect: Callable[..., Conn], trace: str) -> None:
    """A position, an event or the bus's own mark ahead of the cluster: new connections refuse, whatever they try."""
    publish(conn)
    drain(conn)
    publish(conn)
    xid = ahead(conn)
    if trace == "position":
        snapshot = f"{xid}:{xid}:"
        conn.execute("update cauce.posiciones set hasta = %s::pg_snapshot where carril = 5", (snapshot,))
    elif trace == "event":
        conn.execute("alter table cauce.eventos disable trigger user")
        conn.execute("update cauce.eventos set orden = %s::text::xid8, tx = %s::text::xid8", (xid, xid))
        conn.execute("alter table cauce.eventos enable trigger user")
    else:
        conn.execute("update cauce.instancia set xid = %s::text::xid8", (xid,))
    assert_refused(connect())


def test_a_group_made_after_the_restore_claims_nothing_either(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Its own position is not ahead, but what it would be handed cannot be told from the past (review A6)."""
    conn.execute("update cauce.instancia set xid = %s::text::xid8", (ahead(conn),))
    fresh = connect()
    fresh.execute("select cauce.crear_grupo('nuevo', true)")
    with pytest.raises(psycopg.DatabaseError) as refused:
        claim(fresh, grupo="nuevo")
    assert refused.value.sqlstate == "CA002"


def test_a_transaction_older_than_the_mark_publishes_all_the_same(conn: Conn, connect: Callable[..., Conn]) -> None:
    """A long business transaction whose id is older than what others have committed meanwhile is no foreign one."""
    old = connect()
    old.execute("begin")
    old.execute("select pg_current_xact_id()")
    for _ in range(3):
        publish(conn)
        schema.check(conn)
    published = publish(old)
    old.execute("commit")
    assert sorted(drain(conn)) == [1, 2, 3, *published]


def test_the_mark_follows_the_cluster(conn: Conn) -> None:
    """Each check notes how far the cluster has come."""
    before = value(conn, "select xid::text::bigint from cauce.instancia")
    conn.execute("select pg_current_xact_id()")
    schema.check(conn)
    assert value(conn, "select xid::text::bigint from cauce.instancia") > before


def test_a_cluster_that_is_ahead_goes_on_where_the_dump_stopped(conn: Conn, connect: Callable[..., Conn]) -> None:
    """What was refused works once the counter has passed every stored id: nothing missed, nothing twice."""
    publish(conn)
    drain(conn)
    waiting = publish(conn)
    conn.execute("""update cauce.instancia set xid = (pg_current_xact_id()::text::bigint + 20)::text::xid8""")
    assert_refused(connect())
    for _ in range(40):
        conn.execute("select pg_current_xact_id()")
    later = connect()
    new = publish(later)
    assert drain(later) == waiting + new


def test_a_dump_restored_into_a_younger_server_refuses_everything(conn: Conn, database: str) -> None:
    """Really dumped and really restored (review A6)."""
    for _ in range(2000):  # older than any fresh cluster, whatever ran before
        conn.execute("select pg_current_xact_id()")
    publish(conn, 3)
    settle(conn, claim(conn, 2))
    schema.check(conn)
    bin_ = programs()
    dump = subprocess.run(
        [bin_ / "pg_dump", "--no-owner", database], check=True, capture_output=True, env={"PATH": os.defpath}
    ).stdout
    with EmbeddedPostgres(settings={"fsync": "off", "shared_buffers": "16MB"}) as younger:
        subprocess.run(
            [bin_ / "psql", "-v", "ON_ERROR_STOP=1", "-q", "-d", younger.dsn],
            input=dump,
            check=True,
            capture_output=True,
            env={"PATH": os.defpath},
        )
        with psycopg.connect(younger.dsn, autocommit=True) as restored:
            assert value(restored, "select count(*) from cauce.eventos") == 3
            assert_refused(restored)
