"""Turns PostgreSQL's errors into Cauce's where those say more: a table from SQLSTATE to error."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import psycopg

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


class ErrorResponse(NamedTuple):
    """What PostgreSQL said when it refused a statement, whichever driver raised the error."""

    sqlstate: str
    message: str
    detail: str = ""
    hint: str = ""

    @classmethod
    def of(cls, sqlstate: str | None, said: Any) -> ErrorResponse:  # noqa: ANN401 - psycopg's Diagnostic, or psycopg2's, which has no type
        """Read the diagnostics of libpq, which psycopg and psycopg2 both call ``diag``."""
        return cls(sqlstate or "", said.message_primary or "", said.message_detail or "", said.message_hint or "")


def _lease_lost(said: ErrorResponse) -> CauceError:
    return LeaseLost(said.message)


def _foreign_restore(said: ErrorResponse) -> CauceError:
    return ForeignRestore(f"{said.message}. {said.hint}")


def _owned_elsewhere(said: ErrorResponse) -> CauceError:
    return CatalogError([f"{one}. {said.hint}" for one in said.detail.splitlines()])


def _pooler(_: ErrorResponse) -> CauceError:
    return ConfigError(POOLER)


def _missing_column(said: ErrorResponse) -> CauceError:
    return SchemaError(
        f"the tables of schema cauce are missing or old in this database ({said.message});"
        " run: cauce migrate module:bus"
    )


def _missing(said: ErrorResponse) -> CauceError | None:
    """Return the error if what is missing is Cauce's; None if it is the application's."""
    return _missing_column(said) if "cauce" in said.message else None


_TABLE: Final[Mapping[str, Callable[[ErrorResponse], CauceError | None]]] = {
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


_UNSTORABLE: Final = frozenset({"22P05", "22P02"})
"""Untranslatable character, invalid text representation: what PostgreSQL says of JSON that it cannot store."""
_TOO_LONG: Final = "22001"
_DATA: Final = "22"
"""The class of errors about data."""
_CHECK: Final = "23514"


def explained(error: psycopg.Error) -> CauceError | None:
    """Return Cauce's error for one of PostgreSQL's; None where PostgreSQL's says enough.

    The caller raises it ``from`` PostgreSQL's.
    """
    return _explained(ErrorResponse.of(error.sqlstate, error.diag))


def _explained(said: ErrorResponse) -> CauceError | None:
    explain = _TABLE.get(said.sqlstate)
    return None if explain is None else explain(said)


def unpublished(said: ErrorResponse, what: object) -> CauceError | None:
    """Return the error that says why an event was not published; None for a lost connection or a lock.

    ``what``: the beginning of the message, which names the event.
    """
    if (better := _explained(said)) is not None:
        return better
    if said.sqlstate in _UNSTORABLE:
        detail = said.detail and f" ({said.detail})"
        return InvalidPayload(f"{what}: PostgreSQL cannot store its payload: {said.message}{detail}")
    if said.sqlstate == _TOO_LONG and "varying(500)" in said.message:
        return PublishError(f"{what}: clave is too long: {MAX_TEXT} characters are allowed")
    if said.sqlstate.startswith(_DATA) or said.sqlstate == _CHECK:
        return PublishError(f"{what}: {said.message}")
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
