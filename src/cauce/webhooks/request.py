"""A webhook request as plain data: the only input of every verifier.

The HTTP layer, a test or a signer builds it; nothing changes it. Header values are decoded as latin-1, which cannot
fail and loses nothing; bodies stay bytes, because bytes are signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from cauce.webhooks.limits import MAX_FORM_FIELDS


class Headers:
    """Case-insensitive multi-map of HTTP headers.

    A repeated header is kept as several values: two programs could read joined values differently.

    Args:
        raw: (name, value) pairs, as in ASGI's ``scope["headers"]``.
    """

    __slots__ = ("_fields",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Take the list of pairs that ASGI gives in ``scope["headers"]``."""
        fields: dict[str, list[str]] = {}
        for name, value in raw:
            fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip(" \t"))
        self._fields = fields

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Headers:
        """Make headers from text, for signers and tests.

        Args:
            headers: the values by name.

        Raises:
            UnicodeEncodeError: a name or value is not latin-1, so no HTTP client could send it.
        """
        return cls((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value of a header, in the order of the request; empty if there is none.

        Args:
            name: the header's name, in any case.
        """
        return tuple(self._fields.get(name.lower(), ()))

    def get(self, name: str) -> str | None:
        """Return the only value of a header; None if there is none, or more than one.

        Args:
            name: the header's name, in any case.
        """
        values = self._fields.get(name.lower(), ())
        return values[0] if len(values) == 1 else None

    def raw(self) -> list[tuple[bytes, bytes]]:
        """Return the pairs as ASGI and HTTP clients take them, names in lower case."""
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (lower-case name, value) pairs."""
        return ((name, value) for name, values in self._fields.items() for value in values)

    def __eq__(self, other: object) -> bool:
        """Compare names without case, values exactly."""
        return isinstance(other, Headers) and self._fields == other._fields

    __hash__ = None  # type: ignore[assignment]  # holds a dict; nobody needs it as a key

    def __repr__(self) -> str:
        """Name the headers only: values may be bearer tokens."""
        return f"Headers({', '.join(self._fields)})"


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One request to an inbox."""

    body: bytes = field(repr=False)
    """The body, as it was received."""
    headers: Headers = field(default_factory=Headers)
    """The headers."""
    url: str = ""
    """The address that the provider called, with its query. Twilio and Square sign it, so behind a proxy it must be
    made from the configured public address, never from ``X-Forwarded-*``."""
    method: str = "POST"
    """The HTTP method."""

    def query(self) -> list[tuple[str, str]]:
        """Return the decoded parameters of the URL; empty if it has none, or more than ``MAX_FORM_FIELDS``."""
        text = self.url.partition("#")[0].partition("?")[2]
        try:
            return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
        except ValueError:
            return []

    def parameter(self, name: str) -> str | None:
        """Return the only value of a parameter of the URL; None if there is none, or more than one.

        Args:
            name: the parameter's name.
        """
        values = [value for key, value in self.query() if key == name]
        return values[0] if len(values) == 1 else None
