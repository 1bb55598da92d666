"""Claiming: how a runner gets its next batch, alone or together with the settlement of the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cauce.database import claims

if TYPE_CHECKING:
    from cauce.database.claims import Batch, Claim
    from cauce.engine.connections import Connections
    from cauce.engine.heartbeat import Heartbeat


class Claiming:
    """Claims batches of one group, one after another, and registers their leases with the heartbeat.

    Args:
        usual: the claim, apart from its size.
        connections: the process's connections.
        heartbeat: extends the leases.
    """

    def __init__(self, usual: Claim, connections: Connections, heartbeat: Heartbeat) -> None:
        self._usual, self.connections, self._heartbeat = usual, connections, heartbeat
        self._losses = connections.losses
        """Losses when a batch was last settled. If there are more now, a claimed event may have crashed the server."""

    def of(self, size: int, *, rung: bool = False) -> Claim:
        """Return the claim of ``size`` events."""
        return self._usual._replace(size=size, careful=self._losses != self.connections.losses, rung=rung)

    def hold(self, batch: Batch | None) -> Batch | None:
        """Let the heartbeat extend the batch's lease."""
        if batch is not None:
            self._heartbeat.hold(batch)
        return batch

    async def claim(self, size: int, *, rung: bool = False, in_turn: bool = False) -> Batch | None:
        """Claim a batch; None: nothing is due. ``rung``: a publisher has rung. ``in_turn``: nobody waits for it."""
        async with self.connections.lend(in_turn=in_turn) as conn:
            return self.hold(await claims.claim(conn, self.of(size, rung=rung)))

    def settled(self) -> None:
        """Note that a batch was settled, so it did not crash the server."""
        self._losses = self.connections.losses
