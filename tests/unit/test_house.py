"""The house keeps its own rules: dependencies with reasons, a lock without addresses, names of CI."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from cauce.database import refusals

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
LOCK = (TOP / "requirements" / "dev.txt").read_text()

APPLICATIONS = {"cli/demo.py", "testing/databases.py", "embedded/__init__.py"}
"""They connect as an application does; the last in its docstring."""
AS_IT_IS = {"CA003", "CA004", "CA005"}
"""An INSERT that names columns it must not, a group without its claim lock, a claim under another isolation."""


def name_of(requirement: str) -> str:
    """The project's name that a requirement starts with."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return found[0].lower()


def asked_for() -> list[str]:
    """All that pyproject.toml and dev.in ask for by name."""
    lines = (TOP / "requirements" / "dev.in").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    requirements += PROJECT["dependencies"]
    for extra in PROJECT["optional-dependencies"].values():
        requirements += extra
    return sorted({name_of(requirement) for requirement in requirements})


@pytest.mark.parametrize("name", asked_for())
def test_every_dependency_has_its_reason(name: str) -> None:
    """A dependency is in the lock, and docs/adr/0001-dependencies.md says what it is for."""
    assert f"\n{name}==" in f"\n{LOCK}"
    assert f"`{name}`" in (TOP / "docs" / "adr" / "0001-dependencies.md").read_text()


def test_the_lock_has_a_hash_for_everything_and_no_address() -> None:
    """Each line of the lock is a pinned name or a hash of it: no index, no file, no path."""
    entries = re.split(r"\n(?=[a-z])", LOCK.strip())
    shape = re.compile(r"[a-z0-9-]+==[A-Za-z0-9.]+( ; [^\n/\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")
    assert [entry for entry in entries if not shape.fullmatch(entry)] == []


def test_classifiers_name_what_ci_runs() -> None:
    """The lowest Python that the package admits is the one that it says it was tried with."""
    assert PROJECT["requires-python"] == ">= 3.11"
    assert [name for name in PROJECT["classifiers"] if "Python :: 3." in name] == [
        "Programming Language :: Python :: 3.11"
    ]


def test_ci_runs_the_targets_of_the_makefile() -> None:
    """CI runs what a developer runs, `make test` before the others, and can be executed."""
    script = TOP / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert script.read_text().endswith("\nmake test\nmake test-15\nmake check\nmake docs\n")


def test_make_without_a_target_lists_all_of_them() -> None:
    """The default target names and explains each of the others."""
    listed = subprocess.run(["make"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^\.PHONY: (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)[0].split()
    assert re.findall(r"make ([\w-]+) +\w", listed) == targets


def test_every_advisory_lock_is_in_the_one_list_of_them() -> None:
    """ADR 4 lists each number and the files that use it: two purposes that shared one would wait for each other."""
    used: dict[str, set[str]] = {}
    for file in (TOP / "src").rglob("*.*"):
        if file.suffix in (".py", ".sql"):
            for number in re.findall(r"\b11283551\d\d\b", file.read_text()):
                used.setdefault(number, set()).add(file.name)
    listed: dict[str, set[str]] = {}
    for row in (TOP / "docs" / "adr" / "0004-claim-lock.md").read_text().splitlines():
        if found := re.match(r"\| \(?(11283551\d\d)\b[^|]*", row):
            listed.setdefault(found[1], set()).update(re.findall(r"`([^`]+)`", found[0]))
    assert used == listed


def test_every_advisory_lock_is_written_as_a_number_of_that_list() -> None:
    """Where one is taken its first key stands there, or the constant that is it: so the list is all of them."""
    call = r"pg_(?:try_)?advisory_(?:xact_)?(?:lock|unlock)(?:_shared)?\(([^,)]*)"
    texts = [file.read_text() for file in (TOP / "src").rglob("*.*") if file.suffix in (".py", ".sql")]
    keys = [key.strip() for text in texts for key in re.findall(call, text)]
    assert keys
    assert [key for key in keys if not re.fullmatch(r"11283551\d\d|%s", key)] == []


def test_no_two_classes_have_one_name() -> None:
    """Whoever reads a name need not ask which module it is from."""
    found = Counter(
        node.name
        for path in (TOP / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in found.items() if count > 1} == set()


def test_connections_are_opened_in_one_place() -> None:
    """`database/connecting.py` has the options; what opens its own plays an application, which knows none."""
    calls = re.compile(r"(?:psycopg|Connection)\.connect\((?!\.\.\.)")
    opening = {
        str(file.relative_to(TOP / "src/cauce"))
        for file in (TOP / "src").rglob("*.py")
        if any(calls.search(line) for line in file.read_text().splitlines() if '"' not in line.partition("connect(")[0])
    }
    assert opening == APPLICATIONS | {"database/connecting.py"}


def test_sql_of_several_lines_is_a_file() -> None:
    """Python holds one line of SQL at most; publishing has one statement for each kind of driver, all in one place."""
    statement = re.compile(r"\s*(select|with|insert|update|delete|create|set)\s[^.]*\b(from|into|set|table|cauce)\b")
    found = [
        f"{path.name}:{node.lineno}"
        for path in (TOP / "src/cauce").rglob("*.py")
        if path.parts[-2:] != ("publishing", "statements.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.lineno != node.end_lineno
        if statement.match(node.value)
    ]
    assert found == []


def test_what_the_sql_raises_has_its_error_or_is_said_as_it_is() -> None:
    """Every SQLSTATE of ours that a migration raises is in the one table of errors, or is for whoever writes SQL."""
    migrations = "".join(file.read_text() for file in (TOP / "src/cauce/sql/migrations").iterdir())
    raised = set(re.findall(r"errcode = '(CA\d{3})'", migrations))
    explained = {code for code in raised if refusals.explained(type("E", (psycopg.Error,), {"sqlstate": code})())}
    assert raised - explained == AS_IT_IS
