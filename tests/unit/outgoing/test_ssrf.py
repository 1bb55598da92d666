"""Where deliveries may go: URLs as they are read, and every kind of address."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.errors import ConfigError
from cauce.outgoing.ssrf import (
    Address,
    AddressRefused,
    DeliveryFailed,
    Rules,
    Target,
    checked_addresses,
    forbidden,
    read_url,
    resolve,
)

HTTP = Rules(allow_http=True)
TARGET = Target(secure=True, host="socio.example", port=443, path="/")

REFUSED = {
    "a cloud's metadata": [
        "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
    ],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],  # noqa: S104 - to be refused
    "link-local": ["169.254.1.1", "fe80::1", "febf::1", "fe80::1%lo"],
    "site-local": ["fec0::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.1", "192.88.99.1", "198.18.0.1", "198.19.255.255"],
    "for documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "IPv4 inside IPv6": [
        "::127.0.0.1",  # compatible
        "::8.8.8.8",
        "::ffff:127.0.0.1",  # mapped
        "::ffff:8.8.8.8",
        "::ffff:0:10.0.0.1",  # translated
        "64:ff9b:1::a00:1",  # local NAT64
        "2002:a00:1::1",  # 6to4 of 10.0.0.1
        "2002:808:808::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    ],
    "not a global unicast address": ["100::1", "4000::1", "5f00::1", "fe00::1"],
    "private, through NAT64": ["64:ff9b::10.0.0.1", "64:ff9b::192.168.0.1"],
    "loopback, through NAT64": ["64:ff9b::127.0.0.1"],
    "a cloud's metadata, through NAT64": ["64:ff9b::169.254.169.254"],
}  # fmt: skip
ADMITTED = ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "2606:4700::1111"]
ADMITTED += ["2001:4860:4860::8888", "2a00:1450::1", "64:ff9b::8.8.8.8", "192.0.1.1", "198.17.255.255", "223.255.255.1"]

v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)


@pytest.mark.parametrize(("what", "text"), [(what, text) for what, texts in REFUSED.items() for text in texts])
def test_a_special_address_is_refused_by_its_kind(what: str, text: str) -> None:
    """Each kind of special network is refused, and named."""
    assert forbidden(ip_address(text)) == what


@pytest.mark.parametrize("text", ADMITTED)
def test_the_neighbours_of_special_networks_are_admitted(text: str) -> None:
    """Nothing beyond the borders of a special network is refused with it."""
    assert forbidden(ip_address(text)) is None


@given(address=v4 | v6 | st.ip_addresses(network="2000::/3"))
def test_what_the_standard_library_holds_special_is_refused(address: Address) -> None:
    """Whatever is admitted, ``ipaddress`` calls global too, and no multicast."""
    if forbidden(address) is None and address not in ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


@given(address=st.ip_addresses(v=4) | st.ip_addresses(network="2000::/3"))
def test_what_is_refused_is_special_by_the_standard_library_or_the_list(address: Address) -> None:
    """No ordinary address is refused: there is a reason outside of our own table."""
    ours_alone = [
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
        "224.0.0.0/4",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
    ]
    listed = any(address in ip_network(text) for text in ours_alone)
    assert (forbidden(address) is None) == (address.is_global and not listed)


@given(inner=v4)
def test_nat64_is_judged_by_the_address_inside(inner: IPv4Address) -> None:
    """The well-known prefix of NAT64 leads to its last 32 bits, for better and worse."""
    outer = IPv6Address(int(IPv6Address("64:ff9b::")) | int(inner))
    assert (forbidden(outer) is None) == (forbidden(inner) is None)


@given(inner=v4, prefix=st.sampled_from(["::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b:1::"]))
def test_no_other_prefix_smuggles_ipv4(inner: IPv4Address, prefix: str) -> None:
    """Compatible, mapped, translated and locally translated addresses are refused whatever they hold."""
    assert forbidden(IPv6Address(int(IPv6Address(prefix)) | int(inner))) is not None


@given(inner=v4, rest=st.integers(0, 2**80 - 1))
def test_6to4_is_refused(inner: IPv4Address, rest: int) -> None:
    """A 6to4 address is refused whatever it holds."""
    assert forbidden(IPv6Address((0x2002 << 112) | (int(inner) << 80) | rest)) is not None


@given(rest=st.integers(0, 2**96 - 1))
def test_teredo_is_refused(rest: int) -> None:
    """A Teredo address is refused whatever it holds."""
    assert forbidden(IPv6Address((0x20010000 << 96) | rest)) is not None


@pytest.mark.parametrize("text", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "100.64.0.1", "::1", "fd00::1"])
def test_own_receivers_are_admitted_on_request(text: str) -> None:
    """``allow_private`` admits loopback, private networks and carrier-grade NAT."""
    assert forbidden(ip_address(text), allow_private=True) is None


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "169.254.0.1", "0.1.2.3", "224.0.0.1", "::ffff:127.0.0.1"],
)
def test_metadata_is_never_admitted(text: str) -> None:
    """``allow_private`` allows neither a cloud's metadata nor networks without receivers of your own."""
    assert forbidden(ip_address(text), allow_private=True) is not None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://socio.example/", "https://"),
        ("ftp://socio.example/", "https://"),
        ("socio.example/x", "https://"),
        ("", "https://"),
        ("https://", "host"),
        ("https:///x", "host"),
        ("https://user:pw@socio.example/", "must not contain a user"),
        ("https://@socio.example/", "must not contain a user"),
        ("https://socio.example/#x", "fragment"),
        ("https://socio.example:0/", "port 0"),
        ("https://socio.example:99999/", "invalid host or port"),
        ("https://socio.example:hunter2/", "invalid host or port"),
        ("https://[::1/", "invalid host or port"),
        ("https://socio.example/a b", "ASCII"),
        ("https://socio.example/\n", "ASCII"),
        ("https://socio.example\\@evil.example/", "ASCII"),
        ("https://ñandu.example/", "ASCII"),
        ("https://127.0.0.1/", "loopback"),
        ("https://[::1]:8443/", "loopback"),
        ("https://[::ffff:10.0.0.1]/", "IPv4 inside IPv6"),
        ("https://169.254.169.254/latest/meta-data", "metadata"),
    ],
)
def test_a_url_that_must_not_be_used_is_refused_at_once(url: str, words: str) -> None:
    """What is wrong with a URL by itself is said when it is configured, without quoting it."""
    with pytest.raises(ConfigError, match=words) as caught:
        read_url(url, Rules())
    assert "hunter2" not in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "target", "origin"),
    [
        (
            "https://Socio.Example",
            Target(secure=True, host="socio.example", port=443, path="/"),
            "https://socio.example:443",
        ),
        (
            "https://socio.example:8443/a/b?c=d",
            Target(secure=True, host="socio.example", port=8443, path="/a/b?c=d"),
            "https://socio.example:8443",
        ),
        (
            "https://socio.example?c",
            Target(secure=True, host="socio.example", port=443, path="/?c"),
            "https://socio.example:443",
        ),
        (
            "http://socio.example/",
            Target(secure=False, host="socio.example", port=80, path="/"),
            "http://socio.example:80",
        ),
        (
            "https://[2606:4700::1]/",
            Target(secure=True, host="2606:4700::1", port=443, path="/"),
            "https://[2606:4700::1]:443",
        ),
    ],
)
def test_a_url_is_taken_apart_once(url: str, target: Target, origin: str) -> None:
    """Scheme, host, port and path with query; the origin tells nothing of the path."""
    assert read_url(url, HTTP) == target
    assert target.origin == origin


