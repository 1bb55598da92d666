"""The scene of publishers that commit out of order and roll back, and workers that compete, in any length."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import psycopg

from cauce import Bus, Evento, Subscriber, publicar_evento
from cauce.database import schema
from tests.integration.engine.kit import Conn, quick, states, until_async, value, working
from tests.integration.engine.scenery import Cosa, PruebaEvents, bus, effects, make_effects

PUBLISHERS, WORKERS = 8, 3


class Rivals:
    """Eight publishers, two groups, three workers in each; handlers that count."""

    def __init__(self, conn: Conn, dsn: str, seed: int = 0) -> None:
        self.conn, self.dsn, self.seed = conn, dsn, seed
        self.committed: list[int] = []
        self.publishing = PUBLISHERS
        self.seen: dict[str, Counter[int]] = {"principal": Counter(), "aparte": Counter()}

    def play(self, rounds: int) -> None:
        """Publish so many transactions a publisher, while the workers work; then check."""
        make_effects(self.conn)
        schema.migrate(self.conn, self._bus())
        asyncio.run(working(self._bus(), quick(self.dsn, batch_size=50), lambda: self._scene(rounds), workers=WORKERS))
        everything = Counter(self.committed)
        assert self.seen["principal"] == everything
        assert self.seen["aparte"] == everything
        assert effects(self.conn) == sorted(self.committed)
        assert states(self.conn) == {"procesado": len(self.committed)}

    def _bus(self) -> Bus:
        async def counts(evento: Evento[Cosa]) -> None:
            self.seen["principal"][evento.id] += 1

        async def leaves_a_row(evento: Evento[Cosa], tx: psycopg.AsyncConnection[Any]) -> None:
            await tx.execute("insert into efectos values (%s, 'tx')", (evento.id,))

        async def counts_apart(evento: Evento[Cosa]) -> None:
            self.seen["aparte"][evento.id] += 1

        both = (PruebaEvents.una, PruebaEvents.otra)
        return bus(
            counts,
            other=counts,
            subscribers=[
                Subscriber("tx", *(tipo.handled_by(leaves_a_row) for tipo in both)),
                Subscriber("aparte", *(tipo.handled_by(counts_apart) for tipo in both), grupo="aparte"),
            ],
        )

    async def _scene(self, rounds: int) -> None:
        await asyncio.gather(*(self._publisher(n, rounds) for n in range(PUBLISHERS)))
        idle = (
            "select not exists (select from cauce.lotes) and"
            " (select sum(r.pendientes) from cauce.grupos g, cauce.retraso(g.grupo, 10) r) = 0"
        )
        await until_async(lambda: value(self.conn, idle), "the end of the work")

    async def _publisher(self, number: int, rounds: int) -> None:
        dice = random.Random(self.seed + number)  # noqa: S311 - a scene, not a secret
        async with await psycopg.AsyncConnection.connect(self.dsn) as mine:
            for n in range(rounds):
                published: list[int] = []
                for _ in range(dice.choice([1, 1, 2, 5])):
                    tipo = dice.choice([PruebaEvents.una, PruebaEvents.otra])
                    prioridad = dice.choice([None, 0, 9])
                    published.append(await publicar_evento(mine, tipo, Cosa(n=n), prioridad=prioridad))
                    if dice.random() < 0.3:
                        # chance itself is wanted: transactions that overlap, in any order
                        await asyncio.sleep(dice.random() * 0.02)  # a pace that varies, so that transactions overlap
                if number == 0 and n % 40 == 0:
                    await self._others_commit(200)
                if dice.random() < 0.2:
                    await mine.rollback()
                else:
                    await mine.commit()
                    self.committed += published
        self.publishing -= 1

    async def _others_commit(self, events: int) -> None:
        """Let so many events be committed by the others, or all that they have."""
        before = len(self.committed)
        await until_async(lambda: len(self.committed) >= before + events or self.publishing == 1, "others commit")
