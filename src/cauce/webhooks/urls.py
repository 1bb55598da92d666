"""The URLs a provider may have signed instead of the one this process saw, for schemes that sign it.

Used to accept what Twilio itself writes in two ways (the default port), and to tell a wrong secret from a proxy that
rewrites the URL.
"""

from __future__ import annotations

from typing import Final

INBOX: Final = "/api/webhooks/"
"""The path of an inbox before the provider's name."""
_PORTS: Final = {"https": "443", "http": "80"}


def public_base(url: str) -> str:
    """Return the part of an address before ``INBOX``, for ``CAUCE_PUBLIC_URL``; empty if ``INBOX`` is not in it."""
    base, inbox, _ = url.partition("?")[0].partition(INBOX)
    return base if inbox else ""


def called_at(public_url: str, url: str) -> str:
    """Return the public address of a URL seen behind a proxy."""
    base = public_base(url)
    return public_url + url[len(base) :] if base else url


def shown_url(url: str) -> str:
    """Return a URL without its query, which may hold secrets, for logs and storage."""
    base, mark, _ = url.partition("?")
    return f"{base}?..." if mark else base


def with_and_without_port(url: str) -> tuple[str, ...]:
    """Return the URL, and the same with its scheme's default port added or its port taken away."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = _split(rest)
    name, colon, port = host.rpartition(":")
    if not mark or scheme not in _PORTS:
        return (url,)
    if colon and port.isdecimal():
        return (url, f"{scheme}://{name}{slash}{path}")
    return (url, f"{scheme}://{host}:{_PORTS[scheme]}{slash}{path}")


def rewritten(url: str) -> tuple[str, ...]:
    """Return what the URL may have been before a proxy: the other scheme, with or without the slash at its end."""
    base, mark, query = url.partition("?")
    turned = base[:-1] if base.endswith("/") else base + "/"
    slashed = turned + mark + query
    both = (url, slashed)
    return (slashed, *(other for one in both if (other := _other_scheme(one))))


def _other_scheme(url: str) -> str:
    """Return the URL with http for https, and https for http; empty if it has neither."""
    scheme, mark, rest = url.partition("://")
    other = {"http": "https", "https": "http"}.get(scheme)
    return f"{other}{mark}{rest}" if other and mark else ""


def _split(rest: str) -> tuple[str, str, str]:
    """Split the part after the scheme into host, the first ``/`` or ``?``, and the rest."""
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    return rest[:cut], rest[cut : cut + 1], rest[cut + 1 :]
