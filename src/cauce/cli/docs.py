"""``docs``: the documents of this version, which are in the wheel."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cauce.errors import NotFound

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

CHECKOUT: Final = Path(__file__).parents[3] / "docs"
"""The documents beside the sources; a wheel has them in the package."""


def docs(page: str | None = None, /) -> None:
    """Read a document of this version; without a name, list them.

    Args:
        page: The document's name, for example publishing, settings, cli.
    """
    pages = dict(_pages(_folder()))
    if page is None:
        print("cauce docs NAME prints one:\n")
        print("\n".join(f"  {name:<24} {_title(text)}" for name, text in sorted(pages.items())))
        return
    name = page.removesuffix(".md").removeprefix("docs/")
    found = [known for known in pages if known == name] or [known for known in pages if known.endswith(f"/{name}")]
    if not found:
        near = get_close_matches(name, [known.rpartition("/")[2] for known in pages], 1)
        hint = f", but {near[0]}" if near else ""
        raise NotFound(f"there is no document {page}{hint}; cauce docs lists all of them")
    print(pages[found[0]].read_text(encoding="utf-8"), end="")


def _folder() -> Traversable:
    packed = files("cauce") / "docs"
    return packed if packed.is_dir() else CHECKOUT


def _pages(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield the names and files of all Markdown below a folder."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _pages(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".md"):
            yield prefix + entry.name.removesuffix(".md"), entry


def _title(page: Traversable) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
