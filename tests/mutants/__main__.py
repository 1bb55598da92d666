"""Remove the guards of the code, one at a time, and see that a test notices: ``make mutants``.

The guards stand in the TOML files beside this one. Each is removed in a copy of the tree, where the tests that are
named with it run; they ran there before with every guard in its place. A guard that no test notices is either needless
or lacks a test, and the run fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutants.guards import TOP, Guard, guards

COPIED: Final = ("docs", "examples", "src", "tests", "CHANGELOG.md", "Makefile", "README.md", "pyproject.toml")
SECONDS: Final = 300
"""Seconds that the tests of one guard may take; a mutant in which they never end is noticed."""


def main() -> int:
    """Run it; return the exit code."""
    options = argparse.ArgumentParser(prog="make mutants", description="Remove guards, one at a time.")
    options.add_argument("-k", metavar="WORD", default="", help="only guards whose reason, file or tests hold this")
    options.add_argument("-j", metavar="N", type=int, default=1, help="so many at a time")
    chosen = options.parse_args()
    found = [guard for guard in guards() if chosen.k in f"{guard.why} {guard.file} {guard.tests}"]
    if not found:
        print(f"no guard holds {chosen.k!r}")
        return 1
    with tempfile.TemporaryDirectory(prefix="cauce-mutants-") as place:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(chosen.j):
            trees.put(copy_to(Path(place) / str(number)))
        return report(found, trees, chosen.j)


def report(found: Sequence[Guard], trees: SimpleQueue[Path], count: int) -> int:
    """Run the tests of all guards, then try each guard, and print a line for each."""
    began = time.monotonic()
    tree = trees.get()
    code, said = run_tests(tree, sorted({test for guard in found for test in guard.tests}))
    trees.put(tree)
    if code != 0:
        print(f"the tests fail with every guard in its place:\n{said}")
        return 1
    unnoticed = 0
    with ThreadPoolExecutor(count) as pool:
        for guard, problem in zip(found, pool.map(lambda guard: attempt(guard, trees), found), strict=True):
            unnoticed += problem is not None
            print(f"{problem or 'noticed':<10} {guard.file}: {guard.why}", flush=True)
    print(f"{len(found) - unnoticed} of {len(found)} noticed, in {time.monotonic() - began:.0f} s")
    return 1 if unnoticed else 0


def attempt(guard: Guard, trees: SimpleQueue[Path]) -> str | None:
    """Remove one guard in a tree of its own; return what is wrong if no test notices."""
    tree = trees.get()
    file = tree / guard.file
    text = file.read_text()
    try:
        file.write_text(guard.removed_from(text))
        code, said = run_tests(tree, guard.tests, SECONDS)
    finally:
        file.write_text(text)
        trees.put(tree)
    if code == 0:
        return "UNNOTICED"
    # a mutant that cannot even be loaded shows nothing about the test
    return None if code is None or re.search(r"^FAILED ", said, re.MULTILINE) else "BROKEN"


def run_tests(tree: Path, tests: Iterable[str], seconds: float | None = None) -> tuple[int | None, str]:
    """Run tests in a tree, to the first that fails; return the exit code, None if they did not end, and the output."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-n", "0", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def copy_to(tree: Path) -> Path:
    """Copy what the tests read."""
    tree.mkdir()
    for name in COPIED:
        source = TOP / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tree / name)
    return tree


if __name__ == "__main__":
    sys.exit(main())
