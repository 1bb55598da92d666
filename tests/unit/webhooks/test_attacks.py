"""What strangers send: one table of providers, one test for each attack.

``EXAMPLES=20000 pytest tests/unit/webhooks`` generates more cases than the default.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, note, settings
from hypothesis import strategies as st

from cauce.webhooks import PROVIDERS, Draft, Headers, Provider, Reason, Rejected, Secret, Verified, WebhookRequest
from cauce.webhooks.limits import MAX_SIGNATURE_HEADER
from cauce.webhooks.provider import TIPO_DESCONOCIDO
from cauce.webhooks.providers.paypal import PayPal
from cauce.webhooks.signing import HmacProvider

NOW = 1_760_000_000.0
CASES_PER_TEST = settings(max_examples=int(os.environ.get("EXAMPLES", "300")), deadline=None)
CASES_FOR_ALL = settings(max_examples=int(os.environ.get("EXAMPLES", "1000")), deadline=None)
"""Of tests that try every provider with each case, for to make one costs more than all of them take to refuse it."""
RAW = serialization.Encoding.Raw


@dataclass(frozen=True)
class Case:
    """How to make a delivery of one provider, and how to spoil it."""

    body: str
    sign: str = "a-secret-of-the-provider"
    verify: str = ""
    """The other half of ``sign``, for signatures with two keys."""
    other: str = "some-other-secret"
    headers: tuple[str, ...] = ()
    """The headers that verification needs."""
    schemes: tuple[tuple[str, str], ...] = ()
    """Headers that hold a signature of another scheme."""
    tipo: str = ""
    expected_tipo: str = ""
    provider: Provider | None = None

    @property
    def draft(self) -> Draft:
        """What to sign."""
        return Draft(self.body.encode(), tipo=self.tipo)

    @property
    def secret(self) -> Secret:
        """What to verify with."""
        return Secret(self.verify or self.sign)


def base64_of(raw: bytes) -> str:
    """Write bytes as keys are written."""
    return base64.b64encode(raw).decode()


def public_of(key: Ed25519PrivateKey) -> bytes:
    """Return the raw public half."""
    return key.public_key().public_bytes(RAW, serialization.PublicFormat.Raw)


def spki_of(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half as SendGrid shows it."""
    raw = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64_of(raw)


