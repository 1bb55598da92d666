"""The retry queue against a plain model of it: nothing is lost, nothing is in hand twice, everything ends.

Two connections. One does one thing after another. The other now and then leaves a settlement or an operator's retry
open meanwhile, so that claims pass by what it makes due. Nothing here depends on chance: the examples are the same each
time, every draw of the database is seeded, and nobody waits for the clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.engine.kit import Claimed, Conn, claim, column, outcome, publish, value

WHOLE: Final = "*"
SUBSCRIBERS: Final = ("s", "t")
PRIORITIES: Final = (0, 5)
DEATHS: Final = 2
"""Workers that may die over a delivery."""
LATER: Final = 86_400
"""Seconds until a retry that is never due in the test."""
FATES: Final = ("reintentar", "hecha", "reintentar", "later", "reintentar", "muerta", "devuelta", "retenida")

STEPS: Final = 50
"""Of one example."""

Key = tuple[int, str]
T = TypeVar("T")


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
    suspect: bool
    alone: bool = False
    expired: bool = False


@dataclass(slots=True)
class Open:
    """A transaction of the other connection that is not committed yet."""

    apply: Callable[[], None]
    """Does to the model what it does to the database."""
    events: set[int]
    """It has locked them,"""
    locked: set[Key]
    """and these stored deliveries."""
    due: list[Key]
    """What it makes due, for all that a claim knows."""
    lote: int | None = None
    """What it settles."""


class RetryQueue:
    """What may be done to deliveries, and what must come of it."""

    def __init__(self, conn: Conn, other: Conn, data: st.DataObject) -> None:
        self.conn, self.other, self.data = conn, other, data
        conn.execute("truncate cauce.eventos, cauce.entregas, cauce.lotes, cauce.marcas, cauce.fallos, cauce.causas")
        self.events: list[int] = []
        self.waiting: dict[int, list[int]] = {priority: [] for priority in PRIORITIES}
        self.rows: dict[Key, Row] = {}
        self.batches: dict[int, Batch] = {}
        self.open: Open | None = None
        self.passed: set[Key] = set()
        """Due, and perhaps passed by: only the look back must find them."""
        self.clock_went_back = False

    def moves(self) -> list[Callable[[], None]]:
        """What can be done now; what happens more often is there more often."""
        held, opened = bool(self.at_hand), self.open is not None
        often = [self.claim] * 3 + [self.settle] * 3 * held + [self.end] * 2 * opened
        often += [self.look_back] * (3 if self.passed or self.clock_went_back else 1)
        seldom = [self.publish, self.set_the_clock_back]
        seldom += [self.die, self.settle_what_was_lost] * held
        seldom += [self.begin_to_settle] * (held and not opened)
        seldom += [self.begin_to_retry] * (bool(self.rows) and not opened)
        seldom += [self.retry, self.discard] * bool(self.rows)
        seldom += [self.rescue] * any(batch.expired for batch in self.batches.values())
        return often + seldom

    # What is done

    def publish(self) -> None:
        """Publish."""
        count, priority = self._draw(st.integers(1, 3)), self._draw(st.sampled_from(PRIORITIES))
        ids = publish(self.conn, count, prioridad=priority)
        self.events += ids
        self.waiting[priority] += ids

    def claim(self) -> None:
        """Claim: what is handed out is due, and in nobody's hands; if nothing is, nothing was due."""
        size, worker = self._draw(st.integers(1, 6)), self._draw(st.sampled_from("ab"))
        suspect_in_hand = any(batch.suspect and batch.worker == worker for batch in self.batches.values())
        self._seed()
        batch = claim(self.conn, size, worker=worker, lease="1 day", rung=self._draw(st.booleans()))
        if not batch:
            assert not any(self.waiting.values())
            assert self.clock_went_back or all(suspect_in_hand and self.rows[key].deaths for key in self._must_come)
            return
        assert len(batch.rows) <= size
        stored = [row for row in batch.rows if row.suscriptor is not None]
        assert len(stored) <= max(size // 2, 1)
        for waiting in self.waiting.values():
            came = [evento for evento in batch.new if evento in waiting]
            assert came == waiting[: len(came)]
            del waiting[: len(came)]
        for row in stored:
            key = row.id, str(row.suscriptor)
            mine = self.rows[key]
            assert (mine.batch, mine.state) == (None, "due"), key
            assert key not in self._locked, key
            assert (row.intento, row.caidas) == (mine.attempts + 1, mine.deaths), key
            if mine.deaths:
                assert len(batch.rows) == 1
                assert not suspect_in_hand
            mine.batch = batch.lote
            self.passed.discard(key)
        self.batches[batch.lote] = Batch(batch, worker, batch.new, any(row.caidas for row in batch.rows))
        # while somebody holds their rows, a claim passes these by
        self.passed |= {key for key in self._locked if self.rows[key].state == "due"}

    def settle(self) -> None:
        """Settle a batch, whole or in part."""
        lote, ids, report = self._report()
        with self._perhaps_blocked(self._blocks({*ids, *(one["evento"] for one in report)})) as done:
            self._terminar(self.conn, lote, ids, report)
            done()
            self._settled(lote, ids, report)

    def begin_to_settle(self) -> None:
        """Settle in a transaction that stays open."""
        lote, ids, report = self._report()
        self._terminar(self.other, lote, ids, report)
        keys = [(one["evento"], one["suscriptor"]) for one in report]
        events = {*ids, *(evento for evento, _ in keys)}
        self.open = Open(lambda: self._settled(lote, ids, report), events, self.rows.keys() & keys, keys, lote)

    def begin_to_retry(self) -> None:
        """Retry an event in a transaction that stays open."""
        evento = self._one_of([key[0] for key in self.rows])
        self.other.execute("select cauce.reintentar(%s)", (evento,))
        free = self._free(evento, None)
        locked = {key for key in self.rows if key[0] == evento}
        self.open = Open(lambda: self.rows.update({key: Row(0) for key in free}), {evento}, locked, free)

    def end(self) -> None:
        """Commit it, or give it up."""
        ending, self.open = self.open, None
        assert ending is not None
        if not self._draw(st.booleans()):
            self.other.rollback()
            return
        self.other.commit()
        ending.apply()
        self.passed |= {key for key in ending.due if key in self.rows and self.rows[key].state == "due"}

    def settle_what_was_lost(self) -> None:
        """A wrong token settles nothing."""
        batch = self.batches[self._one_of(sorted(self.batches))]
        if self.open is not None and self.open.lote == batch.claimed.lote:
            return
        with pytest.raises(psycopg.DatabaseError) as caught:
            self.conn.execute("select cauce.terminar(%s, %s, null)", (batch.claimed.lote, batch.claimed.ficha ^ 1))
        assert caught.value.sqlstate == "CA001"

    def die(self) -> None:
        """Let a lease expire; perhaps nothing else ran in that worker."""
        lote = self._one_of(self.at_hand)
        batch = self.batches[lote]
        if self._draw(st.booleans()):
            assert value(self.conn, "select cauce.correr_a_solas(%s, %s)", lote, batch.claimed.ficha)
            batch.alone = True
        self.conn.execute("update cauce.lotes set arriendo_hasta = '-infinity' where id = %s", (lote,))
        batch.expired = True

    def rescue(self) -> None:
        """Take over what has expired; a batch that somebody settles, or has an event of, is left for the next time."""
        expired = {lote: self._held(lote) for lote, batch in self.batches.items() if batch.expired}
        taken = [lote for lote, events in expired.items() if not self._blocks(events, lote)]
        with self._patience(short=len(taken) < len(expired)):
            assert value(self.conn, "select cauce.rescatar(%s)", DEATHS) == len(taken)
        for lote in taken:
            batch = self.batches.pop(lote)
            for row in (row for row in self.rows.values() if row.batch == lote):
                decided = row.deaths + 1 >= DEATHS
                row.state = "dead" if batch.alone and decided else "due"
                row.deaths += batch.alone or not decided
                row.attempts += 1
                row.batch = None
            self.rows.update({(evento, WHOLE): Row(1, 1) for evento in batch.new})

    def retry(self) -> None:
        """Make deliveries of an event due, all their attempts before them."""
        evento, suscriptor = self._event_and_subscriber()
        with self._perhaps_blocked(self._blocks({evento})) as done:
            count = value(self.conn, "select cauce.reintentar(%s, null, %s)", evento, suscriptor)
            done()
            free = self._free(evento, suscriptor)
            assert count == len(free)
            self.rows.update({key: Row(0) for key in free})
            self.passed -= set(free)

    def discard(self) -> None:
        """Give deliveries of an event up."""
        evento, suscriptor = self._event_and_subscriber()
        with self._perhaps_blocked(self._blocks({evento})) as done:
            count = value(self.conn, "select cauce.descartar(%s, null, %s)", evento, suscriptor)
            done()
            free = self._free(evento, suscriptor)
            assert count == len(free)
            for key in free:
                del self.rows[key]
            self.passed -= set(free)

    def look_back(self) -> None:
        """Find what was passed by, and nothing else; after that, nothing is passed by but what somebody has locked.

        What is found is due a moment later; the moment passes at once.
        """
        before = self._due_times()
        waits = self.clock_went_back and self.open is not None and not self.open.locked <= self._locked
        with self._perhaps_blocked(waits) as done:
            self._seed()
            count = value(self.conn, "select cauce.repasar_reintentos('principal', alcance => '1 day')")
            done()
            found = [
                key for key, due in self._due_times().items() if before[key] != due and self.rows[key].batch is None
            ]
            assert count == len(found)
            assert set(found) <= self.passed - self._locked
            for evento, suscriptor in found:
                self.conn.execute(
                    "update cauce.entregas set proximo_en = proximo_en - interval '0.1 second'"
                    " where (evento, suscriptor) = (%s, %s)",
                    (evento, suscriptor),
                )
            self.passed &= self._locked
            self.clock_went_back = False

    def set_the_clock_back(self) -> None:
        """The marks lie in the future then."""
        self.conn.execute("update cauce.marcas set proximo_en = proximo_en + interval '1 day'")
        self.clock_went_back = self.clock_went_back or bool(
            value(self.conn, "select count(*) from cauce.marcas where proximo_en > now()")
        )

    # What must be

    def check(self) -> None:
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

    def end_all(self) -> None:
        """All ends well: let every worker die, retry whatever waits or is dead, and settle it all."""
        self.other.rollback()
        self.conn.execute("update cauce.lotes set arriendo_hasta = '-infinity'")
        self.conn.execute("select cauce.rescatar(100)")
        self.conn.execute("delete from cauce.marcas")  # the clock is right again
        self.conn.execute("select cauce.reintentar(evento) from (select distinct evento from cauce.entregas) d")
        while batch := claim(self.conn, 50, worker="z"):
            done = [outcome(row.id, row.suscriptor, "hecha", row.intento) for row in batch.rows if row.suscriptor]
            self.conn.execute(
                "select cauce.terminar(%s, %s, null, %s::jsonb)",
                (batch.lote, batch.ficha, json.dumps(done) if done else None),
            )
        assert set(column(self.conn, "select estado::text from cauce.eventos")) <= {"procesado"}
        assert not value(self.conn, "select count(*) from cauce.entregas")

    # How

    @property
    def at_hand(self) -> list[int]:
        """The batches that nobody is settling."""
        return sorted(lote for lote in self.batches if self.open is None or self.open.lote != lote)

    @property
    def _locked(self) -> set[Key]:
        """The deliveries, in nobody's hands, that the open transaction has locked."""
        locked = self.open.locked if self.open is not None else set[Key]()
        return {key for key in locked if self.rows[key].batch is None}

    @property
    def _must_come(self) -> set[Key]:
        """What a claim that asks for enough must hand out."""
        due = {key for key, row in self.rows.items() if row.state == "due" and row.batch is None}
        return due - self.passed - self._locked

    def _draw(self, strategy: st.SearchStrategy[T]) -> T:
        return self.data.draw(strategy)

    def _one_of(self, choices: Sequence[int]) -> int:
        """Draw a place in a list: ids go on from one example to the next, and must not matter."""
        return choices[self._draw(st.integers(0, len(choices) - 1))]

    def _event_and_subscriber(self) -> tuple[int, str | None]:
        return self._one_of([key[0] for key in self.rows]), self._draw(st.sampled_from([None, *SUBSCRIBERS]))

    def _seed(self) -> None:
        """Draw what the database's own lots begin from."""
        self.conn.execute("select setseed(%s)", (self._draw(st.integers(0, 19)) / 20,))

    def _due_times(self) -> dict[Key, str]:
        found = self.conn.execute("select evento, suscriptor, proximo_en::text from cauce.entregas")
        return {(evento, suscriptor): due for evento, suscriptor, due in found}

    def _held(self, lote: int) -> set[int]:
        """The events of a batch."""
        return {*self.batches[lote].new, *(key[0] for key, row in self.rows.items() if row.batch == lote)}

    def _blocks(self, events: Iterable[int], lote: int | None = None) -> bool:
        """Whether the open transaction has locked one of them, or settles that batch."""
        return self.open is not None and (
            not self.open.events.isdisjoint(events) or (lote is not None and lote == self.open.lote)
        )

    @contextmanager
    def _patience(self, *, short: bool) -> Iterator[None]:
        """Do not wait for the open transaction, if a statement would: it does not end meanwhile."""
        if short:
            self.conn.execute("set lock_timeout = '1ms'")
        try:
            yield
        finally:
            if short:
                self.conn.execute("set lock_timeout = '30s'")

    @contextmanager
    def _perhaps_blocked(self, blocked: bool) -> Iterator[Callable[[], None]]:  # noqa: FBT001 - the one thing it asks
        """Expect a statement to fail whole if it would wait for the open transaction; to be done with, if not."""

        def done() -> None:
            assert not blocked

        with self._patience(short=blocked):
            try:
                yield done
            except psycopg.errors.LockNotAvailable:
                assert blocked

    def _free(self, evento: int, suscriptor: str | None) -> list[Key]:
        """The stored deliveries of an event that nobody has in hand."""
        return [
            key for key, row in self.rows.items()
            if key[0] == evento and suscriptor in (None, key[1]) and row.batch is None
        ]  # fmt: skip

    def _report(self) -> tuple[int, list[int], list[dict[str, Any]]]:
        """Draw a batch, which events of it are settled, and what became of their deliveries and of its retries."""
        lote = self._one_of(self.at_hand)
        fates = st.sampled_from(FATES)
        ids = [evento for evento in self.batches[lote].new if self._draw(st.booleans())]
        report: list[dict[str, Any]] = []
        apart = [(evento, 1) for evento in ids]
        for (evento, suscriptor), row in self.rows.items():
            if row.batch != lote or (fate := self._draw(fates)) == "retenida":
                continue
            report.append(_outcome(evento, suscriptor, fate, row.attempts + 1))
            if suscriptor == WHOLE and fate == "hecha":
                apart.append((evento, row.attempts + 1))
        for evento, attempt in apart:
            report += [
                _outcome(evento, suscriptor, fate, attempt)
                for suscriptor in SUBSCRIBERS
                if (fate := self._draw(fates)) != "hecha"
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
        waiting = any(evento in waiting for waiting in self.waiting.values())
        if waiting or any(evento in batch.new for batch in self.batches.values()):
            return "pendiente"
        rows = {key[1]: row for key, row in self.rows.items() if key[0] == evento}
        if any(row.state == "dead" for row in rows.values()):
            return "error"
        if not rows:
            return "procesado"
        return "pendiente" if all(one == WHOLE and not row.attempts for one, row in rows.items()) else "en_proceso"


def _outcome(evento: int, suscriptor: str, fate: str, attempt: int) -> dict[str, Any]:
    if fate == "later":
        return outcome(evento, suscriptor, "reintentar", attempt, espera=LATER)
    return outcome(evento, suscriptor, fate, attempt, espera=0)


def test_the_retry_queue_does_what_its_model_does(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Claims, settlements, deaths, rescues, retries and discards, in any order, one of them left open meanwhile."""
    conn.execute("set synchronous_commit = off")
    conn.execute("set lock_timeout = '30s'")
    other = connect(autocommit=False)

    @settings(
        max_examples=30,
        derandomize=True,
        phases=[Phase.generate],  # shrinking takes minutes, and fifty steps can be read
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.data())
    def play(data: st.DataObject) -> None:
        other.rollback()
        queue = RetryQueue(conn, other, data)
        for _ in range(STEPS):
            move = data.draw(st.sampled_from([move.__name__ for move in queue.moves()]))
            getattr(queue, move)()
            queue.check()
        queue.end_all()

    play()
