"""What is sent: envelope, id and signatures, read back by the official library and by our own verifier."""

from __future__ import annotations

import base64
import json
import re
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from standardwebhooks.webhooks import Webhook as Official

from cauce import Evento
from cauce.errors import ConfigError
from cauce.outgoing import new_secret
from cauce.outgoing.signing import envelope, message_id, read_secrets, signed, without_secrets
from cauce.webhooks import PROVIDERS, Secret, Verified

ONE, TWO = new_secret(), new_secret()


class Reserva(BaseModel):
    """A payload with an alias, a moment and a number that JSON cannot hold."""

    reserva_id: int = Field(alias="reservaId")
    cuando: datetime = datetime(2026, 1, 2, tzinfo=UTC)
    precio: float = float("nan")


def event(payload: Any = None, **more: Any) -> Evento[Any]:
    """An event as a handler receives it."""
    fields = {"id": 7, "origen": "reserva", "tipo": "reserva.creada", "intentos": 1, "prioridad": 5}
    return Evento(**{**fields, "payload": payload, "creado_en": datetime(2026, 11, 24, 10, tzinfo=UTC), **more})


def pair() -> tuple[str, str]:
    """A new key for v1a: ``whsk_`` and ``whpk_``."""
    key = Ed25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return "whsk_" + base64.b64encode(private).decode(), "whpk_" + base64.b64encode(public).decode()


def test_the_envelope_is_that_of_the_specification() -> None:
    """``type``, ``timestamp`` in UTC whatever the database's zone, ``data`` by the payload's own aliases."""
    madrid = datetime(2026, 11, 24, 11, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    body = json.loads(envelope(event(Reserva(reservaId=42), creado_en=madrid)))
    assert body == {
        "type": "reserva.creada",
        "timestamp": "2026-11-24T10:00:00.000005Z",
        "data": {"reservaId": 42, "cuando": "2026-01-02T00:00:00Z", "precio": None},
    }


@given(payload=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_the_envelope_is_the_same_at_every_attempt(payload: object) -> None:
    """The bytes depend on the event alone, not on the attempt."""
    assert envelope(event(payload)) == envelope(event(payload, intentos=2))


@given(keys=st.sets(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2))
def test_an_id_fits_its_header_and_no_other_delivery(keys: set[str]) -> None:
    """Letters that a header may hold, no dot, short; two deliveries of an event have two ids."""
    made = [message_id(event(), key) for key in keys]
    assert all(re.fullmatch(r"evt_7_[0-9a-f]{16}", id_text) for id_text in made)
    assert made[0] != made[1]


@pytest.mark.parametrize("known", [ONE, TWO], ids=["one", "two"])
def test_the_official_library_verifies_during_a_rotation(known: str) -> None:
    """With two secrets at once, a receiver that knows either of them accepts what it gets."""
    request = signed(envelope(event({"n": 1})), "evt_7_ab", read_secrets(f"{ONE},{TWO}"), time.time())
    assert len((request.headers.get("webhook-signature") or "").split(" ")) == 2
    assert Official(known).verify(request.body, dict(request.headers))["data"] == {"n": 1}
    assert request.headers.get("webhook-id") == "evt_7_ab"
    assert request.headers.get("content-type") == "application/json"


def test_v1_and_v1a_go_side_by_side() -> None:
    """A shared secret and a private key sign the same request, each in its own scheme."""
    private, public = pair()
    now = time.time()
    request = signed(b"{}", "evt_1", read_secrets(f"{ONE}, {private}"), now)
    schemes = [part.partition(",")[0] for part in (request.headers.get("webhook-signature") or "").split(" ")]
    assert schemes == ["v1", "v1a"]
    for secret in (ONE, public):
        assert isinstance(PROVIDERS["standard"].verify(request, [Secret(secret)], now), Verified)


def test_a_new_secret_is_of_the_advised_length() -> None:
    """``whsec_`` and 32 bytes, another one each time."""
    assert ONE != TWO
    assert len(base64.b64decode(ONE.removeprefix("whsec_"))) == 32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a secret"),
        (" , ", "needs a secret"),
        ("whsec_", "secret 1 of 1 cannot sign"),
        ("whsec_hunter2!", "secret 1 of 1 cannot sign"),
        (f"{ONE},whsec_aHVudGVyMg==", "secret 2 of 2 has 7 bytes"),
        (pair()[1], "public key"),
        ("whsk_aHVudGVyMg==", "secret 1 of 1 cannot sign"),
        (f"{ONE};until=tomorrow", "cannot be read: until of secret 1 of 1 is not a time"),
        (f"{ONE};until=2030-01-01T00:00:00Z", "omit since= and until="),
    ],
    ids=["nothing", "a comma", "no key", "no base64", "the second", "the other half", "short", "a word", "a moment"],
)
def test_a_secret_that_cannot_sign_is_refused_without_being_shown(text: str, words: str) -> None:
    """None, no base64, too short to be safe, the wrong half of a pair: said by position."""
    with pytest.raises(ConfigError, match=words) as caught:
        read_secrets(text)
    assert not any(part in str(caught.value) for part in ("hunter2", "aHVudGVyMg", ONE[6:]))


def test_secrets_are_blotted_out_of_a_receivers_words() -> None:
    """With and without its prefix, a secret that comes back in an answer goes no further."""
    said = without_secrets(f"SECRET={ONE} key={TWO[6:]}", read_secrets(f"{ONE},{TWO}"))
    assert said == "SECRET=(secret) key=(secret)"
