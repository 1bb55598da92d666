"""Where batches run: side by side, suspects one at a time, the one that decides alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

from cauce.database.claims import Batch, Row
from cauce.engine.runner import Room

LIMIT = 3


def batch(deaths: int) -> Batch:
    """Return a batch of one delivery whose worker died so often."""
    row = Row(1, 1, "*", 1, deaths, 1, "o", "t", None, None, 5, datetime.now(UTC), "{}", None, None, None, 1)
    return Batch(1, 1, [row])


def company(deaths: Iterable[int]) -> list[tuple[int, list[int]]]:
    """Run batches at once; return, for each in the order they began, its deaths and those of the batches beside it."""
    room = Room(LIMIT)
    inside: list[int] = []
    seen: list[tuple[int, list[int]]] = []

    async def run(number: int) -> None:
        async with room.enter(batch(number)):
            inside.append(number)
            for _ in range(3):
                await asyncio.sleep(0)  # the others come in, if they may
            seen.append((number, list(inside)))
            inside.remove(number)

    async def scene() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*map(run, deaths))

    asyncio.run(scene())
    return seen


def test_batches_run_side_by_side() -> None:
    """All three are there at once."""
    assert company([0, 0, 0])[0] == (0, [0, 0, 0])


def test_of_suspects_one_runs_at_a_time_beside_the_others() -> None:
    """The two with a death never meet; the others run."""
    seen = company([1, 0, 1, 0])
    assert sorted(number for number, _ in seen) == [0, 0, 1, 1]
    assert all(there.count(1) <= 1 for _, there in seen)
    assert (1, [1, 0, 0]) in seen


def test_the_run_that_decides_has_the_room_for_itself() -> None:
    """It waits for those inside, and nobody comes in meanwhile; afterwards all go on."""
    seen = company([0, 2, 0, 0, 2, 1])
    assert sorted(number for number, _ in seen) == [0, 0, 0, 1, 2, 2]
    assert [there for number, there in seen if number == 2] == [[2], [2]]
    assert all(there.count(2) == 0 for number, there in seen if number != 2)


def test_a_door_that_closes_again_at_once_keeps_out_whoever_was_about_to_come_in() -> None:
    """One that decides leaves and the next comes before the task that waited has had its turn."""

    async def scene() -> list[str]:
        room, seen = Room(LIMIT), list[str]()

        async def waits() -> None:
            async with room.enter(batch(0)):
                seen.append("beside")

        async with room.enter(batch(2)):
            waiting = asyncio.create_task(waits())
            await asyncio.sleep(0)  # it begins to wait
        async with room.enter(batch(2)):
            for _ in range(3):
                await asyncio.sleep(0)  # it comes in, if it may
            seen.append("alone")
        await waiting
        return seen

    assert asyncio.run(scene()) == ["alone", "beside"]


def test_with_a_limit_of_two_every_second_death_decides() -> None:
    """The limit is the number of deaths that end in error."""
    assert [Room(2).decides(batch(deaths)) for deaths in (0, 1, 2)] == [False, True, True]
    assert [Room(LIMIT).decides(batch(deaths)) for deaths in (0, 1, 2)] == [False, False, True]


async def test_a_cancelled_wait_leaves_the_room_open() -> None:
    """Whoever waited to be alone and was cancelled keeps nobody out."""
    room = Room(LIMIT)
    async with room.enter(batch(0)):
        waiting = asyncio.create_task(room.enter(batch(2)).__aenter__())
        await asyncio.sleep(0)  # it begins to wait
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(10), room.enter(batch(0)):
            pass
