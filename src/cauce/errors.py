"""The errors of Cauce, in one tree.

CauceError
├── WrongArgument           an argument has the wrong type (a TypeError too)
├── ConfigError             a setting is missing or invalid
├── CatalogError            the application's catalogs, handlers and subscribers do not match, or another owns them
├── PublishError            an event was refused, and nothing was stored
│   ├── NotInTransaction    the connection is in autocommit, so the event would commit by itself
│   ├── UnknownEvent        no catalog declares the event
│   └── InvalidPayload      the payload is not of the event's type, or PostgreSQL cannot store it
├── UpcastError             an old payload cannot be brought to the type's version
├── NewerVersion            a stored payload has a version that this program does not know
├── SchemaError             the database's tables are missing, older or newer than this program
├── ForeignRestore          the database was restored into a younger cluster
├── LeaseLost               the lease of this worker's batch expired, and another worker took it over
├── TransactionEnded        a handler ended the transaction that it was given
└── NotFound                no such event, group or delivery
"""

from __future__ import annotations

from collections.abc import Sequence

LEASE_LOST = "CA001"
FOREIGN_RESTORE = "CA002"
NOT_HELD = "CA006"
OWNED_ELSEWHERE = "CA007"
ENDED = (
    "a handler ended the transaction that it was given: what it and the handlers before it wrote is already committed"
    " or rolled back, and may be written again. A handler returns to commit and raises to roll back; it must not run"
    " COMMIT, ROLLBACK or BEGIN"
)


class CauceError(Exception):
    """The root of the tree: ``except CauceError`` catches all of these errors."""


class WrongArgument(CauceError, TypeError):
    """An argument has the wrong type; the message says what it is, what it should be, and which guide explains it."""


class ConfigError(CauceError):
    """A setting is missing or invalid."""


class CatalogError(CauceError):
    """The application's catalogs, handlers and subscribers do not match, or another application owns some of them.

    ``faults`` lists every fault found.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} faults" if len(self.faults) > 1 else "a fault"
        super().__init__(f"the bus has {count}:\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class PublishError(CauceError):
    """An event was refused; nothing was stored."""


class NotInTransaction(PublishError):
    """The connection is in autocommit and in no transaction, so the event would commit by itself."""


class UnknownEvent(PublishError):
    """No catalog declares the event."""


class InvalidPayload(PublishError):
    """The payload is not of the event's type, or PostgreSQL cannot store it."""


class UpcastError(CauceError):
    """A stored payload of an older version cannot be brought to the type's: its upcaster failed, or is missing."""


class NewerVersion(CauceError):
    """A stored payload has a newer version than this program's type."""


class SchemaError(CauceError):
    """The database's tables are missing, older or newer than this program."""


class ForeignRestore(CauceError):
    """The database was restored into a younger cluster, where events can be neither published nor claimed."""


class LeaseLost(CauceError):
    """The lease of this worker's batch expired and another worker took it over; this transaction is rolled back."""


class TransactionEnded(CauceError):
    """A handler ended the transaction that it was given: its effects are committed, but its delivery is not done."""


class NotFound(CauceError):
    """There is no such event, group or delivery."""
