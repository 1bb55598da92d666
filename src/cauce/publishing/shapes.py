"""The shapes by which type checkers know the connections and sessions of libraries that may not be installed.

The type of an absent library would be Any, and an overload with Any takes every call. So the overloads name shapes:
what tells a library's connections from its engines and pools, and sync ones from async ones.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from psycopg import AsyncConnection, Connection


class AlchemyShape(Protocol):
    """SQLAlchemy's ``Connection``, ``Session`` and ``scoped_session``; SQLModel's ``Session``."""

    def commit(self) -> None: ...  # noqa: D102 - the library's
    def begin_nested(self) -> Any: ...  # noqa: ANN401, D102 - the library's


class AsyncAlchemyShape(Protocol):
    """SQLAlchemy's ``AsyncConnection``, ``AsyncSession`` and ``async_scoped_session``; SQLModel's ``AsyncSession``."""

    async def commit(self) -> None: ...  # noqa: D102 - the library's
    def begin_nested(self) -> Any: ...  # noqa: ANN401, D102 - the library's


class Psycopg2Shape(Protocol):
    """psycopg2's ``connection``."""

    def commit(self) -> None: ...  # noqa: D102 - the library's
    def get_transaction_status(self) -> int: ...  # noqa: D102 - the library's


class DjangoShape(Protocol):
    """Django's ``connection``."""

    in_atomic_block: bool

    def get_autocommit(self) -> bool: ...  # noqa: D102 - the library's


class AsyncpgShape(Protocol):
    """asyncpg's ``Connection``, and its pool's proxy."""

    def is_in_transaction(self) -> bool: ...  # noqa: D102 - the library's
    def get_server_pid(self) -> Any: ...  # noqa: ANN401, D102 - the library's


SyncConnection: TypeAlias = Connection[Any] | AlchemyShape | Psycopg2Shape | DjangoShape
"""On these publishing returns."""
AnyAsyncConnection: TypeAlias = AsyncConnection[Any] | AsyncAlchemyShape | AsyncpgShape
"""On these publishing is awaited."""
