"""EXPLAIN guards: no hot statement scans, sorts or bitmaps a log of a million events, analyzed or not (review B)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, LiteralString

import psycopg
import pytest

from cauce.database import inbox
from tests.integration.engine.kit import Claimed, Conn, claim, drain, outcome, publish, settle, value
from tests.integration.plans.conftest import FILL, FILL_LANE
from tests.integration.plans.explained import Listener, know

TOMAR: Final = "explain (analyze, buffers, format json) select * from cauce.tomar('principal', %s, 'w', '1 min')"
TOMAR_AL_TIMBRE: Final = TOMAR.replace("tomar", "tomar_al_timbre")


def buffers(conn: Conn, size: int = 100, claiming: LiteralString = TOMAR) -> int:
    """Claim, settle, and count the pages that the claim touched."""
    plan = value(conn, claiming, size)[0]["Plan"]
    conn.execute("select cauce.terminar(id, ficha, null) from cauce.lotes")
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


HOT: dict[str, Callable[[Conn], object]] = {
    "publish": lambda conn: publish(conn, 2),
    "publish with an id": lambda conn: [
        conn.execute("select cauce.publicar_evento('prueba', 'x', '{}', id_externo => %s)", (i,)) for i in "aa"
    ],
    "publish many": lambda conn: [
        conn.execute(
            "select cauce.publicar_eventos(jsonb_agg(jsonb_build_object('origen', 'prueba', 'tipo', 'x', 'payload',"
            " '{}'::jsonb, 'id_externo', n / 2))) from generate_series(1, 1000) n"
        )
    ],
    "receive": lambda conn: [_receive(conn, "a", "b") for _ in range(2)],
    "find what was received": lambda conn: psycopg.RawCursor(conn).execute(
        inbox.select_of(inbox.MOST_ROWS), [field for n in range(inbox.MOST_ROWS) for field in ("prueba", f"{n}")]
    ),
    "claim and settle": lambda conn: _work(conn, 500, 3),
    "claim one": lambda conn: _work(conn, 1, 30),
    "settle with failures": lambda conn: _fail(conn, claim(conn, 500)),
    "claim retries": lambda conn: _fail(conn, claim(conn, 500)),
    "settle in part": lambda conn: _in_part(conn, claim(conn, 500)),
    "renew": lambda conn: [
        conn.execute("select cauce.renovar(%s, %s, '1 min')", ([b.lote], [b.ficha])) for b in [claim(conn, 500)]
    ],
    "show as in process": lambda conn: [
        conn.execute("select cauce.marcar_en_proceso(%s, %s)", ([b.lote], [b.ficha])) for b in [claim(conn, 500)]
    ],
    "rescue": lambda conn: [claim(conn, 500, lease=-1), conn.execute("select cauce.rescatar(3)")],
    "lag": lambda conn: conn.execute("select * from cauce.retraso('principal', 1000)"),
    "check for a restore": lambda conn: conn.execute(
        "select cauce.comprobar_restauracion(), cauce.comprobar_instancia()"
    ),
}


def _receive(conn: Conn, *ids: str) -> object:
    rows = [inbox.InboxRow("prueba", "x", one, "{}", None, "{}", None) for one in ids]
    return psycopg.RawCursor(conn).execute(inbox.insert_of(len(rows)), [field for row in rows for field in row])


def _work(conn: Conn, size: int, times: int) -> None:
    for _ in range(times):
        settle(conn, claim(conn, size))


def _fail(conn: Conn, batch: Claimed) -> None:
    report = [
        outcome(r.id, r.suscriptor or "s", "hecha" if r.suscriptor else "reintentar", r.intento, espera=0)
        for r in batch.rows
    ]
    settle(conn, batch, report)


def _in_part(conn: Conn, batch: Claimed) -> None:
    settle(conn, batch, ids=batch.new[:100])
    settle(conn, batch, ids=batch.new[100:])


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed"])
def test_no_hot_statement_scans_sorts_or_bitmaps_the_log(million: str, *, analyzed: bool) -> None:
    """Every statement inside the functions reads `eventos` by an index, in order, whatever is known of it."""
    know(million, analyzed=analyzed)
    wrong: list[str] = []
    for name, act in HOT.items():
        with psycopg.connect(million, autocommit=True) as conn:  # a fresh one: plans of their own
            listener = Listener(conn)
            act(conn)
            assert any(ran.reads_the_log for ran in listener.ran) or name == "renew", name
            wrong += [f"{name}: {fault}: {ran.text.strip()[:300]}" for ran in listener.ran for fault in ran.faults]
    assert not wrong, "\n".join(wrong)


def test_a_claim_from_a_million_unanalyzed_events_touches_few_pages(million: str) -> None:
    """The first claim of a new connection too: the moment after a burst (review B4)."""
    with psycopg.connect(million, autocommit=True) as conn:
        first, *later = [buffers(conn, 500) for _ in range(5)]
    assert first < 6000  # with what the connection reads of the system's catalogs, once
    assert max(later) < 2500


def test_a_held_reader_does_not_slow_claims_down(conn: Conn, database: str) -> None:
    """Thousands of claims under a snapshot that somebody holds: each touches as few pages as the first (review B1)."""
    with psycopg.connect(database) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from cauce.posiciones")
        conn.execute(FILL, (4000,))
        first = sorted(buffers(conn, 1) for _ in range(9))[4]
        for _ in range(2500):
            conn.execute("select * from cauce.tomar('principal', 1, 'w', '1 min')")
            conn.execute("select cauce.terminar(id, ficha, null) from cauce.lotes")
        last = sorted(buffers(conn, 1) for _ in range(9))[4]
    assert last <= first + 20, (first, last)


@pytest.mark.parametrize("claiming", [TOMAR, TOMAR_AL_TIMBRE], ids=["a look", "a ring"])
def test_an_open_bulk_publisher_is_looked_through_once(conn: Conn, database: str, claiming: LiteralString) -> None:
    """Its uncommitted rows are passed by once, not by every claim and every idle look of the others (review B2)."""
    normal = [buffers(conn, 10, claiming) for _ in range(3) if publish(conn, 10)]
    with psycopg.connect(database) as bulk:
        bulk.execute(FILL, (100_000,))
        later = []
        for _ in range(5):
            publish(conn, 10)
            later.append(buffers(conn, 10, claiming))
        bulk.execute(FILL, (100_000,))
        idle = [buffers(conn, 10, claiming) for _ in range(5)]
    assert sum(n > 3 * max(normal) for n in later) <= 1, (normal, later)
    assert sum(n > 3 * max(normal) for n in idle) <= 1, (normal, idle)


@pytest.mark.parametrize("lanes", [[5], [2], [8], [2, 5, 7, 9]], ids=["same", "more urgent", "less urgent", "several"])
def test_open_bulk_publishers_slow_one_claim_wherever_they_are(conn: Conn, database: str, lanes: list[int]) -> None:
    """Of 300 claims from lane 5, some of which begin elsewhere, one goes past their rows, in all lanes (review B2)."""
    normal = max(buffers(conn, 10) for _ in range(5) if publish(conn, 10))
    with contextlib.ExitStack() as opened:
        for lane in lanes:
            bulk = opened.enter_context(psycopg.connect(database))
            bulk.execute(FILL_LANE, (lane, lane, 30_000))
        costs = [buffers(conn, 10) for _ in range(300) if publish(conn, 10)]
    assert sum(cost > 3 * normal for cost in costs) <= 1, (normal, sorted(costs)[-20:])


def test_a_claim_hands_out_what_it_found_rather_than_pass_by_rows_without_end(conn: Conn, database: str) -> None:
    """Ten events, each behind 20,000 rows that nobody may see: a few at a time, all of them, in order."""
    with psycopg.connect(database) as bulk:
        published = []
        for _ in range(10):
            bulk.execute(FILL, (20_000,))
            published += publish(conn)
        first, *later = [claim(conn, 10) for _ in range(3)]
    assert first.new == published[:4]  # 80,000 rows are beyond its patience
    assert [one for batch in later for one in batch.new] == published[4:]


def test_a_huge_straggler_drains_at_an_even_cost(conn: Conn, database: str) -> None:
    """A hundred thousand events that commit late, in one transaction: the last claim costs what the first did (B3)."""
    with psycopg.connect(database) as late:
        late.execute(FILL, (100_000,))
        publish(conn, 500)
        drain(conn)
        late.commit()
    costs = [buffers(conn, 2000) for _ in range(50)]
    assert value(conn, "select count(*) from cauce.eventos where estado = 'procesado'") == 100_500
    middle, end = sorted(costs[5:15])[5], sorted(costs[-10:])[5]
    assert end <= 1.5 * middle, costs
