"""What a handler may take as `tx`: each ORM's own class, without the libraries that are not installed."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import sqlmodel
import sqlmodel.ext.asyncio.session
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from cauce import Evento
from cauce.catalog import Binding
from tests.typing.right import CheckoutSession, ReservaCreada, ReservaEvents


class OwnSession(Session):
    """An application's own."""


class Transaction:
    """Django's DatabaseWrapper has these, among others; Django has no types of its own."""

    def savepoint_commit(self, sid: str) -> None:
        """Release a savepoint."""

    def validate_no_atomic_block(self) -> None:
        """Check."""


async def with_async_session(evento: Evento[ReservaCreada], tx: AsyncSession) -> None:
    """SQLAlchemy, async."""
    assert_type(evento.payload.reserva_id, int)
    await tx.flush()


def with_session(evento: Evento[ReservaCreada], tx: Session) -> None:
    """SQLAlchemy, sync."""
    assert_type(evento.payload.reserva_id, int)
    tx.flush()


async def with_async_sqlmodel(evento: Evento[ReservaCreada], tx: sqlmodel.ext.asyncio.session.AsyncSession) -> None:
    """SQLModel, async."""


def with_sqlmodel(evento: Evento[ReservaCreada], tx: sqlmodel.Session) -> None:
    """SQLModel, sync."""


def with_own(evento: Evento[ReservaCreada], tx: OwnSession) -> None:
    """A subclass."""


def with_django(evento: Evento[ReservaCreada], tx: Transaction) -> None:
    """Django."""


creada = ReservaEvents.reserva_creada
assert_type(creada.handled_by(with_async_session), Binding)
assert_type(creada.handled_by(with_session, timeout=3), Binding)
creada.handled_by(with_async_sqlmodel)
creada.handled_by(with_sqlmodel)
creada.handled_by(with_own)
creada.handled_by(with_django)


async def async_with_sync(evento: Evento[ReservaCreada], tx: Session) -> None:
    """A sync session would block the event loop."""


def sync_with_async(evento: Evento[ReservaCreada], tx: AsyncSession) -> None:
    """A sync handler cannot await its session."""


async def async_with_django(evento: Evento[ReservaCreada], tx: Transaction) -> None:
    """Django's transactions are sync."""


async def with_core(evento: Evento[ReservaCreada], tx: AsyncConnection) -> None:
    """SQLAlchemy's connection is inside its session."""


def with_sync_core(evento: Evento[ReservaCreada], tx: Connection) -> None:
    """The same, sync."""


def with_text(evento: Evento[ReservaCreada], tx: str) -> None:
    """No library's."""


async def of_another_event(evento: Evento[CheckoutSession], tx: AsyncSession) -> None:
    """Another payload."""


creada.handled_by(async_with_sync)  # type: ignore[type-var]
creada.handled_by(sync_with_async)  # type: ignore[type-var]
creada.handled_by(async_with_django)  # type: ignore[type-var]
creada.handled_by(with_core)  # type: ignore[type-var]
creada.handled_by(with_sync_core)  # type: ignore[type-var]
creada.handled_by(with_text)  # type: ignore[type-var]
creada.handled_by(of_another_event)  # type: ignore[arg-type]
