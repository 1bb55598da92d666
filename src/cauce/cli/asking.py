"""Asking before something is dismissed for good."""

from __future__ import annotations

import sys
from typing import Annotated, Final, TypeAlias

from cyclopts import Parameter

Yes: TypeAlias = Annotated[bool, Parameter(name=["--yes", "-y"])]
"""The option to do it without a question."""
NO_TERMINAL: Final = "dismissing is for good, and there is no terminal to ask on: say --yes"


def agreed(question: str) -> bool:
    """Ask on stderr, and say there if nothing is dismissed."""
    print(f"{question} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("cauce: nothing was dismissed", file=sys.stderr)
    return False
