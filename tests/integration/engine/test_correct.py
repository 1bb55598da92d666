"""Nothing missed, nothing twice, counted by the handlers: out-of-order commits and rollbacks against rival workers."""

from __future__ import annotations

from tests.integration.engine.kit import Conn
from tests.integration.engine.rivals import Rivals


def test_eight_publishers_against_three_workers_in_each_of_two_groups(conn: Conn, database: str) -> None:
    """Every committed event reaches the handlers of both groups once; of what rolled back nobody ever hears."""
    Rivals(conn, database).play(rounds=60)
