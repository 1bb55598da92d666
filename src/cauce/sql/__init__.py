"""The SQL texts: migrations in order, and one file a query that is more than a call of one function.

They are bytes, which psycopg takes as they are; a text read from a file is no ``LiteralString`` to a type checker.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Migration(NamedTuple):
    """One step of the schema."""

    number: int
    name: str
    text: bytes


@cache
def query(name: str) -> bytes:
    """Return the text of ``queries/NAME.sql``."""
    return (files(__name__) / "queries" / f"{name}.sql").read_bytes()


@cache
def migrations() -> dict[int, Migration]:
    """Return every migration by its number, in order."""
    found: dict[int, Migration] = {}
    for file in sorted((files(__name__) / "migrations").iterdir(), key=lambda file: file.name):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found[int(number)] = Migration(int(number), name, file.read_bytes())
    return found
