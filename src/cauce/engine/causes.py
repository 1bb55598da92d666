"""Causes: what failures have in common, so that a traceback is formatted, sent and stored only once.

Two failures have the same cause if their errors have the same type, the same message apart from numbers, quoted text
and other words with digits, and the same innermost line of the application in their tracebacks.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cauce.engine.deadlines import STOPS

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from cauce.database.claims import Failure

MAX_ERROR: Final = 2_000
"""Characters of an error's message that are kept."""
MAX_TRACEBACK: Final = 20_000
"""Characters of a traceback that are kept: its end, where the error was raised."""
MAX_SHAPE: Final = 300
"""Characters at the beginning of a message that distinguish its cause."""
MAX_CAUSES: Final = 1_000
"""Causes that a process remembers. When there are more it forgets them all, and sends their tracebacks again."""

_VARIES: Final = re.compile(r"""'[^']*'|"[^"]*"|\b\w*\d[\w.:+-]*""")
_NOT_OURS: Final = (
    *(str(Path(sysconfig.get_path(name))) for name in ("stdlib", "platstdlib")),
    str(Path(__file__).parent),
    "<",
)
_INSTALLED: Final = re.compile(r"[/\\](site|dist)-packages[/\\]")


class Causes:
    """The causes whose tracebacks this process has sent to the database."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], int] = {}

    def explain(self, error: BaseException) -> tuple[int, Failure]:
        """Return the number of a failure's cause, and the failure; with the traceback if the database lacks it."""
        message = message_of(error)
        kind = type(error)
        shape = _VARIES.sub("?", message[:MAX_SHAPE])
        key = (kind, shape, *_place(error.__traceback__))
        huella = self._known.get(key)
        said = f"{kind.__name__}: {message}"[:MAX_ERROR]
        if huella is not None:
            return huella, {"error": said, "huella": huella}
        if len(self._known) >= MAX_CAUSES:
            self._known.clear()
        tipo = f"{kind.__module__}.{kind.__qualname__}"
        huella = self._known[key] = int.from_bytes(
            blake2b(repr((tipo, *key[1:])).encode(errors="backslashreplace"), digest_size=8).digest(), signed=True
        )
        traza = storable("".join(traceback.format_exception(error)))[-MAX_TRACEBACK:]
        return huella, {"error": said, "huella": huella, "tipo": tipo, "mensaje": shape, "traza": traza}

    def forget(self, huellas: Collection[int]) -> None:
        """Send the tracebacks of these causes again: the database lost them by a rollback or by retention."""
        self._known = {key: huella for key, huella in self._known.items() if huella not in huellas}


def storable(text: str) -> str:
    """Return text that PostgreSQL can store: without NUL and without lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def message_of(error: BaseException) -> str:
    """Return an error's message, even if its ``__str__`` raises."""
    try:
        return storable(str(error))
    except STOPS:
        raise
    except BaseException as worse:  # noqa: BLE001 - whatever an application's __str__ raises
        return f"(its message cannot be read: {type(worse).__name__})"


def one_line(text: str) -> str:
    """Return text without line breaks, for a line of the log."""
    return " ".join(text.split())


def in_one_line(error: BaseException) -> str:
    """Return an error in one line: its type, its message and, if it was raised there, the line of the application."""
    said = f"{type(error).__name__}: {message_of(error)}"[:MAX_ERROR]
    file, _, line = _place(error.__traceback__)
    return one_line(said) + (f" ({file}:{line})" if file and _is_application(file) else "")


def _place(step: TracebackType | None) -> tuple[str, str, int]:
    """Return file, function and line of the application's innermost frame; of the innermost frame if it has none."""
    own = last = None
    while step is not None:
        last = step
        if _is_application(step.tb_frame.f_code.co_filename):
            own = step
        step = step.tb_next
    found = own or last
    if found is None:
        return "", "", 0
    code = found.tb_frame.f_code
    return code.co_filename, code.co_qualname, found.tb_lineno


@lru_cache(maxsize=4_096)
def _is_application(file: str) -> bool:
    """Whether a file is the application's: not the interpreter's, not Cauce's, not an installed package's."""
    return not file.startswith(_NOT_OURS) and not _INSTALLED.search(file)
