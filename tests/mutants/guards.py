"""The list of guards: what of the code must not be missing, and which tests would notice."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Guard:
    """A piece of the code that guards something, and how it is removed."""

    why: str
    """What goes wrong without it, or what holds because of it, in one sentence."""
    file: str
    find: str
    """The piece, or enough of it; it stands in the file once."""
    replace: str
    """What stands there when the guard is gone."""
    tests: tuple[str, ...]
    """As pytest takes them; one of them at least fails then."""

    def removed_from(self, text: str) -> str:
        """Return the file's text without the guard.

        Raises:
            ValueError: it is not there, or not once: the code has moved on.
        """
        count = text.count(self.find)
        if count != 1:
            raise ValueError(
                f"{self.file} holds {self.find!r} {count} times, not once: correct its entry in tests/mutants"
            )
        return text.replace(self.find, self.replace)


@cache
def guards() -> tuple[Guard, ...]:
    """Read all of them."""
    found: list[Guard] = []
    for file in sorted(Path(__file__).parent.glob("*.toml")):
        for entry in tomllib.loads(file.read_text())["guard"]:
            tests = entry.pop("tests")
            found.append(Guard(**{"replace": "", **entry}, tests=tuple([tests] if isinstance(tests, str) else tests)))
    return tuple(found)
