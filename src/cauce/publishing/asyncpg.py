"""asyncpg, which is async and begins a transaction only where it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - asyncpg has no types

from cauce.database.refusals import ErrorResponse
from cauce.publishing.statements import COLUMNS, as_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

    from cauce.publishing.links import R, Work


def publish_async(conn: Any, work: Work[R]) -> Coroutine[Any, Any, R]:  # noqa: ANN401 - asyncpg has no types
    """Work on a connection, or on a pool's proxy of one."""
    return work(Asyncpg(conn))


class Asyncpg:
    """A connection."""

    __slots__ = ("conn",)
    advice: ClassVar[str] = "Publish inside `async with conn.transaction():`"

    def __init__(self, conn: Any) -> None:  # noqa: ANN401 - asyncpg has no types
        self.conn = conn

    def begun(self) -> bool:
        """Tell whether a transaction is open."""
        return bool(self.conn.is_in_transaction())

    def copies(self) -> bool:
        """Always."""
        return True

    async def fetch(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - as Link says
        """Return the first column of the first row."""
        return await self.conn.fetchval(as_text(statement), *values)

    async def execute(self, command: str) -> None:
        """Run a command of transactions."""
        await self.conn.execute(command)

    async def copy(self, pieces: Iterable[str]) -> None:
        """Send the pieces by COPY."""
        await self.conn.copy_to_table(
            "eventos", schema_name="cauce", columns=COLUMNS, source=_encoded(pieces), format="text", encoding="utf-8"
        )

    @staticmethod
    def response(error: Exception) -> ErrorResponse | None:
        """Read an error of asyncpg's."""
        if not isinstance(error, asyncpg.PostgresError):
            return None
        said: Any = error  # its fields are set from what the server sends
        return ErrorResponse(said.sqlstate or "", said.message or "", said.detail or "", said.hint or "")


async def _encoded(pieces: Iterable[str]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece.encode()