def certificate_of(key: rsa.RSAPrivateKey) -> bytes:
    """Issue a certificate that is valid around NOW."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "messageverificationcerts.paypal.com")])
    moment = datetime.fromtimestamp(NOW, UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(moment - timedelta(days=30))
    signed = builder.not_valid_after(moment + timedelta(days=30)).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


ED, ED_OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
EC, EC_OTHER = (ec.derive_private_key(number, ec.SECP256R1()) for number in (12345, 54321))
EC_PKCS8 = EC.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_PEM = RSA.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
CERTIFICATE = certificate_of(RSA)

WHSEC, WHSEC_OTHER = "whsec_" + base64_of(b"k" * 24), "whsec_" + base64_of(b"o" * 24)
HEX, HEX_OTHER = "0a" * 32, "0b" * 32
STANDARD_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
ADYEN = {
    "live": "false",
    "notificationItems": [
        {
            "NotificationRequestItem": {
                "pspReference": f"PSP{number}",
                "merchantAccountCode": "Acme",
                "merchantReference": "order:1",
                "amount": {"currency": "EUR", "value": 1130},
                "eventCode": "AUTHORISATION",
                "success": "true",
                "reason": "unsigned",
            }
        }
        for number in (1, 2)
    ],
}
REDSYS = {"Ds_MerchantCode": "1", "Ds_Terminal": "1", "Ds_Order": "1234", "Ds_TransactionType": "0", "Ds_Response": "0"}


def standard(body: str = '{"type":"user.created","data":{}}', tipo: str = "user.created") -> Case:
    """Any provider of the Standard Webhooks family."""
    return Case(
        body,
        WHSEC,
        other=WHSEC_OTHER,
        headers=STANDARD_HEADERS,
        schemes=(("webhook-signature", "v1a,AAAA"), ("webhook-signature", "v2,AAAA"), ("webhook-signature", "nothing")),
        expected_tipo=tipo,
    )


CASES: dict[str, Case] = {
    "adyen": Case(json.dumps(ADYEN), HEX, other=HEX_OTHER, expected_tipo="AUTHORISATION"),
    "adyen_platform": Case(
        '{"type":"merchant.created","data":{}}',
        HEX,
        other=HEX_OTHER,
        headers=("HmacSignature",),
        expected_tipo="merchant.created",
    ),
    "anthropic": standard('{"type":"event","id":"e","data":{"type":"session.created"}}', "session.created"),
    "clerk": standard(),
    "discord": Case(
        '{"version":1,"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}',
        "01" * 32,
        public_of(ED).hex(),
        public_of(ED_OTHER).hex(),
        headers=("X-Signature-Ed25519", "X-Signature-Timestamp"),
        expected_tipo="APPLICATION_AUTHORIZED",
    ),
    "github": Case(
        '{"action":"opened","issue":{"number":1}}',
        headers=("X-Hub-Signature-256",),
        schemes=(("X-Hub-Signature-256", "sha1=757107ea0eb2509fc211221cce984b8a37570b6d"),),
        tipo="issues",
        expected_tipo="issues.opened",
    ),
    "gitlab": standard('{"object_kind":"push"}', "push"),
    "gitlab_token": Case('{"object_kind":"push"}', headers=("X-Gitlab-Token",), expected_tipo="push"),
    "intercom": Case(
        '{"type":"notification_event","id":"notif_1","topic":"conversation.user.created"}',
        headers=("X-Hub-Signature",),
        schemes=(("X-Hub-Signature", "sha256=00"),),
        expected_tipo="conversation.user.created",
    ),
    "lemonsqueezy": Case(
        '{"meta":{"event_name":"order_created","webhook_id":"1"}}',
        headers=("X-Signature",),
        expected_tipo="order_created",
    ),
    "linear": Case(
        f'{{"action":"create","type":"Issue","webhookTimestamp":{NOW:.0f}000}}',
        headers=("Linear-Signature",),
        expected_tipo="Issue.create",
    ),
    "mailgun": Case('{"event-data":{"event":"delivered","id":"m1"}}', expected_tipo="delivered"),
    "mercadopago": Case(
        '{"id":1,"type":"payment","action":"payment.updated","data":{"id":"AB12"}}',
        headers=("x-signature",),
        schemes=(("x-signature", "ts=1,v2=00"),),
        expected_tipo="payment.updated",
    ),
    "openai": standard('{"object":"event","id":"e","type":"response.completed"}', "response.completed"),
    "paddle": Case(
        '{"event_id":"evt_1","event_type":"transaction.completed"}',
        headers=("Paddle-Signature",),
        schemes=(("Paddle-Signature", "ts=1;h2=00"),),
        expected_tipo="transaction.completed",
    ),
    "paypal": Case(
        '{"id":"WH-1","event_type":"PAYMENT.SALE.COMPLETED"}',
        f"4JH86294D6297924G|{RSA_PEM}",
        "4JH86294D6297924G",
        "another-webhook-id",
        headers=(
            "PAYPAL-TRANSMISSION-ID",
            "PAYPAL-TRANSMISSION-TIME",
            "PAYPAL-TRANSMISSION-SIG",
            "PAYPAL-CERT-URL",
            "PAYPAL-AUTH-ALGO",
        ),
        schemes=(("PAYPAL-AUTH-ALGO", "SHA1withRSA"),),
        expected_tipo="PAYMENT.SALE.COMPLETED",
        provider=PayPal(certificates=lambda _: CERTIFICATE),
    ),
    "redsys": Case(
        json.dumps(REDSYS),
        base64_of(b"123456789012345678901234"),
        other=base64_of(b"432109876543210987654321"),
        expected_tipo="operacion.0",
    ),
    "resend": standard('{"type":"email.sent","data":{}}', "email.sent"),
    "sendgrid": Case(
        '[{"event":"bounce","sg_event_id":"a"},{"event":"bounce","sg_event_id":"b"}]',
        base64_of(EC_PKCS8),
        spki_of(EC),
        spki_of(EC_OTHER),
        headers=("X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"),
        expected_tipo="bounce",
    ),
    "shopify": Case(
        '{"id":1,"total_price":"10.00"}',
        headers=("X-Shopify-Hmac-SHA256",),
        tipo="orders/create",
        expected_tipo="orders/create",
    ),
    "slack": Case(
        '{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention"}}',
        headers=("X-Slack-Signature", "X-Slack-Request-Timestamp"),
        schemes=(("X-Slack-Signature", "v1=00"),),
        expected_tipo="app_mention",
    ),
    "square": Case(
        '{"event_id":"e1","type":"payment.created"}',
        headers=("x-square-hmacsha256-signature",),
        expected_tipo="payment.created",
    ),
    "standard": standard(),
    "stripe": Case(
        '{"id":"evt_1","object":"event","type":"invoice.paid"}',
        headers=("Stripe-Signature",),
        schemes=(("Stripe-Signature", "t=1,v0=00"),),
        expected_tipo="invoice.paid",
    ),
    "supabase": standard(),
    "svix": standard(),
    "twilio": Case(
        "MessageSid=SM1&MessageStatus=delivered&To=%2B34600000000",
        headers=("X-Twilio-Signature",),
        expected_tipo="message.delivered",
    ),
    "zendesk": Case(
        '{"id":"z1","type":"zen:event-type:user.created"}',
        headers=("X-Zendesk-Webhook-Signature", "X-Zendesk-Webhook-Signature-Timestamp"),
        expected_tipo="zen:event-type:user.created",
    ),
}
every_provider = pytest.mark.parametrize("name", CASES)


def provider_of(name: str) -> Provider:
    """Return the provider under test."""
    return CASES[name].provider or PROVIDERS[name]


@cache
def delivery(name: str, now: float = NOW) -> WebhookRequest:
    """Make a good delivery."""
    return provider_of(name).sign(CASES[name].draft, Secret(CASES[name].sign), now)


def reason(name: str, request: WebhookRequest, *secrets: Secret, now: float = NOW) -> Reason | None:
    """Return why a request is refused; None if it is not."""
    verdict = provider_of(name).verify(request, secrets or (CASES[name].secret,), now)
    return verdict.reason if isinstance(verdict, Rejected) else None


def with_headers(request: WebhookRequest, *pairs: tuple[str, str], without: str = "") -> WebhookRequest:
    """Replace, add or take away headers."""
    names = {name.lower() for name, _ in pairs} | {without.lower()}
    raw = [(name, value) for name, value in request.headers.raw() if name.decode() not in names]
    raw += [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    return replace(request, headers=Headers(raw))


def test_the_table_holds_every_provider() -> None:
    """No provider is registered without being attacked here."""
    assert set(CASES) == set(PROVIDERS)


@every_provider
def test_what_is_signed_verifies(name: str) -> None:
    """A delivery made by the signer is accepted and described."""
    provider, request = provider_of(name), delivery(name)
    verdict = provider.verify(request, [CASES[name].secret], NOW)
    assert isinstance(verdict, Verified), verdict
    assert verdict.secret == 0
    events = provider.describe(request, verdict)
    assert events
    assert {evento.tipo for evento in events} == {CASES[name].expected_tipo}
    assert len({evento.id_externo for evento in events}) == len(events)
    assert all(evento.payload and evento.error is None and evento.origen == name for evento in events)


@every_provider
def test_no_secret_is_stored_or_shown(name: str) -> None:
    """Neither the verdict, nor what is stored, nor the request's repr holds the text of a secret."""
    provider, request = provider_of(name), delivery(name)
    verdict = provider.verify(request, [CASES[name].secret], NOW)
    assert isinstance(verdict, Verified)
    shown = f"{verdict} {verdict.as_json()} {provider.describe(request, verdict)} {request!r} {CASES[name].secret!r}"
    assert CASES[name].secret.text not in shown


