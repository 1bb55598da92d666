"""The error tree: drawn once, one root, and every error says what it is."""

from __future__ import annotations

import inspect

import pytest

import cauce
from cauce import errors

TREE = {
    "CauceError": "Exception",
    "WrongArgument": "CauceError",
    "ConfigError": "CauceError",
    "CatalogError": "CauceError",
    "PublishError": "CauceError",
    "NotInTransaction": "PublishError",
    "UnknownEvent": "PublishError",
    "InvalidPayload": "PublishError",
    "UpcastError": "CauceError",
    "NewerVersion": "CauceError",
    "SchemaError": "CauceError",
    "ForeignRestore": "CauceError",
    "LeaseLost": "CauceError",
    "TransactionEnded": "CauceError",
    "NotFound": "CauceError",
}


def classes() -> dict[str, type[BaseException]]:
    """Return the module's error classes."""
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """Names, parents, and the drawing in the module's docstring agree."""
    assert {name: value.__base__.__name__ for name, value in classes().items() if value.__base__} == TREE
    for name in TREE:
        assert name in (errors.__doc__ or "")


@pytest.mark.parametrize("name", TREE)
def test_every_error_is_public_and_documented(name: str) -> None:
    """It can be caught by name, and its docstring says what happened."""
    assert name in cauce.__all__
    assert classes()[name].__doc__


def test_a_catalog_error_lists_every_fault() -> None:
    """The faults are there for programs, and in the message for people."""
    error = cauce.CatalogError(["one thing", "another"])
    assert error.faults == ("one thing", "another")
    assert str(error) == "the bus has 2 faults:\n  - one thing\n  - another"
    assert str(cauce.CatalogError(["alone"])) == "the bus has a fault:\n  - alone"


def test_sqlstates_are_distinct_and_in_a_class_of_their_own() -> None:
    """Classes that begin with C are nobody's in PostgreSQL but 'CA' is ours alone."""
    codes = [errors.LEASE_LOST, errors.FOREIGN_RESTORE, errors.NOT_HELD]
    assert len(set(codes)) == 3
    assert all(code.startswith("CA") and len(code) == 5 for code in codes)
