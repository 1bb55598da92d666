"""What is particular to each provider: its handshakes, its answers, its own ways to be attacked."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from cauce.webhooks import (
    PROVIDERS,
    Draft,
    Headers,
    NuevoWebhook,
    Outcome,
    Provider,
    Reason,
    Rejected,
    Secret,
    Verified,
    WebhookRequest,
)
from cauce.webhooks.limits import MAX_SIGNATURES
from cauce.webhooks.providers.adyen import Adyen
from cauce.webhooks.providers.github import SHAPES
from cauce.webhooks.providers.mercadopago import MercadoPago
from cauce.webhooks.providers.paypal import PayPal, message_of
from cauce.webhooks.providers.redsys import Redsys
from cauce.webhooks.providers.square import Square
from cauce.webhooks.providers.twilio import Twilio

NOW = 1_760_000_000.0
SECRET = Secret("a secret")
HEX = Secret("0a" * 32)
WHSEC = Secret("whsec_" + base64.b64encode(b"k" * 24).decode())


def signed(name: str, body: bytes, tipo: str = "", secret: Secret = SECRET) -> WebhookRequest:
    """Make a delivery of a provider in the registry."""
    return PROVIDERS[name].sign(Draft(body, tipo=tipo), secret, NOW)


def verified(provider: Provider, request: WebhookRequest, secret: Secret = SECRET) -> tuple[NuevoWebhook, ...]:
    """Verify a request that must be good, and describe it."""
    verdict = provider.verify(request, [secret], NOW)
    assert isinstance(verdict, Verified), verdict
    return provider.describe(request, verdict)


def reason(provider: Provider, request: WebhookRequest, secret: Secret = SECRET) -> Reason | None:
    """Return why a request is refused; None if it is not."""
    verdict = provider.verify(request, [secret], NOW)
    return verdict.reason if isinstance(verdict, Rejected) else None


def adding(request: WebhookRequest, **headers: str) -> WebhookRequest:
    """Put headers in front of those of a request, replacing those of the same name."""
    new = {name.replace("_", "-"): value for name, value in headers.items()}
    old = [(name, value) for name, value in request.headers if name not in new]
    return replace(request, headers=Headers.of({**new, **dict(old)}))


# --- Standard Webhooks ------------------------------------------------------------------------------------------------


def test_an_id_of_the_other_family_is_not_taken() -> None:
    """A delivery signed with webhook-* headers keeps its id, whatever svix-id is added to it."""
    request = adding(signed("standard", b"{}", secret=WHSEC), svix_id="msg_forged")
    (evento,) = verified(PROVIDERS["standard"], request, WHSEC)
    assert evento.id_externo == request.headers.get("webhook-id")


def test_svix_headers_verify() -> None:
    """The names that Svix itself uses are read by the same provider."""
    request = signed("standard", b'{"type":"a"}', secret=WHSEC)
    renamed = {name.replace("webhook-", "svix-"): value for name, value in request.headers}
    (evento,) = verified(PROVIDERS["svix"], replace(request, headers=Headers.of(renamed)), WHSEC)
    assert evento.id_externo == renamed["svix-id"]


def test_a_dot_in_an_id_is_refused() -> None:
    """It would let the border between id and timestamp move: both sides of the same text would be signed."""
    request = signed("standard", b"{}", secret=WHSEC)
    moved = adding(request, webhook_id=f"{request.headers.get('webhook-id')}.1", webhook_timestamp="1")
    assert reason(PROVIDERS["standard"], moved, WHSEC) is Reason.MALFORMED_HEADER
    with pytest.raises(ValueError, match="dot"):
        PROVIDERS["standard"].sign(Draft(b"{}", id_externo="a.b"), WHSEC, NOW)


def test_signatures_in_one_header_are_limited() -> None:
    """MAX_SIGNATURES are compared, the good one last; one more is refused unread."""
    request = signed("standard", b"{}", secret=WHSEC)
    good = request.headers.get("webhook-signature")
    for others, expected in ((MAX_SIGNATURES - 1, None), (MAX_SIGNATURES, Reason.MALFORMED_HEADER)):
        listed = adding(request, webhook_signature=" ".join(["v1,AAAA"] * others + [str(good)]))
        assert reason(PROVIDERS["standard"], listed, WHSEC) is expected


@pytest.mark.parametrize("text", ["whsec_", "whsec_!!!", "whpk_", "whpk_AAAA", "\ud800"])
def test_a_secret_that_cannot_be_read_is_our_fault(text: str) -> None:
    """It says so, and does not silence a good secret beside it."""
    request = signed("standard", b"{}", secret=WHSEC)
    both = adding(request, webhook_signature=f"{request.headers.get('webhook-signature')} v1a,AAAA")
    verdict = PROVIDERS["standard"].verify(both, [Secret(text)], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.MALFORMED_SECRET
    assert verdict.reason.is_ours
    assert isinstance(PROVIDERS["standard"].verify(both, [Secret(text), WHSEC], NOW), Verified)


def test_a_bad_signature_is_not_blamed_on_a_secret_that_cannot_be_read() -> None:
    """While one configured secret is readable, the sender is told that none of them signed."""
    request = signed("standard", b"{}", secret=WHSEC)
    other = Secret("whsec_" + base64.b64encode(b"o" * 24).decode())
    for secrets in ([Secret("whsec_!"), other], [other, Secret("whsec_!")]):
        verdict = PROVIDERS["standard"].verify(request, secrets, NOW)
        assert isinstance(verdict, Rejected)
        assert verdict.reason is Reason.BAD_SIGNATURE


# --- GitHub, Slack, Discord, Intercom ---------------------------------------------------------------------------------


@pytest.mark.parametrize("event", SHAPES)
def test_a_delivery_cannot_be_sent_again_as_another_event_of_github(event: str) -> None:
    """The unsigned name of an event must fit the signed body."""
    star = signed("github", b'{"action":"created","starred_at":"2026-01-01"}', "star")
    assert reason(PROVIDERS["github"], star) is None
    assert reason(PROVIDERS["github"], adding(star, x_github_event=event)) is Reason.CONTRADICTION


def test_github_under_another_name_is_a_duplicate() -> None:
    """An event of unknown shape can be renamed, but it keeps its identity, and says that its type is unsigned."""
    star = signed("github", b'{"action":"created"}', "star")
    (was,), (evento,) = (
        verified(PROVIDERS["github"], request) for request in (star, adding(star, x_github_event="watch"))
    )
    assert (was.tipo, evento.tipo) == ("star.created", "watch.created")
    assert was.id_externo == evento.id_externo
    assert evento.sin_firmar == ("tipo",)


def test_github_signed_with_sha1_only_says_so() -> None:
    """The legacy header alone is another scheme, not a missing header."""
    request = signed("github", b"{}", "ping")
    legacy = replace(request, headers=Headers.of({"X-Hub-Signature": "sha1=00"}))
    assert reason(PROVIDERS["github"], legacy) is Reason.WRONG_SCHEME


def test_github_forms_are_read() -> None:
    """A hook of content type form holds its JSON in a field."""
    body = urlencode({"payload": '{"zen":"a","hook_id":1}'}).encode()
    (evento,) = verified(PROVIDERS["github"], signed("github", body, "ping"))
    assert (evento.tipo, evento.payload) == ("ping", '{"zen":"a","hook_id":1}')


def test_slack_asks_for_its_challenge() -> None:
    """The question is answered, once verified, with its own text; an event is no question."""
    body = b'{"type":"url_verification","challenge":"3eZbrw1aB"}'
    answer = PROVIDERS["slack"].handshake(signed("slack", body))
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"3eZbrw1aB")
    assert PROVIDERS["slack"].handshake(signed("slack", b'{"type":"event_callback"}')) is None


@pytest.mark.parametrize(
    ("body", "tipo"),
    [
        (b"command=%2Fdeploy&text=&trigger_id=13.345.8&team_id=T1", "/deploy"),
        (urlencode({"payload": '{"type":"block_actions","trigger_id":"13.345.8"}'}).encode(), "block_actions"),
    ],
)
def test_slack_forms_are_read(body: bytes, tipo: str) -> None:
    """Slash commands and interactions are identified by their trigger."""
    (evento,) = verified(PROVIDERS["slack"], signed("slack", body))
    assert (evento.tipo, evento.id_externo) == (tipo, "13.345.8")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [(b'{"version":1,"type":0}', 204, b""), (b'{"id":"1","type":1,"token":"t"}', 200, b'{"type":1}')],
)
def test_discord_is_answered_its_pings(body: bytes, status: int, text: bytes) -> None:
    """Webhook events and interactions have each their own."""
    answer = PROVIDERS["discord"].handshake(WebhookRequest(body))
    assert answer is not None
    assert (answer.status, answer.body, answer.content_type) == (status, text, "application/json")


def test_discord_must_hear_401() -> None:
    """It sends bad signatures on purpose, and wants 204 for an event."""
    answers = {outcome: PROVIDERS["discord"].respond(outcome) for outcome in Outcome}
    assert {outcome: answer and answer.status for outcome, answer in answers.items()} == {
        Outcome.STORED: 204,
        Outcome.DUPLICATE: 204,
        Outcome.REJECTED: 401,
        Outcome.UNAVAILABLE: None,
    }


def test_intercom_tries_an_endpoint_with_head() -> None:
    """HEAD is answered 200 without a signature; POST is not."""
    answer = PROVIDERS["intercom"].preflight(WebhookRequest(b"", method="HEAD"))
    assert answer is not None
    assert answer.status == 200
    assert PROVIDERS["intercom"].preflight(WebhookRequest(b"")) is None


# --- Shopify, Linear --------------------------------------------------------------------------------------------------


def test_one_body_under_two_topics_is_two_events_of_shopify() -> None:
    """Shopify sends the same order as created and as paid; a retry of either is a duplicate."""
    created, paid, again = (
        verified(PROVIDERS["shopify"], signed("shopify", b'{"id":1}', topic))[0]
        for topic in ("orders/create", "orders/paid", "orders/create")
    )
    assert created.id_externo == again.id_externo != paid.id_externo


def test_a_replay_without_its_topic_is_marked_as_what_it_is() -> None:
    """Shopify's topic is no part of what is signed, and neither is that there is none."""
    request = signed("shopify", b'{"id":1}', "orders/create")
    bare = {name: value for name, value in request.headers if name != "x-shopify-topic"}
    (evento,) = verified(PROVIDERS["shopify"], replace(request, headers=Headers.of(bare)))
    assert (evento.tipo, evento.sin_firmar) == ("desconocido", ("id_externo",))


