"""The address that a sender signed: as this process sees it, or as the settings say, and never as a header says."""

from __future__ import annotations

from typing import Any

import pytest

from cauce.web.webhooks import url_of
from cauce.webhooks import Headers

PUBLIC = "https://hooks.example.com/cauce"
HEADERS = Headers.of({"host": "10.0.0.7:8000", "x-forwarded-host": "evil.example", "x-forwarded-proto": "ftp"})


def scope_of(path: str, query: bytes = b"", **more: Any) -> dict[str, Any]:
    """A request's scope, as servers make it."""
    return {"scheme": "http", "path": path, "query_string": query, **more}


@pytest.mark.parametrize(
    ("scope", "seen", "public"),
    [
        (scope_of("/api/webhooks/square"), "/api/webhooks/square", "/api/webhooks/square"),
        (
            scope_of("/api/webhooks/square", b"a=%20b&c=(d)"),
            "/api/webhooks/square?a=%20b&c=(d)",
            "/api/webhooks/square?a=%20b&c=(d)",
        ),
        (
            scope_of("/pagos/api/webhooks/square", root_path="/pagos"),
            "/pagos/api/webhooks/square",
            "/api/webhooks/square",
        ),
        (
            scope_of("/a b/api/webhooks/x-y", raw_path=b"/a%20b/api/webhooks/x%2Dy", root_path="/a b"),
            "/a%20b/api/webhooks/x%2Dy",
            "/api/webhooks/x%2Dy",
        ),
        (scope_of("/a/b/c/api/webhooks/square"), "/a/b/c/api/webhooks/square", "/api/webhooks/square"),
        (
            scope_of("/api/webhooks/api/webhooks/square", root_path="/api/webhooks"),
            "/api/webhooks/api/webhooks/square",
            "/api/webhooks/square",
        ),
    ],
    ids=["plain", "query", "mounted", "escaped", "prefix", "mounted at its own path"],
)
def test_what_stands_before_the_inbox_is_the_settings(scope: dict[str, Any], seen: str, public: str) -> None:
    """Whatever the mount, the prefix and ``root_path`` are, the public address begins where it says."""
    assert url_of(scope, HEADERS) == f"http://10.0.0.7:8000{seen}"
    assert url_of(scope, HEADERS, PUBLIC) == PUBLIC + public


def test_without_a_host_the_address_has_none() -> None:
    """HTTP/1.0 clients send none, and one that came twice is none; the signature then fits nothing."""
    assert url_of(scope_of("/api/webhooks/square"), Headers()) == "http:///api/webhooks/square"