@every_provider
def test_another_secret_is_refused(name: str) -> None:
    """A signature of somebody else is bad, and the position of the right secret is told when it is there too."""
    request, other = delivery(name), Secret(CASES[name].other)
    assert reason(name, request, other) is Reason.BAD_SIGNATURE
    verdict = provider_of(name).verify(request, [other, Secret(""), CASES[name].secret], NOW)
    assert isinstance(verdict, Verified)
    assert verdict.secret == 2


@every_provider
@pytest.mark.parametrize("secrets", [(), ("",), (" \t", "\n")])
def test_without_a_secret_all_is_refused(name: str, secrets: tuple[str, ...]) -> None:
    """No secret, or empty ones, fail closed, and the fault is said to be ours."""
    verdict = provider_of(name).verify(delivery(name), [Secret(text) for text in secrets], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.EMPTY_SECRET
    assert verdict.reason.is_ours
    assert provider_of(name).secret_setting in str(verdict)


@every_provider
def test_an_empty_secret_signs_nothing(name: str) -> None:
    """The signer refuses the empty key as well."""
    with pytest.raises(ValueError, match="empty"):
        provider_of(name).sign(CASES[name].draft, Secret(" "), NOW)


@every_provider
def test_a_flipped_byte_is_refused_or_changes_nothing_that_is_signed(name: str) -> None:
    """Whatever byte of the body is changed: refused, or the same ids, and the same types where types are signed."""
    provider, request = provider_of(name), delivery(name)
    verdict = provider.verify(request, [CASES[name].secret], NOW)
    assert isinstance(verdict, Verified)
    before = provider.describe(request, verdict)
    accepted = 0
    for position in range(len(request.body)):
        body = bytearray(request.body)
        body[position] ^= 1
        spoiled = replace(request, body=bytes(body))
        verdict = provider.verify(spoiled, [CASES[name].secret], NOW)
        if isinstance(verdict, Rejected):
            assert verdict.reason in (Reason.BAD_SIGNATURE, Reason.MALFORMED_BODY, Reason.WRONG_SCHEME, Reason.STALE)
            continue
        accepted += 1
        for evento, was in zip(provider.describe(spoiled, verdict), before, strict=True):
            assert evento.id_externo == was.id_externo or "id_externo" in evento.sin_firmar
            assert evento.tipo in (was.tipo, TIPO_DESCONOCIDO) or "tipo" in evento.sin_firmar
    if provider.signed.raw_body and name != "redsys":  # the last bits of base64 say nothing
        assert accepted == 0


@every_provider
def test_a_stale_or_future_timestamp_is_refused(name: str) -> None:
    """At the tolerance a delivery is good, one second past it is not, to both sides."""
    provider = provider_of(name)
    if not provider.signed.timestamp:
        assert reason(name, delivery(name), now=NOW + 10 * provider.tolerance) is None
        return
    request = delivery(name)
    assert reason(name, request, now=NOW + provider.tolerance) is None
    assert reason(name, request, now=NOW + provider.tolerance + 1) is Reason.STALE
    assert reason(name, request, now=NOW - provider.tolerance) is None
    assert reason(name, request, now=NOW - provider.tolerance - 1) is Reason.FUTURE


header_of_every_provider = pytest.mark.parametrize(
    ("name", "header"), [(name, header) for name, case in CASES.items() for header in case.headers]
)


@header_of_every_provider
def test_a_missing_header_is_refused(name: str, header: str) -> None:
    """A header that is not there, or empty, is named."""
    for request in (with_headers(delivery(name), without=header), with_headers(delivery(name), (header, ""))):
        verdict = provider_of(name).verify(request, [CASES[name].secret], NOW)
        assert isinstance(verdict, Rejected)
        assert verdict.reason is Reason.MISSING_HEADER
        # Without any of their headers, the family of names is not known.
        assert header in verdict.detail


@header_of_every_provider
def test_a_doubled_header_is_refused(name: str, header: str) -> None:
    """A header that came twice is ambiguous, even with the same value."""
    value = delivery(name).headers.get(header) or ""
    assert reason(name, with_headers(delivery(name), (header, value), (header, value))) is Reason.REPEATED_HEADER


@header_of_every_provider
def test_an_enormous_header_is_refused(name: str, header: str) -> None:
    """One character past the limit is too long; at the limit it is looked at."""
    limit = MAX_SIGNATURE_HEADER
    assert reason(name, with_headers(delivery(name), (header, "a" * (limit + 1)))) is Reason.HEADER_TOO_LONG
    assert reason(name, with_headers(delivery(name), (header, "a" * limit))) not in (Reason.HEADER_TOO_LONG, None)


@header_of_every_provider
@pytest.mark.parametrize("strange", ["\xe9", "\x80", "\0", "a\x7fb", "\xb2"])
def test_a_header_that_is_not_printable_ascii_is_refused(name: str, header: str, strange: str) -> None:
    """Neither latin-1 letters, nor control characters, nor digits that are not decimal get any further."""
    good = delivery(name).headers.get(header) or ""
    assert reason(name, with_headers(delivery(name), (header, good + strange))) is Reason.MALFORMED_HEADER


@pytest.mark.parametrize(
    ("name", "header", "value"), [(name, *scheme) for name, case in CASES.items() for scheme in case.schemes]
)
def test_a_signature_of_another_scheme_is_refused(name: str, header: str, value: str) -> None:
    """A weaker or unknown scheme is named as such, and never tried."""
    assert reason(name, with_headers(delivery(name), (header, value))) is Reason.WRONG_SCHEME


@every_provider
def test_a_replay_under_a_new_id_is_the_same_event(name: str) -> None:
    """Changing every unsigned header in which providers send ids makes no new event, unless the event says so."""
    provider, request = provider_of(name), delivery(name)
    places = [place.partition(":")[2] for place in provider.id_from if place.startswith("header:")]
    known = ["x-github-delivery", "svix-id", "x-shopify-webhook-id", "x-shopify-event-id", "linear-delivery", *places]
    signed = {field.partition(":")[2] for field in provider.signed.fields} & set(dict(request.headers))
    replay = with_headers(request, *((header, "a-new-id") for header in dict.fromkeys(known) if header not in signed))
    verdict = provider.verify(replay, [CASES[name].secret], NOW)
    assert isinstance(verdict, Verified)
    before, after = provider.describe(request, verdict), provider.describe(replay, verdict)
    for was, evento in zip(before, after, strict=True):
        assert evento.id_externo == was.id_externo or "id_externo" in evento.sin_firmar


@every_provider
def test_unsigned_fields_are_marked(name: str) -> None:
    """An event says sin_firmar exactly when its id or type stands outside of what the scheme covers."""
    provider, request = provider_of(name), delivery(name)
    verdict = provider.verify(request, [CASES[name].secret], NOW)
    assert isinstance(verdict, Verified)
    marked = {field for evento in provider.describe(request, verdict) for field in evento.sin_firmar}
    expected = {
        "github": {"tipo"},
        "shopify": {"tipo", "id_externo"},
        "mercadopago": {"tipo"},
        "mailgun": {"tipo"},
        "gitlab_token": {"tipo", "id_externo"},
        "paypal": {"tipo", "id_externo"},
    }
    assert marked == expected.get(name, set())


@every_provider
def test_a_bomb_of_brackets_is_survived(name: str) -> None:
    """JSON nested a hundred thousand deep is neither a crash nor a recursion, signed or not."""
    provider = provider_of(name)
    bomb = b"[" * 100_000
    assert isinstance(provider.verify(replace(delivery(name), body=bomb), [CASES[name].secret], NOW), Rejected) or (
        not provider.signed.raw_body
    )
    try:
        request = provider.sign(replace(CASES[name].draft, body=b'{"a":' + bomb), Secret(CASES[name].sign), NOW)
    except (ValueError, RecursionError):  # schemes that sign inside the body cannot be made to sign this
        return
    verdict = provider.verify(request, [CASES[name].secret], NOW)
    if isinstance(verdict, Verified):
        assert all(evento.payload is None and evento.error for evento in provider.describe(request, verdict))


strange_headers = st.lists(
    st.tuples(
        st.integers(0, 11),
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([b"", b"t=1,v1=a", b"t=,v1=", b"v1,!!!", b"v1a,", b"sha256=", b"ts=1;h1=", b"=" * 40]),
            st.integers(0, 11),
        ),
    ),
    max_size=8,
)
"""Which of a provider's headers, and what is in it: bytes, or which of the values that a good delivery has."""


