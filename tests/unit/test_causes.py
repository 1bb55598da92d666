"""Causes: the same failure is explained once, another one again."""

from __future__ import annotations

import json

import pytest

from cauce.engine.causes import MAX_CAUSES, Causes, in_one_line


def charge(number: int, shape: str = "payment {} of 'cus_{}' failed") -> None:
    """Fail, for a reason that names a number."""
    raise ValueError(shape.format(number, number))


def failure(number: int = 1, **more: str) -> BaseException:
    """Return what it raises."""
    with pytest.raises(ValueError, match=r"payment|money") as raised:
        charge(number, **more)
    return raised.value


def test_a_cause_is_explained_once() -> None:
    """Numbers and quoted text make no other cause of it; the error of each attempt is its own."""
    causes = Causes()
    first, told = causes.explain(failure(1))
    again, more = causes.explain(failure(20_000))
    assert first == again == told["huella"]
    assert "in charge" in told["traza"]
    assert (told["tipo"], told["mensaje"]) == ("builtins.ValueError", "payment ? of ? failed")
    assert more == {"error": "ValueError: payment 20000 of 'cus_20000' failed", "huella": first}


def test_other_types_words_and_places_are_other_causes() -> None:
    """Each is explained."""
    causes = Causes()
    errors = [failure(), failure(shape="no money"), KeyError("payment 1 of 'cus_1' failed")]
    try:
        json.loads("{")
    except ValueError as error:
        errors.append(error)
    assert len({causes.explain(error)[0] for error in errors}) == len(errors)
    assert all(len(causes.explain(error)[1]) == 2 for error in errors)


def test_what_the_database_does_not_know_is_explained_again() -> None:
    """Its first report was rolled back, or retention has removed the cause."""
    causes = Causes()
    huella, _ = causes.explain(failure())
    causes.forget([huella])
    assert "traza" in causes.explain(failure())[1]


def test_a_process_remembers_a_bounded_number_of_causes() -> None:
    """Beyond it, it explains what it meets once more."""
    causes = Causes()
    words = ["".join(chr(97 + n // 26**k % 26) for k in range(3)) for n in range(MAX_CAUSES + 1)]
    for word in words:
        causes.explain(ValueError(word))
    assert "traza" in causes.explain(ValueError(words[0]))[1]


def test_a_line_of_the_log_names_the_line_of_the_application() -> None:
    """The message stays in one line, whatever breaks lines in it; an error raised elsewhere names no line of ours."""
    line = charge.__code__.co_firstlineno + 2
    assert in_one_line(failure(shape="payment {}\n of\r\n\u2028{} failed")) == (
        f"ValueError: payment 1 of 1 failed ({__file__}:{line})"
    )
    assert in_one_line(ValueError("of nowhere")) == "ValueError: of nowhere"
