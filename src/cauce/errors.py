"""Every error of Cauce, on one tree.

CauceError
├── WrongArgument           something was given that is no connection, no event, no handler (a TypeError too)
├── ConfigError             a setting is missing or makes no sense
├── CatalogError            the application's catalog, handlers and subscribers do not fit together, or not with others
├── PublishError            an event was refused, and nothing was stored
│   ├── NotInTransaction    the connection would commit the event apart from the business operation
│   ├── UnknownEvent        the event is in no catalog
│   └── InvalidPayload      the payload is not of the event's type
├── SchemaError             the database's tables are missing, older or newer than this program
├── ForeignRestore          the database was restored into a younger cluster
├── LeaseLost               somebody else has taken over what this worker was processing
├── TransactionEnded        a handler ended the transaction that it was lent
└── NotFound                no such event, group or delivery
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LEASE_LOST = "CA001"
FOREIGN_RESTORE = "CA002"
NOT_HELD = "CA006"
OWNED_ELSEWHERE = "CA007"
ENDED = (
    "a handler ended the transaction that it was lent: what it, and those before it, had written by then is committed"
    " or undone for good, and may be written again. A handler returns to commit and raises to roll back; it never says"
    " COMMIT, ROLLBACK or BEGIN"
)


class CauceError(Exception):
    """The root: ``except CauceError`` catches whatever this library raises on its own account."""


class WrongArgument(CauceError, TypeError):  # noqa: N818 - the fact is the name, as in psycopg's errors
    """An argument is something else than what is wanted; the message names both, and the guide to read on."""


class ConfigError(CauceError):
    """A setting is missing or makes no sense."""


class CatalogError(CauceError):
    """The application's catalog, handlers and subscribers do not fit together, or another application owns some.

    ``faults`` lists every fault found.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} faults" if len(self.faults) > 1 else "a fault"
        super().__init__(f"the bus has {count}:\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class PublishError(CauceError):
    """An event was refused; nothing was stored."""


class NotInTransaction(PublishError):  # noqa: N818 - the fact is the name, as in psycopg's errors
    """The connection is in autocommit and outside a transaction: the event would commit apart from its cause."""


class UnknownEvent(PublishError):  # noqa: N818 - likewise
    """The event is in no catalog."""


class InvalidPayload(PublishError):  # noqa: N818 - likewise
    """The payload is not of the event's type."""


class SchemaError(CauceError):
    """The database's tables are missing, older or newer than this program."""


class ForeignRestore(CauceError):  # noqa: N818 - likewise
    """The database was restored into a younger cluster: nothing is published or claimed there."""


class LeaseLost(CauceError):  # noqa: N818 - likewise
    """Somebody else has taken over what this worker was processing; every effect of its transaction is undone."""


class TransactionEnded(CauceError):  # noqa: N818 - likewise
    """A handler ended the transaction that it was lent: what it committed stays, and is not counted as done."""


class NotFound(CauceError):  # noqa: N818 - likewise
    """There is no such event, group or delivery."""