@cache
def headers_read_by(name: str) -> tuple[list[bytes], list[bytes]]:
    """Name the headers that a provider reads, and give the values that a good delivery has."""
    kept = [header.lower().encode() for header in (*CASES[name].headers, *provider_of(name).keep_headers)]
    return kept or [b"x"], [value.encode("latin-1") for _, value in delivery(name).headers] or [b""]


def headers_of(name: str, drawn: list[tuple[int, bytes | int]]) -> Headers:
    """Have the headers that a provider reads hold what was drawn."""
    kept, good = headers_read_by(name)
    return Headers(
        (kept[which % len(kept)], good[value % len(good)] if isinstance(value, int) else value)
        for which, value in drawn
    )


strange_bodies = st.one_of(
    st.binary(max_size=80),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [b"payload=", b"payload=%ff", b"Ds_MerchantParameters=e30&Ds_Signature=&Ds_SignatureVersion=", b"\0"]
    ),
)
strange_types = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=20)
strange_urls = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["http://[", "https://a:b:c/?bodySHA256=%ff", "?data.id=\ud800", "//", "https://x/?topic=a&id=1"]),
)


@CASES_FOR_ALL
@given(strange_headers, strange_bodies, strange_urls, st.sampled_from(["POST", "HEAD", ""]))
def test_nothing_a_stranger_sends_raises(
    drawn: list[tuple[int, bytes | int]], body: bytes, url: str, method: str
) -> None:
    """Arbitrary headers, bodies and URLs give a verdict, and an answer to it, never an exception."""
    for name, case in CASES.items():
        note(name)
        provider, secrets = provider_of(name), [case.secret, Secret("!\ud800"), Secret("whpk_"), Secret("\xf1")]
        request = WebhookRequest(body, headers_of(name, drawn), url, method)
        provider.preflight(request)
        verdict = provider.verify(request, secrets, NOW)
        assert str(verdict)
        if isinstance(verdict, Verified):
            provider.handshake(request)
            provider.describe(request, verdict)


