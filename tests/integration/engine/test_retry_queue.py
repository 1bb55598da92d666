"""The retry queue against a plain model of it: nothing is lost, nothing is in hand twice, everything ends.

Two connections: one does one thing after another, the other settles in a transaction that stays open meanwhile, so that
claims pass by what it makes due.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from psycopg import sql

from tests.integration.engine.kit import Claimed, claim, column, outcome, publish, until, value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.engine.kit import Conn

WHOLE: Final = "*"
SUBSCRIBERS: Final = ("s", "t")
DEATHS: Final = 2
"""Workers that may die over a delivery."""
LATER: Final = 3600
"""Seconds until a retry that is never due in the test."""
FATES: Final = ("hecha", "reintentar", "later", "muerta", "devuelta", "retenida")
TABLES: Final = ("eventos", "entregas", "lotes", "marcas", "fallos", "causas")

Key = tuple[int, str]


@dataclass(slots=True)
class Row:
    """A stored delivery."""

    attempts: int
    deaths: int = 0
    state: str = "due"
    """Or "later", or "dead"."""
    batch: int | None = None
    """Who has it in hand."""


@dataclass(slots=True)
class Batch:
    """What a lease covers."""

    claimed: Claimed
    worker: str
    new: list[int]
    alone: bool = False
    expired: bool = False


@dataclass(slots=True)
class Late:
    """A settlement that is not committed yet."""

    lote: int
    apply: Callable[[], None]
    due: list[Key] = field(default_factory=list[Key])


class RetryQueue(RuleBasedStateMachine):
    """What may be done to deliveries, and what must come of it."""

    def __init__(self, conn: Conn, other: Conn) -> None:
        super().__init__()
        self.conn, self.other = conn, other
        for table in TABLES:
            conn.execute(sql.SQL("delete from cauce.{}").format(sql.Identifier(table)))
        self.events: list[int] = []
        self.waiting: list[int] = []
        self.rows: dict[Key, Row] = {}
        self.batches: dict[int, Batch] = {}
        self.late: Late | None = None
        self.passed: set[Key] = set()
        """Due, and perhaps passed by: only the look back must find them."""
        self.clock_went_back = False
        self.workers = 0

    # What is done

    @rule(count=st.integers(1, 3))
    def publish(self, count: int) -> None:
        """Publish."""
        ids = publish(self.conn, count)
        self.events += ids
        self.waiting += ids

    @rule(size=st.integers(1, 6), worker=st.sampled_from("ab"))
    def claim(self, size: int, worker: str) -> None:
        """Claim: what is handed out is due, and in nobody's hands; if nothing is, nothing was due."""
        batch = claim(self.conn, size, worker=worker)
        suspect_in_hand = any(
            row.batch is not None and row.deaths and self.batches[row.batch].worker == worker
            for row in self.rows.values()
        )
        if not batch:
            assert not self.waiting
            left = {key for key, row in self.rows.items() if row.state == "due" and row.batch is None} - self.passed
            assert self.clock_went_back or all(suspect_in_hand and self.rows[key].deaths for key in left), left
            return
        assert len(batch.rows) <= size
        stored = [row for row in batch.rows if row.suscriptor is not None]
        assert len(stored) <= max(size // 2, 1)
        assert batch.new == self.waiting[: len(batch.new)]
        del self.waiting[: len(batch.new)]
        for row in stored:
            key = row.id, str(row.suscriptor)
            mine = self.rows[key]
            assert (mine.batch, mine.state) == (None, "due"), key
            assert (row.intento, row.caidas) == (mine.attempts + 1, mine.deaths), key
            if mine.deaths:
                assert len(batch.rows) == 1
                assert not suspect_in_hand
            mine.batch = batch.lote
            self.passed.discard(key)
        self.batches[batch.lote] = Batch(batch, worker, batch.new)

    @precondition(lambda self: self.at_hand)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Settle a batch, whole or in part."""
        lote, ids, report = self._report(data)
        with self._perhaps_blocked():
            self._terminar(self.conn, lote, ids, report)
            self._settled(lote, ids, report)

    @precondition(lambda self: self.at_hand and self.late is None)
    @rule(data=st.data())
    def begin_to_settle(self, data: st.DataObject) -> None:
        """Settle in a transaction that stays open."""
        lote, ids, report = self._report(data)
        self._terminar(self.other, lote, ids, report)
        due = [(one["evento"], one["suscriptor"]) for one in report]
        self.late = Late(lote, lambda: self._settled(lote, ids, report), due)

    @precondition(lambda self: self.late is not None)
    @rule(commit=st.booleans())
    def end_settling(self, *, commit: bool) -> None:
        """Commit it, or give it up."""
        late, self.late = self.late, None
        assert late is not None
        if not commit:
            self.other.rollback()
            return
        self.other.commit()
        late.apply()
        self.passed |= {key for key in late.due if key in self.rows}

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def settle_what_was_lost(self, data: st.DataObject) -> None:
        """A wrong token settles nothing."""
        batch = self.batches[data.draw(st.sampled_from(sorted(self.batches)))]
        with pytest.raises(psycopg.DatabaseError) as caught:
            self.conn.execute("select cauce.terminar(%s, %s, null)", (batch.claimed.lote, batch.claimed.ficha ^ 1))
        assert caught.value.sqlstate in ("CA001", "55P03")

    @precondition(lambda self: self.at_hand)
    @rule(data=st.data(), alone=st.booleans())
    def die(self, data: st.DataObject, *, alone: bool) -> None:
        """Let a lease expire; perhaps nothing else ran in that worker."""
        lote = data.draw(st.sampled_from(self.at_hand))
        batch = self.batches[lote]
        if alone:
            assert value(self.conn, "select cauce.correr_a_solas(%s, %s)", lote, batch.claimed.ficha)
            batch.alone = True
        self.conn.execute("update cauce.lotes set arriendo_hasta = '-infinity' where id = %s", (lote,))
        batch.expired = True

    @rule()
    def rescue(self) -> None:
        """Take over what has expired; what somebody settles meanwhile may be left."""
        self.conn.execute("select cauce.rescatar(%s)", (DEATHS,))
        left = set(column(self.conn, "select id from cauce.lotes"))
        for lote, batch in list(self.batches.items()):
            if not batch.expired or (self.late is not None and lote in left):
                continue
            assert lote not in left
            for row in (row for row in self.rows.values() if row.batch == lote):
                decided = row.deaths + 1 >= DEATHS
                row.state = "dead" if batch.alone and decided else "due"
                row.deaths += batch.alone or not decided
                row.attempts += 1
                row.batch = None
            self.rows.update({(evento, WHOLE): Row(1, 1) for evento in batch.new})
            del self.batches[lote]

    @precondition(lambda self: self.events)
    @rule(data=st.data(), suscriptor=st.sampled_from([None, *SUBSCRIBERS]))
    def retry(self, data: st.DataObject, suscriptor: str | None) -> None:
        """Make deliveries of an event due, all their attempts before them."""
        evento = data.draw(st.sampled_from(self.events))
        with self._perhaps_blocked():
            count = value(self.conn, "select cauce.reintentar(%s, null, %s)", evento, suscriptor)
            free = self._free(evento, suscriptor)
            assert count == len(free)
            self.rows.update({key: Row(0) for key in free})

    @precondition(lambda self: self.events)
    @rule(data=st.data(), suscriptor=st.sampled_from([None, *SUBSCRIBERS]))
    def discard(self, data: st.DataObject, suscriptor: str | None) -> None:
        """Give deliveries of an event up."""
        evento = data.draw(st.sampled_from(self.events))
        with self._perhaps_blocked():
            count = value(self.conn, "select cauce.descartar(%s, null, %s)", evento, suscriptor)
            free = self._free(evento, suscriptor)
            assert count == len(free)
            for key in free:
                del self.rows[key]

    @rule()
    def look_back(self) -> None:
        """Find what was passed by, and nothing else."""
        with self._perhaps_blocked():
            found = value(self.conn, "select cauce.repasar_reintentos('principal')")
            assert found <= len(self.passed)
            self.clock_went_back = False

    @rule()
    def set_the_clock_back(self) -> None:
        """The marks lie in the future then."""
        self.conn.execute("update cauce.marcas set proximo_en = proximo_en + interval '1 hour'")
        self.clock_went_back = bool(value(self.conn, "select count(*) from cauce.marcas")) or self.clock_went_back

    # What must be

    @invariant()
    def the_database_agrees(self) -> None:
        """Each delivery and each event is what the model says."""
        stored = self.conn.execute(
            "select d.evento, d.suscriptor, d.intentos, d.caidas, d.estado::text, h.lote from cauce.entregas d"
            " left join cauce.en_mano h using (evento, grupo, suscriptor)"
        ).fetchall()
        assert {(evento, one): tuple(rest) for evento, one, *rest in stored} == {
            key: (row.attempts, row.deaths, "error" if row.state == "dead" else "pendiente", row.batch)
            for key, row in self.rows.items()
        }
        assert len(stored) == len(self.rows)  # in hand once
        states = dict(self.conn.execute("select id, estado::text from cauce.eventos").fetchall())
        assert states == {evento: self._state(evento) for evento in self.events}

    def teardown(self) -> None:
        """All ends well: let every worker die, retry whatever waits or is dead, and settle it all."""
        self.other.rollback()
        self.conn.execute("update cauce.lotes set arriendo_hasta = '-infinity'")
        self.conn.execute("select cauce.rescatar(100)")
        self.conn.execute("select cauce.reintentar(evento) from (select distinct evento from cauce.entregas) d")
        until(self._settle_all, "the end of all deliveries")
        assert set(column(self.conn, "select estado::text from cauce.eventos")) <= {"procesado"}
        assert not value(self.conn, "select count(*) from cauce.entregas")

    # How

    @property
    def at_hand(self) -> list[int]:
        """The batches that nobody is settling."""
        return sorted(lote for lote in self.batches if self.late is None or self.late.lote != lote)

    @contextmanager
    def _perhaps_blocked(self) -> Iterator[None]:
        """Let a statement fail whole, if it would wait for the settlement that stays open."""
        try:
            yield
        except psycopg.errors.LockNotAvailable:
            assert self.late is not None

    def _free(self, evento: int, suscriptor: str | None) -> list[Key]:
        """The stored deliveries of an event that nobody has in hand."""
        return [
            key for key, row in self.rows.items()
            if key[0] == evento and suscriptor in (None, key[1]) and row.batch is None
        ]  # fmt: skip

    def _report(self, data: st.DataObject) -> tuple[int, list[int], list[dict[str, Any]]]:
        """Draw a batch, which events of it are settled, and what became of their deliveries and of its retries."""
        lote = data.draw(st.sampled_from(self.at_hand), "batch")
        fates = st.sampled_from(FATES)
        ids = [evento for evento in self.batches[lote].new if data.draw(st.booleans(), f"settle {evento}")]
        report: list[dict[str, Any]] = []
        apart = [(evento, 1) for evento in ids]
        for (evento, suscriptor), row in self.rows.items():
            if row.batch != lote or (fate := data.draw(fates, f"{evento} {suscriptor}")) == "retenida":
                continue
            report.append(_outcome(evento, suscriptor, fate, row.attempts + 1))
            if suscriptor == WHOLE and fate == "hecha":
                apart.append((evento, row.attempts + 1))
        for evento, attempt in apart:
            report += [
                _outcome(evento, suscriptor, fate, attempt)
                for suscriptor in SUBSCRIBERS
                if (fate := data.draw(fates, f"{evento} {suscriptor}")) != "hecha"
            ]
        return lote, ids, report

    def _terminar(self, conn: Conn, lote: int, ids: list[int], report: list[dict[str, Any]]) -> None:
        conn.execute(
            "select cauce.terminar(%s, %s, %s::bigint[], %s::jsonb)",
            (lote, self.batches[lote].claimed.ficha, ids, json.dumps(report) if report else None),
        )

    def _settled(self, lote: int, ids: list[int], report: list[dict[str, Any]]) -> None:
        """Do to the model what a settlement does."""
        batch = self.batches[lote]
        batch.new = [evento for evento in batch.new if evento not in ids]
        for one in report:
            key = one["evento"], one["suscriptor"]
            resultado, attempt = one["resultado"], one["intento"]
            if resultado == "hecha":
                del self.rows[key]
                continue
            row = self.rows.setdefault(key, Row(0))
            failed = resultado in ("reintentar", "muerta")
            row.attempts = attempt if failed else attempt - 1
            row.deaths = 0 if failed else row.deaths
            row.state = "dead" if resultado == "muerta" else "later" if one.get("espera") else "due"
            row.batch = lote if resultado == "retenida" else None
        if not batch.new and all(row.batch != lote for row in self.rows.values()):
            del self.batches[lote]

    def _state(self, evento: int) -> str:
        if evento in self.waiting or any(evento in batch.new for batch in self.batches.values()):
            return "pendiente"
        rows = {key[1]: row for key, row in self.rows.items() if key[0] == evento}
        if any(row.state == "dead" for row in rows.values()):
            return "error"
        if not rows:
            return "procesado"
        return "pendiente" if all(one == WHOLE and not row.attempts for one, row in rows.items()) else "en_proceso"

    def _settle_all(self) -> bool:
        """Hand out and settle what there is; whether nothing is left."""
        value(self.conn, "select cauce.repasar_reintentos('principal')")
        while batch := claim(self.conn, 50, worker="z"):
            done = [outcome(row.id, row.suscriptor, "hecha", row.intento) for row in batch.rows if row.suscriptor]
            self.conn.execute(
                "select cauce.terminar(%s, %s, null, %s::jsonb)",
                (batch.lote, batch.ficha, json.dumps(done) if done else None),
            )
        return not value(self.conn, "select count(*) from cauce.eventos where estado <> 'procesado'")


def _outcome(evento: int, suscriptor: str, fate: str, attempt: int) -> dict[str, Any]:
    if fate == "later":
        return outcome(evento, suscriptor, "reintentar", attempt, espera=LATER)
    return outcome(evento, suscriptor, fate, attempt, espera=0)


def test_the_retry_queue_does_what_its_model_does(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Claims, settlements, deaths, rescues, retries and discards, in any order, one of them left open meanwhile."""
    conn.execute("set lock_timeout = '5ms'")
    conn.execute("set synchronous_commit = off")
    other = connect(autocommit=False)

    class OnThisDatabase(RetryQueue):
        def __init__(self) -> None:
            super().__init__(conn, other)

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
