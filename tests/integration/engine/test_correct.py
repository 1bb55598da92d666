"""Nothing missed, nothing twice, counted by the handlers: out-of-order commits and rollbacks against rival workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.engine.rivals import Rivals

if TYPE_CHECKING:
    from tests.integration.engine.kit import Conn


def test_eight_publishers_against_three_workers_in_each_of_two_groups(conn: Conn, database: str) -> None:
    """Every committed event reaches the handlers of both groups once; of what rolled back nobody ever hears."""
    Rivals(conn, database).play(rounds=60)
