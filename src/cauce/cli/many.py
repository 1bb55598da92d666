"""Many events in one call: ids from the command line, and from standard input as `cauce events --json` prints them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from cyclopts import CycloptsError

if TYPE_CHECKING:
    from cauce.database.operations import Mended

NAMED: Final = 10
"""Most events that a message names one by one."""
HIGHEST: Final = 2**63 - 1
"""The highest possible id."""


def read_ids(given: Sequence[str]) -> list[int]:
    """Return the ids, each once, in order; "-" stands for those on standard input.

    Raises:
        CycloptsError: there is none, or one is not an id.
    """
    if not given:
        raise CycloptsError(msg='Say which events: their ids, or "-" for standard input (cauce events --dead --json).')
    ids: set[int] = set()
    for text in given:
        ids.update(_from_input(sys.stdin.read()) if text == "-" else [_id(text)])
    return sorted(ids)


def _from_input(text: str) -> Iterable[int]:
    """Read the JSON of `cauce events --json`, or ids between blanks."""
    if not text.lstrip().startswith(("{", "[")):
        return map(_id, text.split())
    try:
        page: Any = json.loads(text)
        found: list[Any] = page["eventos"] if text.lstrip().startswith("{") else page
        ids = [_id(cast("dict[str, Any]", one)["id"] if isinstance(one, dict) else one) for one in found]
        more = page.get("siguiente") if text.lstrip().startswith("{") else None
    except (KeyError, TypeError, ValueError):
        wanted = "an object with eventos, each with its id, as cauce events --json prints it"
        raise CycloptsError(msg=f"Standard input is JSON, but not {wanted}.") from None
    if more is not None:
        print(f"cauce: these are not all: go on with --before {more}", file=sys.stderr)
    return ids


def _id(text: object) -> int:
    number = int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else text
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= HIGHEST:
        raise CycloptsError(msg=f"{str(text)[:40]!r} is not the id of an event.")
    return number


def followed(chunks: Iterator[list[Mended]], total: int) -> list[Mended]:
    """Collect the chunks, and show the progress on a terminal."""
    done: list[Mended] = []
    for chunk in chunks:
        done += chunk
        if total > len(chunk) and sys.stderr.isatty():
            print(f"\r{len(done):,} of {total:,} events", end="\n" if len(done) == total else "", file=sys.stderr)
    return done


def listed(ids: Sequence[int]) -> str:
    """Return the first few ids, and how many others there are."""
    more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
    return ", ".join(map(str, ids[:NAMED])) + more