def test_an_attempt_of_linear_has_the_identity_of_the_first() -> None:
    """The timestamp in the body differs between attempts and is no part of what the event is."""
    bodies = [f'{{"action":"create","webhookTimestamp":{NOW + delay:.0f}000}}'.encode() for delay in (0, 60)]
    first, second = (verified(PROVIDERS["linear"], signed("linear", body))[0] for body in bodies)
    assert first.id_externo == second.id_externo


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"webhookTimestamp":[]}', b"\xff"])
def test_linear_without_its_timestamp_is_refused(body: bytes) -> None:
    """A signed body without the time of its signature could be replayed forever."""
    assert reason(PROVIDERS["linear"], signed("linear", body)) is Reason.MALFORMED_BODY


@pytest.mark.parametrize("timestamp", ["2026-01-01T00:00:00", "yesterday", "1760000000", "2026-13-01T00:00:00Z"])
def test_zendesk_must_say_when_in_iso_8601(timestamp: str) -> None:
    """A moment without offset is not a moment."""
    request = adding(signed("zendesk", b"{}"), x_zendesk_webhook_signature_timestamp=timestamp)
    assert reason(PROVIDERS["zendesk"], request) is Reason.MALFORMED_HEADER


# --- signed URLs: Square, Twilio --------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", [Square(), Twilio()], ids=["square", "twilio"])
@pytest.mark.parametrize("seen", ["http://shop.example/in", "https://shop.example/in/", "http://shop.example/in/"])
def test_a_rewritten_url_is_told_from_a_wrong_secret(provider: Provider, seen: str) -> None:
    """Behind a proxy that ends TLS, or adds a slash, the message names the URL that was signed."""
    request = provider.sign(Draft(b"a=1", url="https://shop.example/in"), SECRET, NOW)
    verdict = provider.verify(replace(request, url=seen), [SECRET], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.URL_MISMATCH
    assert "https://shop.example/in" in verdict.detail
    assert reason(provider, replace(request, url="https://other.example/in")) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("kind", [Square, Twilio])
def test_a_configured_url_counts_instead_of_the_seen_one(kind: type[Square | Twilio]) -> None:
    """With public_url the process may see any address."""
    provider = kind(public_url="https://shop.example/in")
    request = kind().sign(Draft(b"a=1", url="https://shop.example/in"), SECRET, NOW)
    assert reason(provider, replace(request, url="http://10.0.0.1:8000/in")) is None


@pytest.mark.parametrize(("url", "cut"), [("https://a.example/in", 1), ("https://a.example/in?x=1", -4)])
def test_the_border_between_url_and_body_of_square_cannot_be_moved(url: str, cut: int) -> None:
    """What was signed, cut elsewhere, would be another event: part of either in the other."""
    body = b'{"event_id":"e1","type":"payment.created"}'
    request = PROVIDERS["square"].sign(Draft(body, url=url), SECRET, NOW)
    assert reason(PROVIDERS["square"], request) is None
    text = url + body.decode()
    at = len(url) + cut
    moved = replace(request, url=text[:at], body=text[at:].encode())
    assert reason(PROVIDERS["square"], moved) is Reason.MALFORMED_BODY
    # a URL that is known leaves nothing to move
    assert reason(Square(public_url=url), moved) is Reason.BAD_SIGNATURE


def test_a_json_body_of_twilio_is_covered_by_the_hash_in_its_url() -> None:
    """Another body, or no hash, is refused; each CloudEvent of a stream is an event."""
    body = b'[{"id":"EZ1","type":"com.twilio.messaging.message.sent"},{"id":"EZ2","type":"com.twilio.a"}]'
    request = signed("twilio", body)
    assert [evento.id_externo for evento in verified(PROVIDERS["twilio"], request)] == ["EZ1", "EZ2"]
    assert reason(PROVIDERS["twilio"], replace(request, body=b"[]")) is Reason.BAD_SIGNATURE
    bare = replace(request, url=request.url.partition("?")[0])
    assert reason(PROVIDERS["twilio"], bare) is Reason.WRONG_SCHEME


def test_twilio_is_not_asked_which_digest_it_would_like() -> None:
    """A SharedKey signature verifies where SHA-256 is configured, and only there."""
    request = Twilio(digest="sha256").sign(Draft(b"a=1"), SECRET, NOW)
    asked = adding(request, x_twilio_webhooks_signature_settings="key=k,algorithm=HMAC_SHA256")
    assert reason(Twilio(digest="sha256"), asked) is None
    assert reason(Twilio(), asked) is Reason.BAD_SIGNATURE


def test_each_status_of_a_message_is_an_event_of_its_own() -> None:
    """The sid alone would make delivered a duplicate of sent."""
    sent, delivered = (
        verified(PROVIDERS["twilio"], signed("twilio", f"MessageSid=SM1&MessageStatus={status}".encode()))[0]
        for status in ("sent", "delivered")
    )
    assert (sent.id_externo, delivered.id_externo) == ("SM1:sent", "SM1:delivered")


# --- Adyen ------------------------------------------------------------------------------------------------------------


def adyen_body(*references: str, **fields: str) -> bytes:
    """Make a standard webhook with an item for each reference."""
    items = [
        {"pspReference": reference, "eventCode": "AUTHORISATION", "success": "true", "merchantReference": "o", **fields}
        for reference in references
    ]
    return json.dumps({"notificationItems": [{"NotificationRequestItem": item} for item in items]}).encode()


def test_a_forged_second_item_of_adyen_is_refused() -> None:
    """Every item is verified: Adyen's own library looks at the first."""
    good = json.loads(signed("adyen", adyen_body("A"), secret=HEX).body)
    forged = json.loads(adyen_body("B"))["notificationItems"][0]
    for signature, expected in ((None, Reason.WRONG_SCHEME), ("AAAA", Reason.BAD_SIGNATURE)):
        forged["NotificationRequestItem"]["additionalData"] = {"hmacSignature": signature}
        body = json.dumps({"notificationItems": [*good["notificationItems"], forged]}).encode()
        assert reason(PROVIDERS["adyen"], WebhookRequest(body), HEX) is expected


def test_a_batch_of_adyen_is_several_events() -> None:
    """Each item has its own identity and its own payload; the answer is what old accounts look for."""
    events = verified(PROVIDERS["adyen"], signed("adyen", adyen_body("A", "B"), secret=HEX), HEX)
    assert [evento.id_externo for evento in events] == ["AUTHORISATION:A:true", "AUTHORISATION:B:true"]
    assert [json.loads(evento.payload or "")["pspReference"] for evento in events] == ["A", "B"]
    answer = PROVIDERS["adyen"].respond(Outcome.STORED)
    assert answer is not None
    assert answer.body == b"[accepted]"


def test_colons_cannot_be_moved_between_fields_of_adyen() -> None:
    """The merchant's reference may hold colons; another field that does could read what was signed in another way."""
    provider = Adyen()
    request = provider.sign(Draft(adyen_body("A", merchantReference="x:y")), HEX, NOW)
    assert reason(provider, request, HEX) is None
    item = json.loads(request.body)["notificationItems"][0]["NotificationRequestItem"]
    # Joined, its fields are the very text that was signed.
    moved = {
        **item,
        "pspReference": "A:",
        "originalReference": "",
        "merchantAccountCode": "x",
        "merchantReference": "y",
    }
    body = json.dumps({"notificationItems": [{"NotificationRequestItem": moved}]}).encode()
    assert reason(provider, WebhookRequest(body), HEX) is Reason.MALFORMED_BODY


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"notificationItems":[]}', b'{"notificationItems":[1]}', b"\xff"]
)
def test_what_is_no_standard_webhook_of_adyen_is_refused(body: bytes) -> None:
    """A batch without items would verify nothing."""
    assert reason(PROVIDERS["adyen"], WebhookRequest(body), HEX) is Reason.MALFORMED_BODY


