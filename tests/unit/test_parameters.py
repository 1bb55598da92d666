"""Every parameter of the public face is described, where an IDE shows it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

PUBLIC: Final = (
    "cauce", "cauce.embedded", "cauce.outgoing", "cauce.stripe", "cauce.testing", "cauce.web", "cauce.web.django",
    "cauce.web.fastapi", "cauce.web.flask", "cauce.web.wsgi", "cauce.webhooks", "pytest_cauce",
)  # fmt: skip
LEFT_TO_PYTHON: Final = {"self", "cls"}
"""What Python itself passes."""


def _public(module: str) -> Iterator[tuple[str, Any]]:
    """Yield what a module offers: the names in ``__all__``, or its own functions and classes that have public names."""
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", [name for name in vars(loaded) if not name.startswith("_")]):
        value = getattr(loaded, name)
        ours = getattr(value, "__module__", "").split(".")[0] in ("cauce", "pytest_cauce")
        own = hasattr(loaded, "__all__") or getattr(value, "__module__", "") == module
        if ours and own and (inspect.isclass(value) or inspect.isfunction(value)):
            yield f"{module}.{name}", value


def _functions(name: str, value: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield a function, or the public methods of a class."""
    if inspect.isfunction(value):
        yield name, value
    elif inspect.isclass(value):
        for method, found in vars(value).items():
            function = getattr(found, "__func__", found)
            if inspect.isfunction(function) and not method.startswith("_"):
                yield f"{name}.{method}", function


def _described(doc: str | None) -> set[str]:
    """Return the names that the section Args of a docstring describes (Google style)."""
    section = re.search(r"^Args:\n((?:(?: {4}.*)?\n)*)", f"{inspect.cleandoc(doc or '')}\n\n", re.MULTILINE)
    described = (
        re.findall(r"^ {4}\*{0,2}(\w+): (?!likewise|as for ``|the same)\S", section[1], re.MULTILINE) if section else []
    )
    return set(described)


def _fields_with_text(cls: type) -> tuple[set[str], set[str]]:
    """Return the fields that a class declares, and those of them with a text of their own behind them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    declared, described = set[str](), set[str]()
    for one, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            declared.add(one.target.id)
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                described.add(one.target.id)
    return declared, described


def _missing(name: str, value: Any) -> list[str]:
    """Return the parameters of a class or a function, and of its public methods, that nothing describes."""
    missing: list[str] = []
    for place, function in _functions(name, value):
        wanted = set(inspect.signature(function).parameters) - LEFT_TO_PYTHON
        missing += [f"{place}: {one}" for one in sorted(wanted - _described(function.__doc__))]
    if inspect.isclass(value) and not issubclass(value, BaseException):
        declared, described = _fields_with_text(value)
        init = vars(value).get("__init__")
        fields = set(inspect.signature(init).parameters) if inspect.isfunction(init) else set()
        wanted = {one for one in declared | fields if not one.startswith("_") and one != "model_config"}
        known = described | _described(value.__doc__) | _described(getattr(init, "__doc__", None))
        missing += [f"{name}: {one}" for one in sorted(wanted - LEFT_TO_PYTHON - known)]
    return missing


@pytest.mark.parametrize("module", PUBLIC)
def test_every_parameter_of_the_public_face_is_described(module: str) -> None:
    """In the section Args, or as a text behind the field: 'as for the other function' helps nobody in an IDE."""
    missing = [line for name, value in _public(module) for line in _missing(name, value)]
    assert not missing, "\n".join(missing)
