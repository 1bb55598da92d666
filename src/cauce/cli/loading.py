"""Loads the bus, providers and settings of a command; each error is one line."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Final, TypeVar

from pydantic import ValidationError

from cauce.bus import Bus
from cauce.config import Settings, misspelt
from cauce.errors import CauceError, ConfigError
from cauce.webhooks import PROVIDERS, Provider

T = TypeVar("T")

_PUBLIC: Final = {"bus": "cauce.Bus", "provider": "cauce.webhooks.Provider"}
_OURS: Final = f"{Path(__file__).parents[1]}{os.sep}"
_INSTALLED: Final = tuple(
    f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def load_bus(place: str, app_dir: str = ".") -> Bus:
    """Import a module and return its bus.

    Args:
        place: ``module:name``, for example ``events:bus``.
        app_dir: where modules are looked for first.

    Raises:
        ConfigError: the module is missing or cannot be imported, or has no such bus.
        CatalogError: the bus has faults; all are listed.
    """
    return _load(place, app_dir, Bus, "bus")


def load_provider(name: str, app_dir: str = ".") -> Provider:
    """Return a provider of webhooks: a built-in one by its name, or the application's own from its module.

    Args:
        name: ``stripe``, or ``module:name``, for example ``shop.webhooks:ACME``.
        app_dir: where modules are looked for first.

    Raises:
        ValueError: no built-in provider has that name.
        ConfigError: the module is missing or cannot be imported, or has no such provider.
    """
    if ":" in name:
        return _load(name, app_dir, Provider, "provider")  # type: ignore[type-abstract]  # only asked about
    if name not in PROVIDERS:
        own = "one of the application's own is written module:name"
        raise ValueError(f"no provider is called {name}; there are {', '.join(PROVIDERS)}; {own}")
    return PROVIDERS[name]


def load_providers(names: Iterable[str] | None, app_dir: str = ".") -> list[Provider]:
    """Return providers of webhooks as ``load_provider`` does, for commands that serve them.

    Raises:
        ConfigError: one cannot be loaded.
    """
    try:
        return [load_provider(name, app_dir) for name in names or ()]
    except ValueError as error:
        raise ConfigError(f"--provider: {error}") from None


def load_settings(**given: object) -> Settings:
    """Read the settings from the environment; ``given`` (the command line's) wins, unless it is None.

    Raises:
        ConfigError: settings are invalid; all of them are named.
    """
    for name, near in misspelt(os.environ).items():
        hint = f"; did you mean {near}?" if near else "."
        print(f"cauce: {name} is not a setting{hint} All settings: cauce docs settings", file=sys.stderr)
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        faults = [
            f"{_setting(str(fault['loc'][0]))}: {fault['msg'].lower()}"
            + ("" if "secret" in str(fault["loc"][0]).lower() else f" (it is {str(fault['input'])!r})")
            for fault in error.errors()
        ]
        raise ConfigError("; ".join(faults)) from None


def _load(place: str, app_dir: str, kind: type[T], what: str) -> T:
    """Import a module and return its object of a kind."""
    module_name, colon, name = place.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        path = Path(module_name)
        aside = "" if path.parent == Path() else f" --app-dir {Path(app_dir) / path.parent}"
        raise ConfigError(f"{module_name} is a path, not a module: write {path.stem}:{name or what}{aside}")
    if not (module_name and colon and name):
        example = module_name.removesuffix(f".{what}") or "events"
        raise ConfigError(f"{place!r} names no {what}: write module:{what}, for example {example}:{what}")
    folder = str(Path(app_dir).resolve())
    if not Path(folder).is_dir():
        raise ConfigError(f"--app-dir: there is no folder {folder}")
    sys.path.insert(0, folder)
    module = _import(module_name, folder)
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, kind):
        return found
    there = [f"{module_name}:{key}" for key, value in vars(module).items() if isinstance(value, kind)]
    hint = f"it has {', '.join(there)}" if there else f"it has no {kind.__name__} at all"
    if found is None:
        raise ConfigError(f"the module {module_name} ({module.__file__}) has no {name!r}; {hint}")
    given = "class" if isinstance(found, type) else type(found).__name__
    raise ConfigError(f"{place} is a {given}, not a {_PUBLIC[what]}; {hint}")


def _import(name: str, folder: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except CauceError as error:
        error.add_note(f"This was raised while {name} was imported{_line_of(error)}.")
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"there is no module {error.name} in {folder} nor where Python looks; say where with --app-dir"
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> ConfigError:
    # a syntax error names its line itself
    where = "" if isinstance(error, SyntaxError) else _line_of(error)
    return ConfigError(f"the module {name} cannot be imported: {type(error).__name__}: {error}{where}")


def _line_of(error: BaseException) -> str:
    """Return, in parentheses, the innermost line of the application that an error came through.

    That is the innermost line outside installed packages; if the application is itself installed, the innermost outside
    this package and importlib.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    others = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    own = [frame for frame in others if not frame.filename.startswith(_INSTALLED)]
    for frame in (*own[-1:], *others[-1:]):
        return f" ({frame.filename}, line {frame.lineno})"
    return ""


def _setting(name: str) -> str:
    """Return the environment variable of a field."""
    return name if name.isupper() else f"CAUCE_{name.upper()}"