# --- Mercado Pago -----------------------------------------------------------------------------------------------------

MP_BODY = b'{"id":1,"type":"payment","action":"payment.updated","data":{"id":"AB12"}}'


def test_the_body_of_mercado_pago_is_not_signed_and_the_event_says_so() -> None:
    """Whatever the body is changed to, the identity stays; the type is marked."""
    request = signed("mercadopago", MP_BODY)
    forged = replace(request, body=MP_BODY.replace(b"updated", b"created").replace(b'"id":1', b'"id":2'))
    (was,), (evento,) = (verified(PROVIDERS["mercadopago"], one) for one in (request, forged))
    assert (evento.tipo, evento.sin_firmar) == ("payment.created", ("tipo",))
    assert was.id_externo == evento.id_externo


def test_mercado_pago_signs_the_id_as_sent_or_in_lower_case() -> None:
    """Both are accepted, and the case of the URL makes no new identity."""
    request = signed("mercadopago", MP_BODY.replace(b"AB12", b"ab12"))
    upper = replace(request, url=request.url.replace("ab12", "AB12"))
    (was,), (evento,) = (verified(PROVIDERS["mercadopago"], one) for one in (request, upper))
    assert was.id_externo == evento.id_externo
    assert reason(PROVIDERS["mercadopago"], replace(request, url=request.url.replace("ab12", "ab13"))) is (
        Reason.BAD_SIGNATURE
    )


