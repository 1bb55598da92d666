"""Turns PostgreSQL's errors into Cauce's where those say more: a table from SQLSTATE to error."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from cauce.errors import (
    FOREIGN_RESTORE,
    LEASE_LOST,
    NOT_HELD,
    OWNED_ELSEWHERE,
    CatalogError,
    CauceError,
    ConfigError,
    ForeignRestore,
    InvalidPayload,
    LeaseLost,
    PublishError,
    SchemaError,
)

MAX_TEXT: Final = 500
"""The longest ``clave`` and ``id_externo``, in characters; the table ``eventos`` has the same limit."""

POOLER: Final = (
    "the database is behind a pooler in transaction mode (PgBouncer), where prepared statements do not work."
    " Set CAUCE_POOLER=true for every process of cauce, and publish on connections made with"
    " psycopg.connect(..., prepare_threshold=None). See: cauce docs deploying"
)


def _lease_lost(error: psycopg.Error) -> CauceError:
    return LeaseLost(_said(error))


def _foreign_restore(error: psycopg.Error) -> CauceError:
    return ForeignRestore(f"{_said(error)}. {error.diag.message_hint}")


def _owned_elsewhere(error: psycopg.Error) -> CauceError:
    owned = (error.diag.message_detail or "").splitlines()
    return CatalogError([f"{one}. {error.diag.message_hint}" for one in owned])


def _pooler(_: psycopg.Error) -> CauceError:
    return ConfigError(POOLER)


def _missing_column(error: psycopg.Error) -> CauceError:
    return SchemaError(
        f"the tables of schema cauce are missing or old in this database ({_said(error)});"
        " run: cauce migrate module:bus"
    )


def _missing(error: psycopg.Error) -> CauceError | None:
    """Return the error if what is missing is Cauce's; None if it is the application's."""
    return _missing_column(error) if "cauce" in _said(error) else None


_TABLE: Final[Mapping[str, Callable[[psycopg.Error], CauceError | None]]] = {
    LEASE_LOST: _lease_lost,
    NOT_HELD: _lease_lost,
    FOREIGN_RESTORE: _foreign_restore,
    OWNED_ELSEWHERE: _owned_elsewhere,
    "42P05": _pooler,  # duplicate prepared statement
    "26000": _pooler,  # invalid sql statement name
    "42703": _missing_column,  # undefined column
    "42P01": _missing,  # undefined table
    "42883": _missing,  # undefined function
    "3F000": _missing,  # invalid schema name
}


def explained(error: psycopg.Error) -> CauceError | None:
    """Return Cauce's error for one of PostgreSQL's; None where PostgreSQL's says enough.

    The caller raises it ``from`` PostgreSQL's.
    """
    explain = _TABLE.get(error.sqlstate or "")
    return None if explain is None else explain(error)


def unpublished(error: psycopg.Error, what: object) -> CauceError | None:
    """Return the error that says why an event was not published; None for a lost connection or a lock.

    ``what``: the beginning of the message, which names the event.
    """
    if (better := explained(error)) is not None:
        return better
    if isinstance(error, (errors.UntranslatableCharacter, errors.InvalidTextRepresentation)):
        return InvalidPayload(f"{what}: PostgreSQL cannot store its payload: {error}")
    if isinstance(error, errors.StringDataRightTruncation) and "varying(500)" in str(error):
        return PublishError(f"{what}: clave is too long: {MAX_TEXT} characters are allowed")
    if isinstance(error, (errors.DataError, errors.CheckViolation)):
        return PublishError(f"{what}: {_said(error) or error}")
    return None


@contextmanager
def explaining() -> Generator[None]:
    """Replace PostgreSQL's errors by what ``explained`` returns."""
    try:
        yield
    except psycopg.Error as error:
        if (better := explained(error)) is not None:
            raise better from error
        raise


def _said(error: psycopg.Error) -> str:
    return error.diag.message_primary or ""
