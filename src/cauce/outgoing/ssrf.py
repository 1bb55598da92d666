"""Where a delivery may go: the URL is parsed once, its host resolved once, and every address checked.

Whoever registers an endpoint chooses its host name and what it resolves to. Unchecked, a delivery could go to a
database, to a cloud's metadata service or to the worker itself. The worker connects to an address that was checked
here, and never resolves the name again: a second answer may differ (DNS rebinding).

The networks are IANA's special-purpose registries (https://www.iana.org/assignments/iana-ipv4-special-registry and
-ipv6-) and RFC 6890. They are listed here because ``ipaddress`` differs between releases of Python; tests compare them.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from cauce.errors import CauceError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Network: TypeAlias = IPv4Network | IPv6Network
    Resolver: TypeAlias = Callable[[str], Iterable[str]]

Address: TypeAlias = IPv4Address | IPv6Address


class DeliveryFailed(CauceError):  # noqa: N818 - the fact is the name
    """A delivery was not accepted: the receiver refused it, was unreachable or too slow, or it must not be sent."""


class AddressRefused(DeliveryFailed):
    """The host has a forbidden address; nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which URLs and addresses deliveries may go to. The defaults are for endpoints that strangers register."""

    allow_http: bool = False
    """Allow ``http``: the payload is not encrypted, and the receiver is not authenticated."""
    allow_private: bool = False
    """Allow loopback, private and carrier-grade NAT addresses, for your own receivers; never metadata services."""
    ports: frozenset[int] | None = None
    """The allowed ports; None: any."""


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a URL. The connection uses these and does not parse the URL again."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """The URL without path and query, which may contain secrets of the receiver."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


def read_url(url: str, rules: Rules) -> Target:
    """Parse a URL and check what can be checked before its host is resolved.

    Raises:
        ConfigError: deliveries must not go there. The message does not quote the URL, which may contain secrets.
    """
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise ConfigError(
            "a webhook's URL must be ASCII without spaces: write the host in its xn-- form, percent-encode the path"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError("a webhook's URL has an invalid host or port") from None
    if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not rules.allow_http):
        raise ConfigError("a webhook's URL must begin with https:// (http:// needs allow_http)")
    if "@" in parts.netloc:
        raise ConfigError("a webhook's URL must not contain a user or password; receivers check the signature")
    if not host or "#" in url:
        raise ConfigError("a webhook's URL must have a host and no fragment (#)")
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    if port == 0 or (rules.ports is not None and port not in rules.ports):
        raise ConfigError(f"deliveries to port {port} of {host} are not allowed")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme == "https", host, port, path)
    _check_literal(target, rules)
    return target


def resolve(host: str) -> list[str]:
    """Ask the system for all addresses of a host; it also reads forms such as ``0x7f.1``, as browsers do.

    Raises:
        OSError: the host has no address, or no name server answers.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def checked_addresses(target: Target, rules: Rules, resolver: Resolver = resolve) -> Sequence[Address]:
    """Resolve a target's host once, and return its addresses if deliveries may go to all of them.

    One forbidden address is enough to refuse the host: honest hosts have none.

    Raises:
        AddressRefused: one of them is forbidden.
        DeliveryFailed: the host has no address.
    """
    try:
        addresses = [ip_address(text) for text in resolver(target.host)]
    except (OSError, UnicodeError) as error:
        raise DeliveryFailed(f"the host {target.host} cannot be resolved: {error}") from error
    if not addresses:
        raise DeliveryFailed(f"the host {target.host} has no address")
    for address in addresses:
        _check(target, address, rules)
    return addresses


def forbidden(address: Address, *, allow_private: bool = False) -> str | None:
    """Return why an address is forbidden; None: deliveries may go there."""
    if isinstance(address, IPv6Address) and address in _NAT64:
        # Hosts without IPv4 reach it through these: the last 32 bits are the IPv4 address (RFC 6052).
        inner = forbidden(IPv4Address(int(address) & 0xFFFF_FFFF))
        return f"{inner}, through NAT64" if inner else None
    for what, networks in _SPECIAL.items():
        if any(address in network for network in networks):
            return None if allow_private and what in _INTERNAL else what
    outside = isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST
    return "not a global unicast address" if outside else None


def _check_literal(target: Target, rules: Rules) -> None:
    """Refuse a URL whose host is a forbidden IP address, already when it is configured."""
    try:
        address = ip_address(target.host)
    except ValueError:
        return
    try:
        _check(target, address, rules)
    except AddressRefused as error:
        raise ConfigError(str(error)) from None


def _check(target: Target, address: Address, rules: Rules) -> None:
    what = forbidden(address, allow_private=rules.allow_private)
    if what is not None:
        where = target.host if target.host == str(address) else f"{target.host} ({address})"
        hint = "; for your own receivers, set allow_private" if what in _INTERNAL else ""
        raise AddressRefused(f"deliveries to {where} are refused: {what}{hint}")


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


_SPECIAL: Final = {  # in this order: the first that holds an address names it
    "a cloud's metadata": _networks(
        "169.254.169.254/32",  # AWS, Google, Azure, Oracle, DigitalOcean and others
        "100.100.100.200/32",  # Alibaba, inside the carrier-grade NAT
        "168.63.129.16/32",  # Azure's host to its machines, outside of every special network
        "192.0.0.192/32",  # Oracle, formerly
        "fd00:ec2::/32",  # AWS: metadata, time and names
        "fd20:ce::254/128",  # Google
        "fd00:42::42/128",  # Scaleway
    ),
    "loopback": _networks("127.0.0.0/8", "::1/128"),
    "private": _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    "carrier-grade NAT": _networks("100.64.0.0/10"),
    "unspecified": _networks("0.0.0.0/8", "::/128"),
    "link-local": _networks("169.254.0.0/16", "fe80::/10"),
    "site-local": _networks("fec0::/10"),
    "multicast": _networks("224.0.0.0/4", "ff00::/8"),
    "reserved": _networks("240.0.0.0/4", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15"),
    "for documentation": _networks("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    # Compatible, mapped, translated, local NAT64, 6to4, and Teredo with IETF's other protocols. The IPv4 address inside
    # would be reached on a way that was not checked, and no public host needs them.
    "IPv4 inside IPv6": _networks(
        "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "2002::/16", "2001::/23"
    ),
}
_INTERNAL: Final = frozenset({"loopback", "private", "carrier-grade NAT"})
"""What ``allow_private`` allows."""
_NAT64: Final = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
"""The IPv6 space that IANA allocates from; the rest is special or reserved."""
