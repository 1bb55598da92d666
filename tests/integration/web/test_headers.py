"""Headers are looked at as far as a sender has a reason for them, and no further."""

from __future__ import annotations

import pytest

from cauce.webhooks.limits import MAX_HEADER_BYTES, MAX_HEADERS
from tests.integration.web.conftest import Inbox, Sign

LOTE = "/api/trabajadores/procesar_lote"
Pairs = list[tuple[bytes, bytes]]


def sent_with(pairs: Pairs, more: int) -> tuple[Pairs, Pairs]:
    """Fill a request's headers up to and over MAX_HEADERS, and up to and over MAX_HEADER_BYTES."""
    many = [*pairs, *[(b"x-filler", b"")] * (MAX_HEADERS - len(pairs) + more)]
    size = sum(len(name) + len(value) for name, value in pairs)
    return many, [*pairs, (b"x-filler", b"x" * (MAX_HEADER_BYTES - size - len(b"x-filler") + more))]


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
def test_the_caps_on_headers(inbox: Inbox, signed: Sign, *, more: int, status: int) -> None:
    """As many as the limits pass, one field or one byte more does not; of the latter nothing is read or kept."""
    delivery = signed()
    length = str(len(delivery.body)).encode()
    own = [(name.encode(), value.encode()) for name, value in delivery.headers.items()]
    # what the client in this process adds by itself, so that it adds nothing more
    own += [(b"host", b"test"), (b"accept", b"*/*"), (b"accept-encoding", b"x"), (b"connection", b"close")]
    own += [(b"user-agent", b"x"), (b"content-length", length)]
    for pairs in sent_with(own, more):
        answer = inbox.request("POST", "/api/webhooks/stripe", content=delivery.body, headers=pairs)
        assert answer.status_code == status
        if status == 431:
            assert answer.json() == {
                "error": "cabeceras_demasiado_grandes",
                "detalle": "a request may have 100 header fields of 32768 bytes together",
            }
            assert answer.headers["connection"] == "close"
    assert len(inbox.events()) == (1 if status == 200 else 0)


def test_the_caps_hold_for_the_cron_too(inbox: Inbox) -> None:
    """Whatever else is in the request."""
    for pairs in sent_with([(b"authorization", b"Bearer cron secret")], 1):
        assert inbox.request("POST", LOTE, headers=pairs).status_code == 431
