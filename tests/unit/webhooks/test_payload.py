"""What of a body can be stored as jsonb, and every limit at its bound and one past it."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.webhooks.limits import MAX_BATCH, MAX_FORM_FIELDS, MAX_JSON_DEPTH, MAX_NUMBER_DIGITS
from cauce.webhooks.payload import (
    JsonValue,
    Problem,
    at,
    depth_exceeds,
    read_embedded,
    read_form,
    read_json,
    split_batch,
)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", Problem.NOT_JSON),
        (b"{", Problem.NOT_JSON),
        (b"[NaN]", Problem.NOT_JSON),
        (b"-Infinity", Problem.NOT_JSON),
        (b"\xef\xbb\xbf", Problem.NOT_JSON),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", Problem.NOT_JSON),
        (b'"\xff"', Problem.NOT_UTF8),
        (b'"\xed\xa0\x80"', Problem.NOT_UTF8),
        (b'{"a":"x\\u0000"}', Problem.NUL),
        (b'{"\\u0000":1}', Problem.NUL),
        (b'[{"a":"\\ud800"}]', Problem.LONE_SURROGATE),
        (b'"\\udc00\\ud800"', Problem.LONE_SURROGATE),
        (b"1e99999999999999999999", Problem.NUMBER_TOO_LARGE),
        (b"[-1.5E-99999]", Problem.NUMBER_TOO_LARGE),
    ],
)
def test_what_jsonb_refuses_is_named(body: bytes, problem: Problem) -> None:
    """There is no text to store, and the reason and the raw bytes are there."""
    payload = read_json(body)
    assert (payload.problem, payload.text, payload.raw) == (problem, None, body)
    assert payload.detail


@pytest.mark.parametrize(
    "body",
    [b"null", b'"\\\\u0000"', b'"\\ud83d\\ude00"', b'"\\\\ud800"', b"1e400", b"-0", b'{"a":1,"a":2}', b'"\x7f"'],
)
def test_what_only_looks_bad_is_stored_as_it_came(body: bytes) -> None:
    """Escaped backslashes, whole surrogate pairs and large numbers are good, byte for byte."""
    assert read_json(body).text == body.decode()


@pytest.mark.parametrize("text", [b'{"a": 1}', b'[{"a": 1e0}]', b'{"a": %s}' % (b"1" * 400)])
def test_a_byte_order_mark_is_passed_over(text: bytes) -> None:
    """What is stored is JSON, and what is kept is what came."""
    payload = read_json(b"\xef\xbb\xbf" + text)
    assert (payload.problem, payload.value) == (None, json.loads(text))
    assert (payload.text, payload.raw) == (text.decode(), b"\xef\xbb\xbf" + text)


def test_a_value_that_cannot_be_stored_can_still_be_read() -> None:
    """The id of an event with a NUL somewhere else is known."""
    payload = read_json(b'{"id":"evt_1","note":"\\u0000"}')
    assert at(payload.value, "id") == "evt_1"
    assert payload.text is None


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_limited(opening: bytes, closing: bytes) -> None:
    """MAX_JSON_DEPTH levels are read, one more is not."""
    at_limit = opening * MAX_JSON_DEPTH + b"1" + closing * MAX_JSON_DEPTH
    assert read_json(at_limit).problem is None
    assert read_json(opening + at_limit + closing).problem is Problem.TOO_DEEP


def test_depth_is_not_the_number_of_brackets() -> None:
    """Many objects side by side, and brackets inside strings, are not deep."""
    body = json.dumps([{"a": '[{"\\"[[['}] * (MAX_JSON_DEPTH * 2)).encode()
    assert read_json(body).problem is None


@given(
    st.recursive(
        st.none() | st.text(st.sampled_from('[]{}"\\a')),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.text(st.sampled_from('[{"\\')), inner, max_size=2)
        ),
        max_leaves=30,
    )
)
def test_depth_agrees_with_the_parsed_value(value: JsonValue) -> None:
    """Counting over the bytes gives the depth of what they mean."""

    def depth(item: JsonValue) -> int:
        if isinstance(item, dict):
            return 1 + max(map(depth, item.values()), default=0)
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    body = json.dumps(value).encode()
    assert not depth_exceeds(body, depth(value))
    if depth(value):
        assert depth_exceeds(body, depth(value) - 1)


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b'{"a":' * 200_000, b'["' + b"[" * 1_000_000, b'"\\' * 300_000])
def test_hostile_nesting_is_cheap_to_refuse(body: bytes) -> None:
    """A megabyte of openings, or of a string that is left open, is refused without recursion."""
    assert read_json(body).problem in (Problem.TOO_DEEP, Problem.NOT_JSON)


@pytest.mark.parametrize(
    ("digits", "problem"), [(MAX_NUMBER_DIGITS, None), (MAX_NUMBER_DIGITS + 1, "number_too_large")]
)
def test_digits_are_limited(digits: int, problem: str | None) -> None:
    """A number of MAX_NUMBER_DIGITS digits is read, whether written out or with an exponent; one more is not."""
    assert read_json(b"9" * digits).problem == problem
    assert read_json(f"[-1e{digits - 1}]".encode()).problem == problem
    assert read_json(f'{{"a":1e-{digits - 1}}}'.encode()).problem == problem


def test_a_form_becomes_an_object() -> None:
    """Fields are strings, a repeated field is a list, an empty one is kept."""
    assert read_form(b"a=1&b=&c=x&c=y+z%C3%B1").value == {"a": "1", "b": "", "c": ["x", "y zñ"]}


@pytest.mark.parametrize(("body", "problem"), [(b"a=%FF", "not_utf8"), (b"\xff", "not_utf8"), (b"a=%00", "nul")])
def test_a_form_that_cannot_be_stored_says_why(body: bytes, problem: str) -> None:
    """The rules for jsonb hold for forms too."""
    assert read_form(body).problem == problem


def test_fields_of_a_form_are_limited() -> None:
    """MAX_FORM_FIELDS fields are read, one more is not."""
    assert read_form(b"&".join([b"a=1"] * MAX_FORM_FIELDS)).problem is None
    assert read_form(b"&".join([b"a=1"] * (MAX_FORM_FIELDS + 1))).problem is Problem.NOT_A_FORM


def test_json_inside_a_form_is_read() -> None:
    """The field that holds JSON is the payload; without it, the form is."""
    assert read_embedded(urlencode({"payload": '{"a":1}'}).encode(), "payload").text == '{"a":1}'
    assert read_embedded(b"other=1", "payload").value == {"other": "1"}


def test_a_batch_is_limited() -> None:
    """MAX_BATCH events are taken apart; an empty or longer list is one event that says why it was not."""
    assert len(split_batch(b"[" + b",".join([b"1"] * MAX_BATCH) + b"]", MAX_BATCH)) == MAX_BATCH
    for body in (b"[]", b"[" + b",".join([b"1"] * (MAX_BATCH + 1)) + b"]"):
        (payload,) = split_batch(body, MAX_BATCH)
        assert (payload.problem, payload.raw) == (Problem.BATCH_TOO_LARGE, body)


def test_one_bad_item_does_not_spoil_a_batch() -> None:
    """The others are stored as usual, and the bad one keeps its own bytes."""
    good, bad = split_batch(b'[{"id":1},{"id":"\\u0000"}]', MAX_BATCH)
    assert good.text == '{"id":1}'
    assert (bad.problem, bad.raw) == (Problem.NUL, b'{"id":"\\u0000"}')