def test_a_semicolon_does_not_move_the_borders_of_a_manifest() -> None:
    """The request's id, folded into the resource's, gives the same signed text and would give another identity."""
    request = signed("mercadopago", MP_BODY)
    headers = {name: value for name, value in request.headers if name != "x-request-id"}
    folded = f"https://x/?data.id=AB12%3Brequest-id%3A{request.headers.get('x-request-id')}"
    moved = replace(request, headers=Headers.of(headers), url=folded)
    assert reason(PROVIDERS["mercadopago"], moved) is Reason.MALFORMED_HEADER


@pytest.mark.parametrize(("timestamp", "expected"), [(f"{NOW:.0f}", None), (f"{NOW:.0f}123", None), ("1", "stale")])
def test_mercado_pago_counts_in_seconds_or_milliseconds(timestamp: str, expected: str | None) -> None:
    """Its documentation says one and shows the other."""
    provider = MercadoPago()
    message = f"id:ab12;request-id:r-1;ts:{timestamp};".encode()
    signature = provider._signature(SECRET, message)
    headers = Headers.of({"x-request-id": "r-1", "x-signature": f"ts={timestamp},v1={signature}"})
    assert reason(provider, WebhookRequest(b"{}", headers, "https://x/?data.id=ab12")) == expected


def test_parts_that_are_absent_are_left_out_of_the_manifest() -> None:
    """Some notifications have no request id, or no resource; they are identified by when they were signed."""
    provider = MercadoPago()
    signature = provider._signature(SECRET, f"ts:{NOW:.0f};".encode())
    request = WebhookRequest(b"{}", Headers.of({"x-signature": f"ts={NOW:.0f},v1={signature}"}), "https://x/")
    (evento,) = verified(provider, request)
    assert evento.id_externo == f":{NOW:.0f}"


