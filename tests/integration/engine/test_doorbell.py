"""The doorbell in the database: rings at commit, only while somebody sleeps, and nobody silences it (review A10)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cauce.engine.doorbell import SLEEPING
from tests.integration.engine.kit import PATIENCE, Conn, drain, publish, until, value


class Sleeper:
    """A worker that sleeps, as the database sees it."""

    def __init__(self, conn: Conn) -> None:
        self.conn = conn
        conn.execute("listen cauce")
        conn.execute("select pg_advisory_lock_shared(%s, %s)", SLEEPING)

    def wake(self) -> None:
        """Wake up: nobody sleeps any more."""
        self.conn.execute("select pg_advisory_unlock_shared(%s, %s)", SLEEPING)

    def rings(self, conn: Conn) -> int:
        """Count the rings so far, by ringing another one that is known."""
        conn.execute("notify cauce, 'end'")
        for rings, notice in enumerate(self.conn.notifies(timeout=PATIENCE)):
            if notice.payload == "end":
                return rings
        raise AssertionError("the bell that was rung by hand was not heard")


@pytest.fixture
def sleeper(connect: Callable[..., Conn]) -> Sleeper:
    """A sleeping worker."""
    return Sleeper(connect())


def next_bucket(conn: Conn) -> None:
    """Wait until the doorbell's time bucket is another one."""
    now = "select (extract(epoch from clock_timestamp()) * 50)::bigint"
    bucket = value(conn, now)
    until(lambda: value(conn, now) != bucket)


def test_a_publish_wakes_a_sleeper_at_commit(conn: Conn, connect: Callable[..., Conn], sleeper: Sleeper) -> None:
    """Not before it, not after a rollback, once a transaction however many events it publishes."""
    publisher = connect()
    publisher.execute("begin")
    publish(publisher, 10)
    assert sleeper.rings(conn) == 0
    publisher.execute("commit")
    assert sleeper.rings(conn) == 1
    with publisher.transaction(force_rollback=True):
        publish(publisher)
    assert sleeper.rings(conn) == 0


def test_nobody_rings_while_nobody_sleeps(conn: Conn, sleeper: Sleeper) -> None:
    """A notification costs every commit a lock of the whole cluster."""
    sleeper.wake()
    for _ in range(5):
        next_bucket(conn)
        publish(conn)
    assert sleeper.rings(conn) == 0


def test_a_long_publisher_silences_nobody(conn: Conn, connect: Callable[..., Conn], sleeper: Sleeper) -> None:
    """Another publisher rang first and stays open: 20 of 20 publishes are heard all the same (review A10)."""
    long = connect()
    long.execute("begin")
    publish(long)
    heard = 0
    for _ in range(20):
        next_bucket(conn)
        publish(conn)
        heard += sleeper.rings(conn)
    assert heard == 20
    long.execute("commit")
    assert sleeper.rings(conn) == 1


def test_publishing_many_rings_as_well(conn: Conn, sleeper: Sleeper) -> None:
    """`publicar_eventos` rings once."""
    conn.execute("""select cauce.publicar_eventos('[{"origen": "p", "tipo": "x", "payload": {}},
                                                    {"origen": "p", "tipo": "x", "payload": {}}]')""")
    assert sleeper.rings(conn) == 1


def test_a_silent_publish_rings_nothing(conn: Conn, sleeper: Sleeper) -> None:
    """`set local cauce.timbre = 'no'`, by the function, many at once or a bare INSERT; only in that transaction."""
    with conn.transaction():
        conn.execute("set local cauce.timbre = 'no'")
        publish(conn)
        conn.execute("""select cauce.publicar_eventos('[{"origen": "p", "tipo": "x", "payload": {}}]')""")
        conn.execute("insert into cauce.eventos (origen, tipo, payload) values ('p', 'x', '{}')")
    assert sleeper.rings(conn) == 0
    next_bucket(conn)
    publish(conn)
    assert sleeper.rings(conn) == 1


def test_a_prepared_transaction_may_publish_in_silence_while_somebody_sleeps(conn: Conn, sleeper: Sleeper) -> None:
    """PREPARE TRANSACTION refuses one that rang; in silence it works, and the event is delivered once (review A10)."""
    conn.execute("begin")
    conn.execute("set local cauce.timbre = 'no'")
    prepared = publish(conn)
    conn.execute("prepare transaction 'silent'")
    assert drain(conn) == []
    conn.execute("commit prepared 'silent'")
    assert sleeper.rings(conn) == 0
    assert drain(conn) == prepared
    assert drain(conn) == []
