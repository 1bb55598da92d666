"""``procesar_lote``: the work of a worker for a limited time, for deployments with a cron and no worker process."""

from __future__ import annotations

from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Final, TypedDict

from cauce import sql
from cauce.config import expect_application
from cauce.database.refusals import explaining
from cauce.engine.runner import Runner, Tally
from cauce.engine.upkeep import Upkeep
from cauce.engine.worker import process

if TYPE_CHECKING:
    from cauce.bus import Bus
    from cauce.config import Settings

PENDING_COUNT: Final = 10_000
"""The highest ``pendientes``."""


class Conteo(TypedDict):
    """The deliveries of one call by result; ``pendientes`` counts unclaimed events, to 10,000 at most."""

    procesados: int
    reintentos: int
    errores: int
    ignorados: int
    devueltos: int
    lotes: int
    pendientes: int


async def procesar_lote(bus: Bus, settings: Settings, *, limite: int = 500, segundos: float = 20.0) -> Conteo:
    """Process what is due in every group of the bus: expired leases, due retries, new events; Stripe's first.

    Args:
        bus: the application's bus.
        settings: the settings of a worker.
        limite: the largest number of events and retries to claim, in all groups together.
        segundos: seconds after which no further batch is claimed.

    Raises:
        SchemaError: the tables are missing or old.
        ForeignRestore: the database was restored into a younger cluster.
        WrongArgument: ``bus`` is not a ``Bus``, or ``settings`` is not a ``Settings``.
    """
    expect_application(bus, settings, "procesar_lote")
    with explaining():
        return await _process(bus, settings, limite, monotonic() + segundos)


async def _process(bus: Bus, settings: Settings, limite: int, ends: float) -> Conteo:
    tally, claimed = Tally(), 0
    async with process(bus, settings) as shared:
        async with aclosing(Upkeep(settings, shared.worker, bus.groups, bus.application)) as upkeep:
            await upkeep.once()
            for grupo in bus.groups:
                runner = Runner(shared, grupo)
                while claimed < limite and monotonic() < ends:
                    batch = await runner.claim(min(limite - claimed, runner.size))
                    if batch is None:
                        break
                    claimed += len(batch.rows)
                    await runner.run(batch, lambda: 0)
                tally += runner.tally
            await upkeep.leave()
        async with shared.connections.lend() as conn:
            asked = {"grupos": list(bus.groups), "tope": PENDING_COUNT}
            row = await (await conn.execute(sql.query("groups_lag"), asked)).fetchone()
    return Conteo(
        procesados=tally.done,
        reintentos=tally.retried,
        errores=tally.dead,
        ignorados=tally.ignored,
        devueltos=tally.given_back,
        lotes=tally.batches,
        pendientes=min(int(row[0]), PENDING_COUNT) if row else 0,
    )