def describe_what_is_signed(name: str, body: bytes, tipo: str) -> None:
    """Check that a body which its provider signed is accepted, and gives columns that can be stored."""
    provider = provider_of(name)
    try:
        request = provider.sign(Draft(body, tipo=tipo), Secret(CASES[name].sign), NOW)
    except ValueError:
        return  # schemes with their signature inside the body need a body of their own shape
    verdict = provider.verify(request, [CASES[name].secret], NOW)
    if isinstance(verdict, Rejected):
        assert verdict.reason in (Reason.MALFORMED_BODY, Reason.CONTRADICTION)
        return
    provider.handshake(request)
    for evento in provider.describe(request, verdict):
        assert 0 < len(evento.id_externo) <= 255
        assert 0 < len(evento.tipo) <= 255
        assert "\0" not in evento.id_externo + evento.tipo
        assert (evento.payload is None) == (evento.cuerpo is not None) == (evento.error is not None)


@CASES_FOR_ALL
@given(strange_bodies, strange_types)
def test_whatever_body_is_signed_is_described(body: bytes, tipo: str) -> None:
    """A body that its provider signed is accepted and gives storable columns, whatever it holds."""
    for name in CASES:
        if name != "paypal":
            note(name)
            describe_what_is_signed(name, body, tipo)


