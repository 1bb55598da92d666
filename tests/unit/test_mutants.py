"""The list of guards keeps up with the code: ``make mutants`` removes them, this only finds them."""

from __future__ import annotations

import re

import pytest

from tests.mutants.guards import TOP, Guard, guards


@pytest.mark.parametrize("guard", guards(), ids=lambda guard: guard.why)
def test_every_guard_is_where_the_list_says(guard: Guard) -> None:
    """Once in its file, with a reason, and with tests that there are."""
    text = (TOP / guard.file).read_text()
    assert guard.removed_from(text) != text
    assert re.fullmatch(r"[A-Z`].*\.", guard.why)
    for test in guard.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (TOP / file).read_text(), test


def test_no_guard_is_listed_twice() -> None:
    """Two entries that remove the same piece."""
    pieces = [(guard.file, guard.find) for guard in guards()]
    assert len(set(pieces)) == len(pieces)


def test_a_guard_that_has_moved_is_an_error() -> None:
    """Rather than a mutant that changes nothing, or too much."""
    guard = Guard("Because.", "file", "find", "", ())
    for text in ("", "find find"):
        with pytest.raises(ValueError, match="correct its entry"):
            guard.removed_from(text)
    assert guard.removed_from("a find b") == "a  b"