def test_the_unsigned_twin_is_dropped_with_200() -> None:
    """IPN notifications come beside the webhooks; one that is signed, or is a webhook, is not dropped."""
    provider = PROVIDERS["mercadopago"]
    twin = WebhookRequest(b"{}", url="https://x/?id=1&topic=payment")
    answer = provider.preflight(twin)
    assert answer is not None
    assert answer.status == 200
    assert provider.preflight(adding(twin, x_signature="ts=1,v1=0")) is None
    assert provider.preflight(replace(twin, url="https://x/?data.id=1&topic=payment")) is None


def test_the_own_id_of_a_notification_can_be_opted_in_to() -> None:
    """It is unsigned, and says so."""
    provider = MercadoPago(accept_unsigned=frozenset({"tipo", "id_externo"}))
    (evento,) = verified(provider, provider.sign(Draft(MP_BODY), SECRET, NOW))
    assert (evento.id_externo, evento.sin_firmar) == ("1", ("tipo", "id_externo"))


# --- PayPal, Redsys, Mailgun ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://api.paypal.com/cert",
        "https://paypal.com.evil.example/cert",
        "https://evil.example/?https://api.paypal.com/",
        "https://evil.example#.paypal.com/",
        "https://user@evil.example/.paypal.com/",
        "https://evilpaypal.com/cert",
        "https://api.paypal.com@evil.example/",
        "https://169.254.169.254\\.paypal.com/",
        "file:///etc/passwd",
    ],
)
def test_a_certificate_is_asked_of_paypal_only(url: str) -> None:
    """The source of certificates is not even called for any other URL."""

    def certificates(asked: str) -> bytes:
        pytest.fail(f"asked for {asked}")

    headers = {
        "PAYPAL-TRANSMISSION-ID": "1",
        "PAYPAL-TRANSMISSION-TIME": "2026-01-01T00:00:00Z",
        "PAYPAL-TRANSMISSION-SIG": "AAAA",
        "PAYPAL-CERT-URL": url,
        "PAYPAL-AUTH-ALGO": "SHA256withRSA",
    }
    request = WebhookRequest(b"{}", Headers.of(headers))
    assert reason(PayPal(certificates=certificates), request) is Reason.CONTRADICTION


