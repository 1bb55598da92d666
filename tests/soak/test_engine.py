"""The engine's random scenes, longer and with other dice each time: `make soak`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from cauce.database import schema
from tests.integration.engine.kit import Conn
from tests.integration.engine.rivals import Rivals
from tests.integration.engine.test_windows import STEPS, Scene

pytestmark = pytest.mark.soak


@pytest.fixture
def conn(dsn: str) -> Iterator[Conn]:
    """A connection to a fresh migrated database."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.migrate(conn)
        yield conn


def test_thousands_of_interleavings_miss_nothing(conn: Conn, dsn: str) -> None:
    """As in the suite, thirty times as many, each as long as hypothesis likes."""
    publishers = [psycopg.connect(dsn, autocommit=True) for _ in range(4)]
    number = count()

    @settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(STEPS)
    def play(steps: list[tuple[str, int, int | None]]) -> None:
        groups = [f"g{next(number)}", f"g{next(number)}"]
        for grupo in groups:
            conn.execute("select cauce.crear_grupo(%s)", (grupo,))
        Scene(conn, publishers, groups).play(steps)

    try:
        play()
    finally:
        for publisher in publishers:
            publisher.close()


@pytest.mark.parametrize("round_", range(3))
def test_rivals_for_a_long_time(conn: Conn, dsn: str, round_: int) -> None:
    """Eight publishers, two groups of three workers, thousands of transactions."""
    Rivals(conn, dsn, seed=100 * round_).play(rounds=1000)
