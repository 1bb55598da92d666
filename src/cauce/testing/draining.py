"""Draining: the work of a worker, done at once and to the end, and what came of it."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cauce import sql
from cauce.config import Settings, expect_application
from cauce.engine.connections import connect
from cauce.engine.cron import Conteo, procesar_lote
from cauce.engine.worker import prepare
from cauce.testing.loop import run

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from cauce.bus import Bus
    from cauce.evento import Evento
    from cauce.outcome import Attempt

LIMIT: Final = 10_000
"""Deliveries after which ``drain`` takes the work for endless, where it is not told otherwise."""

WAITING: Final = "select count(*) from cauce.entregas where grupo = any(%s) and estado = 'pendiente'"
LAST_FAILURE: Final = "select coalesce(max(id), 0) from cauce.fallos"


class FailedAttempt(NamedTuple):
    """A row of ``fallos``: one attempt at one delivery that failed."""

    evento: int
    """The event's id."""
    origen: str
    """The event's origin."""
    tipo: str
    """The event's name."""
    grupo: str
    """The consumer group."""
    suscriptor: str
    """The subscriber's name; ``manejador`` is the event's own handler."""
    intento: int
    """The attempt's number, 1 the first time."""
    error: str
    """The error's type and message."""
    traza: str | None
    """The traceback of the first failure with the same cause."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The result of ``drain``. Every number counts deliveries."""

    done: int
    """Deliveries that succeeded."""
    retried: int
    """Attempts that failed and will be retried."""
    dead: int
    """Deliveries that ended in ``error``."""
    ignored: int
    """Webhooks whose event has no handler and no subscriber."""
    waiting: int
    """Deliveries that are due later, or were given back because only another application knows them."""
    failures: tuple[FailedAttempt, ...]
    """The failed attempts, the oldest first."""


class DrainError(AssertionError):
    """Some handler failed, or there was no end; ``drained`` says what was done all the same."""

    def __init__(self, message: str, drained: Drained) -> None:
        self.drained = drained
        super().__init__(message)


def drain(bus: Bus, settings: Settings, *, check: bool = True, hurry: bool = True, limit: int = LIMIT) -> Drained:
    """Process everything that is due in every group of the bus, and what that publishes in turn, until nothing is left.

    Args:
        bus: the application's bus.
        settings: the settings of a worker, such as ``cauce_db.settings``.
        check: raise an error for a failed attempt, after all other due deliveries. False: retry it, as a worker would.
        hurry: retry at once, without the backoff.
        limit: the number of deliveries after which ``drain`` gives up.

    Raises:
        DrainError: an attempt failed and ``check`` is on, its cause being what the first handler raised; or the limit
            is reached.
        WrongArgument: ``bus`` is not a ``Bus``, or ``settings`` is not a ``Settings``.
    """
    return run(drain_async(bus, settings, check=check, hurry=hurry, limit=limit), "drain")


async def drain_async(
    bus: Bus, settings: Settings, *, check: bool = True, hurry: bool = True, limit: int = LIMIT
) -> Drained:
    """Do the same as ``drain`` in the running event loop, which the handlers then share with the test.

    Args:
        bus: the application's bus.
        settings: the settings of a worker, such as ``cauce_db.settings``.
        check: raise an error for a failed attempt, after all other due deliveries. False: retry it, as a worker would.
        hurry: retry at once, without the backoff.
        limit: the number of deliveries after which ``drain_async`` gives up.
    """
    expect_application(bus, settings, "drain")
    await asyncio.to_thread(prepare, bus, settings)
    raised: list[BaseException] = []
    watched = _watched(bus, raised)
    groups = list(bus.groups)
    counts: list[Conteo] = []
    failures: tuple[FailedAttempt, ...] = ()
    waiting = 0
    async with await connect(settings) as conn:
        last = await _number(conn, LAST_FAILURE)
        while (left := limit - sum(map(_deliveries, counts))) > 0:
            if hurry:
                await conn.execute(sql.query("testing/hurry"), {"grupos": groups})
            counts.append(await procesar_lote(watched, settings, limite=left, segundos=float("inf")))
            found = await conn.execute(sql.query("testing/failures"), {"desde": last, "grupos": groups})
            failures = tuple(FailedAttempt._make(row) for row in await found.fetchall())
            waiting = await _number(conn, WAITING, groups)
            if (check and failures) or not _deliveries(counts[-1]) or not (waiting or counts[-1]["pendientes"]):
                break
        drained = Drained(
            done=sum(count["procesados"] for count in counts),
            retried=sum(count["reintentos"] for count in counts),
            dead=sum(count["errores"] for count in counts),
            ignored=sum(count["ignorados"] for count in counts),
            waiting=waiting,
            failures=failures,
        )
    if left <= 0:
        raise DrainError(
            f"there is still work after {limit} deliveries: does a handler publish the event that it handles?"
            " If there is so much work, pass a higher limit=",
            drained,
        )
    if check and drained.failures:
        raise DrainError(_tell(drained.failures), drained) from (raised[0] if raised else None)
    return drained


def _watched(bus: Bus, raised: list[BaseException]) -> Bus:
    """Return the bus with its hook for errors also keeping them, for they know more than the table of failures."""
    watched = copy.copy(bus)

    def on_error(error: BaseException, evento: Evento[Any], attempt: Attempt) -> None:
        raised.append(error)
        if bus.on_error is not None:
            bus.on_error(error, evento, attempt)

    watched.on_error = on_error
    return watched


def _deliveries(count: Conteo) -> int:
    """Return how much was done; what was merely given back is not."""
    return count["procesados"] + count["reintentos"] + count["errores"] + count["ignorados"]


async def _number(conn: AsyncConnection[Any], statement: str, *values: object) -> int:
    row = await (await conn.execute(statement.encode(), values)).fetchone()
    return int(row[0]) if row else 0


def _tell(failures: tuple[FailedAttempt, ...]) -> str:
    lines = [
        f"  event {f.evento} ({f.origen}/{f.tipo}), subscriber {f.suscriptor} of group {f.grupo},"
        f" attempt {f.intento}: {f.error}"
        for f in failures
    ]
    count = "a delivery" if len(failures) == 1 else f"{len(failures)} deliveries"
    return f"{count} failed (check=False lets them be tried again):\n" + "\n".join(lines)
