"""Refuse requests whose end is ambiguous, on which a proxy and this server may disagree (request smuggling).

RFC 9112, sections 6.1 and 6.3. With both headers most servers use ``Transfer-Encoding``; a proxy may use the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Scope

RULE: Final = "a body has a Content-Length or, in HTTP/1.1, Transfer-Encoding: chunked; never both, and no other coding"


def is_ambiguous(scope: Scope) -> bool:
    """Return whether the header fields leave it ambiguous where the body ends."""
    headers = scope["headers"]
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if not codings:
        return False
    return (
        codings != [b"chunked"]
        or any(name == b"content-length" for name, _ in headers)
        or scope.get("http_version") == "1.0"
    )


def hang_up(scope: Scope) -> dict[str, str]:
    """Have the server close the connection, or it would read on; HTTP/2 has no such header field."""
    return {"connection": "close"} if scope.get("http_version", "1.1").startswith("1") else {}
