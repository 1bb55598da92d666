"""Causes: what failures have in common, so that a traceback is formatted, sent and stored once and not every time.

Two failures have the same cause if their errors have the same type and the same message, apart from numbers, quoted
text and other words with digits, and were raised by way of the same line of the application.
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
"""Characters kept of an error's message."""
MAX_TRACEBACK: Final = 20_000
"""Characters kept of a traceback: its end, where the failure is."""
MAX_SHAPE: Final = 300
"""Characters of a message by which its cause is recognized."""
MAX_CAUSES: Final = 1_000
"""Causes that a process remembers. Beyond that it begins again, and explains those that it meets once more."""

_VARIES: Final = re.compile(r"""'[^']*'|"[^"]*"|\b\w*\d[\w.:+-]*""")
_NOT_OURS: Final = (
    *(str(Path(sysconfig.get_path(name))) for name in ("stdlib", "platstdlib")),
    str(Path(__file__).parent),
    "<",
)
_INSTALLED: Final = re.compile(r"[/\\](site|dist)-packages[/\\]")


class Causes:
    """What a process knows of the causes of its failures."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], int] = {}

    def explain(self, error: BaseException) -> tuple[int, Failure]:
        """Return a failure's cause and what there is to say: the traceback too, unless the database has been told."""
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
        """Explain these again: what was told of them was rolled back, or has been pruned since."""
        self._known = {key: huella for key, huella in self._known.items() if huella not in huellas}


def storable(text: str) -> str:
    """Return text that PostgreSQL can store."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def message_of(error: BaseException) -> str:
    """Return an error's message, even where the error cannot say it."""
    try:
        return storable(str(error))
    except STOPS:
        raise
    except BaseException as worse:  # noqa: BLE001 - whatever an application's __str__ raises
        return f"(its message cannot be read: {type(worse).__name__})"


def _place(step: TracebackType | None) -> tuple[str, str, int]:
    """Return file, function and line of the innermost frame of the application; without one, of the innermost."""
    ours = last = None
    while step is not None:
        last = step
        if _is_ours(step.tb_frame.f_code.co_filename):
            ours = step
        step = step.tb_next
    found = ours or last
    if found is None:
        return "", "", 0
    code = found.tb_frame.f_code
    return code.co_filename, code.co_qualname, found.tb_lineno


@lru_cache(maxsize=4_096)
def _is_ours(file: str) -> bool:
    """Whether that file is the application's: not the interpreter's, not Cauce's, not an installed package's."""
    return not file.startswith(_NOT_OURS) and not _INSTALLED.search(file)
