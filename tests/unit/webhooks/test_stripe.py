"""Stripe: its rules. Its agreement with Stripe's own library is in ``test_official.py``."""

from __future__ import annotations

import pytest

from cauce.webhooks import PROVIDERS, Draft, Headers, Reason, Rejected, Secret, Verified, WebhookRequest
from cauce.webhooks.limits import MAX_SIGNATURES
from cauce.webhooks.providers.stripe import Stripe

NOW = 1_760_000_000.0
SECRET = Secret("whsec_5k1mcVs0Tt2xGkUqYbCz")
OTHER = Secret("whsec_an-older-one")
BODY = b'{"id":"evt_1","object":"event","type":"checkout.session.completed","data":{"object":{"amount":1000}}}'
PROVIDER = Stripe()


def signed(body: bytes = BODY, secret: Secret = SECRET, now: float = NOW) -> WebhookRequest:
    """Make a delivery as Stripe would."""
    return PROVIDER.sign(Draft(body), secret, now)


def with_header(value: str, body: bytes = BODY) -> WebhookRequest:
    """Make a delivery with a Stripe-Signature of our choice."""
    return WebhookRequest(body, Headers([(b"stripe-signature", value.encode("latin-1"))]))


def reason(request: WebhookRequest, *secrets: Secret, now: float = NOW) -> Reason | None:
    """Return why the request is refused, None if it is not."""
    verdict = PROVIDER.verify(request, secrets or (SECRET,), now)
    return verdict.reason if isinstance(verdict, Rejected) else None


def test_describes_a_signed_event() -> None:
    """Id and type come from the signed body, and the payload is the body itself."""
    request = signed()
    verdict = PROVIDER.verify(request, [SECRET], NOW + 2)
    assert isinstance(verdict, Verified)
    assert (verdict.secret, verdict.timestamp, verdict.skew) == (0, NOW, 2)
    (evento,) = PROVIDER.describe(request, verdict)
    assert (evento.origen, evento.tipo, evento.id_externo) == ("stripe", "checkout.session.completed", "evt_1")
    assert evento.payload == BODY.decode()
    assert (evento.cuerpo, evento.error, evento.sin_firmar) == (None, None, ())


def test_any_of_several_secrets_verifies_and_is_named_by_position() -> None:
    """During rotation either secret is good, and the verdict says which without its text."""
    verdict = PROVIDER.verify(signed(), [OTHER, SECRET], NOW)
    assert isinstance(verdict, Verified)
    assert verdict.secret == 1
    assert SECRET.text not in repr(verdict)


def test_any_of_several_signatures_verifies() -> None:
    """Stripe signs with every active secret while one is rolled; other schemes beside them are ignored."""
    good = signed().headers.get("stripe-signature") or ""
    timestamp, signature = good.split(",")
    assert reason(with_header(f"{timestamp},v1={'0' * 64},{signature},v0=abc")) is None


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_an_empty_secret_verifies_nothing(empty: str) -> None:
    """A request signed with the empty key is refused, alone or beside a good secret."""
    request = signed(secret=Secret(empty)) if empty.strip() else with_header("t=1,v1=0")
    assert reason(request, Secret(empty)) is Reason.EMPTY_SECRET
    assert reason(signed(), Secret(empty), SECRET) is None


@pytest.mark.parametrize(("skew", "expected"), [(300, None), (301, Reason.STALE), (-300, None), (-301, Reason.FUTURE)])
def test_tolerance_holds_to_both_sides(skew: float, expected: Reason | None) -> None:
    """300 seconds are allowed, one more is not, in the past and in the future."""
    assert reason(signed(), now=NOW + skew) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("v1=00", Reason.MALFORMED_HEADER),
        ("t=,v1=00", Reason.MALFORMED_HEADER),
        ("t=1_0,v1=00", Reason.MALFORMED_HEADER),
        ("t=+1,v1=00", Reason.MALFORMED_HEADER),
        ("t=-1,v1=00", Reason.MALFORMED_HEADER),
        ("t=1e9,v1=00", Reason.MALFORMED_HEADER),
        ("t=1,t=2,v1=00", Reason.MALFORMED_HEADER),
        (f"t={'9' * 13},v1=00", Reason.MALFORMED_HEADER),
        (",,,=", Reason.MALFORMED_HEADER),
        ("t=1", Reason.WRONG_SCHEME),
        ("t=1,v0=00,v2=00", Reason.WRONG_SCHEME),
        ("t=1" + ",v1=00" * MAX_SIGNATURES, Reason.BAD_SIGNATURE),
        ("t=1" + ",v1=00" * (MAX_SIGNATURES + 1), Reason.MALFORMED_HEADER),
    ],
)
def test_a_malformed_header_is_told_from_a_bad_signature(value: str, expected: Reason) -> None:
    """A timestamp is decimal digits, and one; signatures are counted before they are compared."""
    assert reason(with_header(value)) is expected


def test_a_tolerance_of_zero_is_refused() -> None:
    """Stripe's library takes 0 for no limit; here the limit cannot be switched off."""
    with pytest.raises(ValueError, match="positive number of seconds"):
        Stripe(tolerance=0)


def test_a_thin_event_is_described() -> None:
    """A v2 thin event has its id and type in the same places."""
    body = b'{"id":"evt_test_65","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered"}'
    request = signed(body)
    verdict = PROVIDER.verify(request, [SECRET], NOW)
    assert isinstance(verdict, Verified)
    (evento,) = PROVIDER.describe(request, verdict)
    assert evento.id_externo == "evt_test_65"


def test_connect_is_another_instance() -> None:
    """A Connect endpoint has its own name and secret; its events keep Stripe's id and carry the account."""
    connect = Stripe(origen="stripe_connect", secret_setting="STRIPE_CONNECT_WEBHOOK_SECRET")
    body = b'{"id":"evt_2","object":"event","type":"payout.paid","account":"acct_1"}'
    request = connect.sign(Draft(body), OTHER, NOW)
    verdict = connect.verify(request, [OTHER], NOW)
    assert isinstance(verdict, Verified)
    (evento,) = connect.describe(request, verdict)
    assert (evento.origen, evento.id_externo) == ("stripe_connect", "evt_2")
    assert isinstance(connect.verify(request, [SECRET], NOW), Rejected)


def test_the_registry_holds_stripe() -> None:
    """The default instance answers to its origin."""
    assert PROVIDERS["stripe"] == PROVIDER
