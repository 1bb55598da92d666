"""The exit codes; docs/cli.md lists them."""

from typing import Final

DONE: Final = 0
"""Done."""
NOT_DONE: Final = 1
"""What was asked for could not be done."""
USAGE: Final = 2
"""The command line is wrong."""
INTERRUPTED: Final = 130
"""Ctrl-C in a command that was not serving."""
