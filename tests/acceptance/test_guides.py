"""The guides to the letter: their files, commands and SQL, in the order in which a reader meets them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

from cauce.testing import wait_for

TOP: Final = Path(__file__).parents[2]
GUIDES: Final = sorted((TOP / "docs/guides").glob("*.md"))
BLOCK: Final = re.compile(r"^<!-- (file|run|sql)(?:: (\S+))? -->\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPEN: Final = """
    select count(*) from cauce.eventos where estado in ('pendiente', 'en_proceso')
"""
SECONDS: Final = 60.0


def files(document: str) -> dict[str, str]:
    """The files of a document, by their names."""
    return {name: text for kind, name, text in BLOCK.findall((TOP / document).read_text()) if kind == "file"}


def test_the_first_steps_are_those_of_the_readme() -> None:
    """Both show the same shop, on which the other guides go on."""
    assert files("docs/guides/first-steps.md") == files("README.md")


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    """A shell in a folder with nothing but the shop of the first steps, and `cauce` and `python` on its path."""
    for name, text in files("docs/guides/first-steps.md").items():
        (tmp_path / name).write_text(text)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "DATABASE_URL": dsn, "PATH": path, "PYTHONPATH": str(tmp_path), "NO_COLOR": "1"}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_works_to_the_letter(guide: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Each file is written, each command succeeds, each statement runs; a worker works until nothing is left to do."""
    for kind, name, text in BLOCK.findall(guide.read_text()):
        if kind == "file":
            (tmp_path / name).write_text(text)
        elif kind == "sql":
            with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as conn:
                conn.execute(text.encode())
        else:
            for command in commands(text):
                run(command, environment, tmp_path)


def commands(text: str) -> Iterator[str]:
    """The commands of a block, without their comments; a line may go on after a backslash."""
    for line in text.replace("\\\n", " ").splitlines():
        if command := line.split("  #")[0].strip():
            yield command


def run(command: str, environment: dict[str, str], folder: Path) -> None:
    """Run a command to its end; a worker until all events are done, then it is stopped."""
    if not command.startswith("cauce worker"):
        done = subprocess.run(
            ["sh", "-c", command],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return
    with (
        psycopg.connect(environment["DATABASE_URL"], autocommit=True) as conn,
        subprocess.Popen(command.split(), env=environment, cwd=folder) as worker,
    ):
        wait_for(lambda: conn.execute(OPEN).fetchone() == (0,), f"{command} has done its work", seconds=SECONDS)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SECONDS) == 0
