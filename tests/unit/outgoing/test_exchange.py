"""What of an exchange needs no network."""

from __future__ import annotations

import socket

import pytest

from cauce.outgoing import DeliveryFailed, Timeouts
from cauce.outgoing.sending import Exchange, _Pinned
from cauce.outgoing.ssrf import Target


@pytest.mark.parametrize(
    ("secure", "port", "host"),
    [
        (True, 443, "socio.example"),
        (True, 80, "socio.example:80"),
        (True, 8443, "socio.example:8443"),
        (False, 80, "socio.example"),
        (False, 443, "socio.example:443"),
    ],
)
def test_the_host_header_leaves_the_default_port_out(*, secure: bool, port: int, host: str) -> None:
    """The port is named where it is not the scheme's own, as receivers that route by host expect."""
    connection = _Pinned(Target(secure=secure, host="socio.example", port=port, path="/"))
    sent: list[bytes] = []
    connection.send = sent.append  # type: ignore[assignment,method-assign]  # instead of a socket's
    connection.request("POST", "/")
    assert f"\r\nHost: {host}\r\n".encode() in b"".join(sent)


def test_a_connection_made_too_late_is_closed() -> None:
    """An exchange that was cut while it connected keeps no socket and sends nothing."""
    exchange = Exchange(Target(secure=False, host="socio.example", port=80, path="/"), None, Timeouts())
    exchange.cut()
    here, there = socket.socketpair()
    with there:
        with pytest.raises(DeliveryFailed, match="timed out before the connection"):
            exchange._secured(here)
        assert here.fileno() == -1
        assert there.recv(1) == b""