@pytest.mark.parametrize("certificates", [None, lambda _: None])
def test_without_a_certificate_paypal_is_asked_to_come_again(certificates: None) -> None:
    """Neither a missing source nor a failing one is the sender's fault."""
    headers = {
        "PAYPAL-TRANSMISSION-ID": "1",
        "PAYPAL-TRANSMISSION-TIME": "2026-01-01T00:00:00Z",
        "PAYPAL-TRANSMISSION-SIG": "AAAA",
        "PAYPAL-CERT-URL": "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "PAYPAL-AUTH-ALGO": "SHA256withRSA",
    }
    verdict = PayPal(certificates=certificates).verify(WebhookRequest(b"{}", Headers.of(headers)), [SECRET], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.UNAVAILABLE
    assert verdict.reason.is_ours


def test_paypal_signs_the_checksum_of_the_body() -> None:
    """The message holds CRC-32 as an unsigned decimal; "123456789" is the checksum's own test value."""
    message = message_of(b"123456789", "t-1", "2026-01-01T00:00:00Z", Secret("W1"))
    assert message == b"t-1|2026-01-01T00:00:00Z|W1|3421780262"
    assert zlib.crc32(b"123456789") == 0xCBF43926


REDSYS_SECRET = Secret(base64.b64encode(b"123456789012345678901234").decode())
REDSYS_BODY = b'{"Ds_Order":"0001","Ds_TransactionType":"3","Ds_Amount":"100","Ds_Control_1":"1"}'


@pytest.mark.parametrize("version", ["HMAC_SHA256_V1", "HMAC_SHA512_V1", "HMAC_SHA512_V2"])
def test_every_version_of_redsys_verifies_as_form_and_as_json(version: str) -> None:
    """The payload is the decoded parameters; identity leaves out what is new in every message."""
    signer = Redsys(versions=(version,))  # type: ignore[arg-type]  # one of the three, from the list above
    request = signer.sign(Draft(REDSYS_BODY), REDSYS_SECRET, NOW)
    (evento,) = verified(PROVIDERS["redsys"], request, REDSYS_SECRET)
    assert (evento.tipo, evento.payload) == ("operacion.3", REDSYS_BODY.decode())
    again = signer.sign(Draft(REDSYS_BODY.replace(b"Ds_Control_1", b"Ds_Control_2")), REDSYS_SECRET, NOW)
    assert verified(PROVIDERS["redsys"], again, REDSYS_SECRET)[0].id_externo == evento.id_externo
    pairs = [pair.partition("=") for pair in request.body.decode().split("&")]
    as_json = {name: value.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/") for name, _, value in pairs}
    assert verified(PROVIDERS["redsys"], WebhookRequest(json.dumps(as_json).encode()), REDSYS_SECRET) == (
        replace(evento, cabeceras={}),
    )


def test_redsys_in_capitals_has_the_same_identity() -> None:
    """Redsys writes the names of its parameters in two ways."""
    bodies = (REDSYS_BODY, REDSYS_BODY.upper())
    requests = [PROVIDERS["redsys"].sign(Draft(body), REDSYS_SECRET, NOW) for body in bodies]
    mixed, capitals = (verified(PROVIDERS["redsys"], request, REDSYS_SECRET)[0] for request in requests)
    assert (mixed.tipo, mixed.id_externo) == (capitals.tipo, capitals.id_externo)


def test_a_version_of_redsys_can_be_switched_off() -> None:
    """Who has moved to SHA-512 need not accept 3DES any more."""
    request = Redsys(versions=("HMAC_SHA256_V1",)).sign(Draft(REDSYS_BODY), REDSYS_SECRET, NOW)
    assert reason(Redsys(versions=("HMAC_SHA512_V2",)), request, REDSYS_SECRET) is Reason.WRONG_SCHEME


def test_the_signed_token_of_mailgun_is_the_identity() -> None:
    """The event's own id is not signed: changing it makes no new event."""
    request = signed("mailgun", b'{"event-data":{"event":"delivered","id":"a"}}')
    forged = replace(request, body=request.body.replace(b'"id": "a"', b'"id": "b"'))
    assert forged != request
    (was,), (evento,) = (verified(PROVIDERS["mailgun"], one) for one in (request, forged))
    assert was.id_externo == evento.id_externo
    assert evento.sin_firmar == ("tipo",)


# --- GitLab's token ---------------------------------------------------------------------------------------------------


def test_the_token_of_gitlab_is_not_stored() -> None:
    """It is the secret itself, so it is in no header that is kept."""
    request = adding(signed("gitlab_token", b'{"object_kind":"push"}'), idempotency_key="k-1")
    (evento,) = verified(PROVIDERS["gitlab_token"], request)
    assert (evento.id_externo, evento.sin_firmar) == ("k-1", ("tipo", "id_externo"))
    assert SECRET.text not in str(evento)