@settings(CASES_PER_TEST, max_examples=CASES_PER_TEST.max_examples // 10)  # each is an RSA signature
@given(strange_bodies, strange_types)
def test_whatever_body_paypal_signs_is_described(body: bytes, tipo: str) -> None:
    """The same of the provider whose signatures are dear."""
    describe_what_is_signed("paypal", body, tipo)


def test_a_provider_of_ones_own_is_a_declaration() -> None:
    """HmacProvider expresses a scheme by declaration, and computes what it covers."""
    acme = HmacProvider(
        origen="acme",
        secret_setting="ACME_SECRET",
        header="X-Acme",
        prefix="v1:",
        digest="sha512",
        template="{id}/{timestamp}/{body}",
        timestamp_header="X-Acme-Time",
        id_header="X-Acme-Id",
        id_from=("header:x-acme-id",),
        type_from=("body:kind",),
    )
    request = acme.sign(Draft(b'{"kind":"a.b"}', id_externo="7"), Secret("s"), NOW)
    verdict = acme.verify(request, [Secret("s")], NOW)
    assert isinstance(verdict, Verified)
    (evento,) = acme.describe(request, verdict)
    assert (evento.id_externo, evento.tipo, evento.sin_firmar) == ("7", "a.b", ())
    retargeted = with_headers(request, ("X-Acme-Id", "8"))
    assert isinstance(acme.verify(retargeted, [Secret("s")], NOW), Rejected)


@pytest.mark.parametrize("template", ["{timestamp}.{body}", "{id}{body}", "{timestamp}", "{body}{nothing}", ""])
def test_a_template_that_cannot_be_filled_is_refused(template: str) -> None:
    """A declaration that would sign nothing, or something that has no source, fails when it is made."""
    with pytest.raises(ValueError, match="template"):
        HmacProvider(origen="acme", secret_setting="ACME_SECRET", header="X-Acme", template=template)
