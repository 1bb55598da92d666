"""Windows: nothing is missed that commits late, nothing comes twice, and delivery follows commits (review A1-A3, D)."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.engine.kit import Conn, claim, column, drain, publish, settle, value


def test_a_commit_is_delivered_once_and_a_rollback_never(conn: Conn) -> None:
    """What is committed comes once; what is rolled back never."""
    with conn.transaction():
        kept = publish(conn, 2)
    with conn.transaction(force_rollback=True):
        publish(conn, 2)
    with conn.transaction():
        kept += publish(conn, 1)
        with conn.transaction(force_rollback=True):
            publish(conn, 1)
    assert drain(conn) == kept
    assert drain(conn) == []


def test_a_straggler_comes_while_another_transaction_is_in_progress(conn: Conn, connect: Callable[..., Conn]) -> None:
    """It commits behind the position of its lane, which cannot be brought up to date yet."""
    late, longer = connect(), connect()
    for publisher in (late, longer):
        publisher.execute("begin")
    (straggler,) = publish(late)
    publish(longer)
    published = publish(conn)
    assert drain(conn) == published
    late.execute("commit")
    assert drain(conn) == [straggler]
    longer.execute("rollback")


def test_an_event_that_commits_after_later_ones_were_consumed_still_comes(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """A straggler is found although the position has passed its transaction long ago."""
    late = connect()
    late.execute("begin")
    straggler = publish(late)
    for _ in range(3):
        assert drain(conn) == []
        published = publish(conn)
        assert drain(conn) == published
    late.execute("commit")
    assert drain(conn) == straggler


def test_several_stragglers_that_commit_in_any_order_come_once(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Transactions that end in another order than they began lose nothing, whatever is claimed in between."""
    publishers = [connect() for _ in range(4)]
    published: list[int] = []
    for publisher in publishers:
        publisher.execute("begin")
        published += publish(publisher, 3)
    got: list[int] = []
    for publisher in (publishers[2], publishers[0], publishers[3], publishers[1]):
        publisher.execute("commit")
        batch = claim(conn, 2)
        got += batch.ids
        settle(conn, batch)
    assert Counter(got + drain(conn, size=2)) == Counter(published)