def test_ports_can_be_limited() -> None:
    """With a list of ports, another one is refused, the scheme's own included."""
    rules = Rules(ports=frozenset({8443}))
    assert read_url("https://socio.example:8443/", rules).port == 8443
    with pytest.raises(ConfigError, match=r"port 443 of socio\.example"):
        read_url("https://socio.example/", rules)


@pytest.mark.parametrize("bad", ["10.0.0.1", "::1", "169.254.169.254"])
@pytest.mark.parametrize("first", [True, False])
def test_one_bad_address_refuses_all(bad: str, *, first: bool) -> None:
    """A host with a good address and a bad one is refused, in whatever order."""
    addresses = [bad, "8.8.8.8"] if first else ["8.8.8.8", bad]
    with pytest.raises(AddressRefused, match=re.escape(f"socio.example ({bad})")):
        checked_addresses(TARGET, Rules(), lambda _host: addresses)


def test_a_host_without_address_is_a_failure() -> None:
    """Nobody answers to the name, or with nothing: the delivery has failed, and may be tried again."""

    def nobody(_host: str) -> list[str]:
        raise OSError("Name or service not known")

    with pytest.raises(DeliveryFailed, match=r"socio\.example cannot be resolved: Name or"):
        checked_addresses(TARGET, Rules(), nobody)
    with pytest.raises(DeliveryFailed, match=r"socio\.example has no address"):
        checked_addresses(TARGET, Rules(), lambda _host: [])


@pytest.mark.parametrize("host", ["0x7f.1", "0177.0.0.1", "2130706433", "127.1", "0x7f000001", "017700000001"])
def test_other_spellings_of_an_address_are_checked_as_what_they_mean(host: str) -> None:
    """Octal, hexadecimal, short and whole-number spellings become the address before it is judged."""
    target = read_url(f"https://{host}/", Rules())
    with pytest.raises(AddressRefused, match=r"\(127\.0\.0\.1\) are refused: loopback"):
        checked_addresses(target, Rules())


def test_localhost_is_refused() -> None:
    """The name that every machine has for itself resolves to loopback, and is refused."""
    assert resolve("localhost")
    with pytest.raises(AddressRefused, match="loopback"):
        checked_addresses(read_url("https://localhost/", Rules()), Rules())
