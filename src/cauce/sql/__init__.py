"""The SQL texts: migrations in order, and one file a query; never assembled in Python."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString, cast


@cache
def query(name: str) -> LiteralString:
    """Return the text of ``queries/NAME.sql``; it ships with the package, so it is as literal as one in the source."""
    return cast("LiteralString", (files(__name__) / "queries" / f"{name}.sql").read_text())


@cache
def migrations() -> dict[int, tuple[str, LiteralString]]:
    """Return number -> (name, text) of every migration, in order."""
    found = {}
    for file in sorted((files(__name__) / "migrations").iterdir(), key=lambda file: file.name):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found[int(number)] = (name, cast("LiteralString", file.read_text()))
    return found