def test_an_idle_claim_does_not_pass_over_what_is_in_progress(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Polls of an empty log, thousands of transactions long, do not lose the one that is still open."""
    late = connect()
    late.execute("begin")
    straggler = publish(late)
    conn.execute("do $$ begin for i in 1..11000 loop begin perform pg_current_xact_id(); commit; end; end loop; end $$")
    for _ in range(5):
        assert not claim(conn)
    late.execute("commit")
    assert drain(conn) == straggler


def test_a_prepared_transaction_is_a_straggler_like_any_other(conn: Conn, connect: Callable[..., Conn]) -> None:
    """PREPARE TRANSACTION works without the bell; its event comes once after COMMIT PREPARED, others flow by."""
    two_phase = connect()
    two_phase.execute("begin")
    two_phase.execute("set local cauce.timbre = 'no'")
    prepared = publish(two_phase)
    two_phase.execute("prepare transaction 'apart'")
    for _ in range(2):
        published = publish(conn, 3)
        assert drain(conn) == published
    two_phase.execute("commit prepared 'apart'")
    assert drain(conn) == prepared
    assert drain(conn) == []


@pytest.mark.parametrize("rung", [False, True])
def test_what_a_claiming_transaction_publishes_later_is_delivered(conn: Conn, *, rung: bool) -> None:
    """Claim, then publish, in one transaction: the own transaction counts as unfinished (review A2)."""
    first = publish(conn)
    with conn.transaction():
        conn.execute("select pg_current_xact_id()")
        value(conn, "select count(*) from cauce.eventos")
        assert claim(conn, rung=rung).ids == first
        # another session's transaction ends, so that the own id lies below the end of the window that is saved
        with psycopg.connect(conn.info.dsn, autocommit=True) as other:
            later = publish(other)
        assert claim(conn, rung=rung).ids == later
        own = publish(conn)
    assert drain(conn) == own


def test_settle_and_claim_in_one_transaction_lose_nothing_published_at_commit(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """A deferred trigger publishes when the claiming transaction commits: that event is delivered (review A2)."""
    conn.execute("""
        create table hechos (n int);
        create function publicar_al_final() returns trigger language plpgsql as $$ begin
            perform cauce.publicar_evento('prueba', 'tardia', '{}'); return null; end $$;
        create constraint trigger al_final after insert on hechos deferrable initially deferred
            for each row execute function publicar_al_final()""")
    other = connect()
    publish(conn)
    batch = claim(conn)
    with conn.transaction():
        conn.execute("insert into hechos values (1)")
        settle(conn, batch)
        publish(other)
        following = claim(conn)
        publish(other)
        claim(conn)
    late = column(conn, "select id from cauce.eventos where tipo = 'tardia'")
    assert len(late) == 1
    assert drain(conn) == late
    settle(conn, following)


def test_rows_returned_are_the_ids_claimed_under_concurrent_commits(
    conn: Conn, connect: Callable[..., Conn], database: str
) -> None:
    """Whatever commits during a claim: a worker gets exactly the events that its lease names, in that order (A1)."""
    stop = threading.Event()

    def publisher() -> int:
        with psycopg.connect(database, autocommit=True) as mine:
            for _ in range(600):
                publish(mine)
        return 600

    def consumer(mine: Conn, rings: Iterator[bool]) -> list[int]:
        got: list[int] = []
        while True:
            ended = stop.is_set()
            batch = claim(mine, 50, rung=next(rings))
            if batch:
                assert batch.ids == value(mine, "select ids from cauce.lotes where id = %s", batch.lote)
                got += batch.ids
                settle(mine, batch)
            elif ended:
                return got

    with ThreadPoolExecutor(6) as pool:
        consumers = [pool.submit(consumer, connect(), cycle([False, True])) for _ in range(2)]
        published = sum(pool.map(lambda _: publisher(), range(4)))
        stop.set()
        got = [evento for done in consumers for evento in done.result()]
    assert len(got) == published
    assert len(set(got)) == published
    assert value(conn, "select count(*) from cauce.eventos where estado <> 'procesado'") == 0


def test_delivery_follows_commits_of_publishers_that_take_turns(conn: Conn, database: str) -> None:
    """Publishers that serialize on a key before they publish are delivered in commit order, by key (review A3).

    Their transactions began in another order: most write something else first, and so have an older id.
    """
    conn.execute("create table auditoria (n int); create table orden_real (clave int, puesto serial, evento bigint)")

    def producer(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - a scene, not a secret
        with psycopg.connect(database, autocommit=True) as mine:
            for _ in range(300):
                clave = dice.randrange(5)
                with mine.transaction():
                    if dice.random() < 0.6:
                        mine.execute("insert into auditoria values (1)")
                    mine.execute("select pg_advisory_xact_lock(77, %s)", (clave,))
                    (evento,) = publish(mine)
                    mine.execute("insert into orden_real (clave, evento) values (%s, %s)", (clave, evento))

    got: list[int] = []
    rings = cycle([False, True])
    with ThreadPoolExecutor(8) as pool:
        producing = [pool.submit(producer, seed) for seed in range(8)]
        while not all(p.done() for p in producing):
            batch = claim(conn, 40, rung=next(rings))
            if batch:
                got += batch.ids
                settle(conn, batch)
        for p in producing:
            p.result()
    got += drain(conn)
    place = {evento: i for i, evento in enumerate(got)}
    assert len(place) == len(got) == 8 * 300
    for clave in range(5):
        order = column(conn, "select evento from orden_real where clave = %s order by puesto", clave)
        assert [place[e] for e in order] == sorted(place[e] for e in order)


@pytest.mark.parametrize("rung", [False, True])
def test_claims_demand_read_committed(conn: Conn, *, rung: bool) -> None:
    """A claim in REPEATABLE READ is refused, for it would not see what it claims."""
    publish(conn)
    conn.execute("begin isolation level repeatable read")
    with pytest.raises(psycopg.DatabaseError, match="READ COMMITTED") as refused:
        claim(conn, rung=rung)
    assert refused.value.sqlstate == "CA005"


def test_a_claim_that_a_ring_woke_takes_the_first_lane_that_may_have_anything(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """A more urgent lane goes first, also if it is not up to date: half a window, a straggler behind the position."""
    late = connect()
    late.execute("begin")
    straggler = publish(late, prioridad=2)
    urgent = publish(conn, 2, prioridad=2)
    assert claim(conn, rung=True).ids == urgent
    rest = publish(conn, 3)
    late.execute("commit")
    more = publish(conn, 3, prioridad=1)
    assert claim(conn, 2, rung=True).ids == more[:2]
    more += publish(conn, prioridad=1)
    assert claim(conn, 2, rung=True).ids == more[2:]
    assert claim(conn, 2, rung=True).ids == straggler
    assert claim(conn, 2, rung=True).ids == rest[:2]
    assert claim(conn, 2, rung=True).ids == rest[2:]
    assert not claim(conn, rung=True)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 3), st.sampled_from([None, 0, 5, 9])),
        st.tuples(st.just("commit"), st.integers(0, 3), st.none()),
        st.tuples(st.just("rollback"), st.integers(0, 3), st.none()),
        st.tuples(st.just("noise"), st.integers(0, 3), st.none()),
        st.tuples(st.sampled_from(["claim", "claim rung for"]), st.integers(0, 1), st.integers(1, 7)),
    ),
    min_size=5,
    max_size=60,
)


def test_any_interleaving_misses_nothing_repeats_nothing_and_keeps_commit_order(
    conn: Conn, connect: Callable[..., Conn]
) -> None:
    """Whatever order transactions begin, publish, end and are claimed in, by two groups that read apart."""
    publishers = [connect() for _ in range(4)]
    number = iter(range(1_000_000))

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(STEPS)
    def play(steps: list[tuple[str, int, int | None]]) -> None:
        groups = [f"g{next(number)}", f"g{next(number)}"]
        for grupo in groups:
            conn.execute("select cauce.crear_grupo(%s)", (grupo,))
        Scene(conn, publishers, groups).play(steps)

    play()


class Scene:
    """One interleaving, and what must be true of it."""

    def __init__(self, conn: Conn, publishers: list[Conn], groups: list[str]) -> None:
        self.conn, self.publishers, self.groups = conn, publishers, groups
        self.clock = 0
        self.open: dict[int, list[tuple[int, int, int]]] = {}
        self.published: dict[int, tuple[int, int, int]] = {}
        """Event -> lane, when it was published, when it was committed."""
        self.got: dict[str, list[int]] = {grupo: [] for grupo in groups}

    def play(self, steps: list[tuple[str, int, int | None]]) -> None:
        """Take the steps, end what is open, claim the rest, and check."""
        try:
            for what, who, number in steps:
                self.clock += 1
                self.step(what, who, number)
        finally:
            for who in list(self.open):
                self.clock += 1
                self.step("commit", who, None)
        for grupo in self.groups:
            self.got[grupo] += drain(self.conn, grupo=grupo, size=5)
            self.check(self.got[grupo])

    def step(self, what: str, who: int, number: int | None) -> None:
        """Take one step."""
        if what.startswith("claim"):
            grupo = self.groups[who]
            if batch := claim(self.conn, number or 1, grupo=grupo, rung=what != "claim"):
                self.got[grupo] += batch.ids
                settle(self.conn, batch)
            else:
                assert set(self.got[grupo]) == set(self.published)  # it found nothing because nothing is left
            return
        publisher = self.publishers[who]
        if what in ("publish", "noise"):
            if who not in self.open:
                publisher.execute("begin")
                self.open[who] = []
            if what == "noise":  # an id long before the event's
                publisher.execute("select pg_current_xact_id()")
            else:
                (evento,) = publish(publisher, prioridad=number)
                self.open[who].append((evento, 5 if number is None else number, self.clock))
        elif who in self.open:
            publisher.execute("commit" if what == "commit" else "rollback")
            mine = self.open.pop(who)
            if what == "commit":
                self.published |= {evento: (lane, when, self.clock) for evento, lane, when in mine}

    def check(self, got: list[int]) -> None:
        """Nothing missed, nothing twice; and what was published after another's commit comes after it, in its lane."""
        assert Counter(got) == Counter(list(self.published))
        place = {evento: i for i, evento in enumerate(got)}
        for earlier, (lane, _, committed) in self.published.items():
            for later, (other, began, _) in self.published.items():
                if lane == other and committed < began:
                    assert place[earlier] < place[later]
