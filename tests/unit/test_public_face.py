"""The public face: what `import cauce` offers, pinned."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import cauce

FACE = [
    "Attempt", "Bus", "Catalog", "CatalogError", "CauceError", "ConfigError", "Discard", "Estado", "EventHandlers",
    "EventType", "Evento", "ForeignRestore", "InvalidPayload", "LeaseLost", "NewerVersion", "NotFound",
    "NotInTransaction", "NuevoEvento", "PublishError", "RetryAfter", "RetryPolicy", "SchemaError", "Settings",
    "Subscriber", "TransactionEnded", "UnknownEvent", "UpcastError", "WrongArgument", "publicar_evento",
    "publicar_eventos",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    """A name more or less is a decision, not an accident."""
    assert cauce.__all__ == FACE
    assert sorted(FACE) == FACE


@pytest.mark.parametrize("name", FACE)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    """With a docstring of its own, and so are its public methods."""
    value = getattr(cauce, name)
    assert value.__doc__
    if inspect.isclass(value):
        for method, function in vars(value).items():
            if inspect.isfunction(function) and not method.startswith("_") and function.__module__.startswith("cauce"):
                assert function.__doc__, f"{name}.{method}"


def test_importing_the_package_starts_nothing_heavy() -> None:
    """No web framework, no server, no command line: business code only publishes."""
    program = "import sys, cauce; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    unwanted = {"starlette", "uvicorn", "cyclopts", "rich", "cauce.engine.worker", "cauce.embedded", "pytest"}
    assert not unwanted & set(loaded)
