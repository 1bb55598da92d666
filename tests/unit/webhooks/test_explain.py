"""The explanations of refused deliveries: each test makes a cause, which must be found."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache

import pytest

from cauce.webhooks import PROVIDERS, Draft, Headers, Provider, Reason, Rejected, Secret, Verified, WebhookRequest
from cauce.webhooks.explaining.explain import explain
from cauce.webhooks.explaining.moments import moment_of, signed_at
from cauce.webhooks.raw import read_request, write_request
from cauce.webhooks.trying.keys import Keys, new_keys
from cauce.webhooks.trying.samples import samples_of
from cauce.webhooks.urls import called_at, public_base

NOW = 1_764_000_000.0
BODY = '{"id": "evt_1", "type": "t", "path": "a/b", "text": "a\\u00f1o <b>", "n": [1, {"z": 1, "a": 2}]}'
SECRET = Secret("whsec_one")
keys_of = cache(lambda origen: new_keys(PROVIDERS[origen], NOW))


def stripe(body: str = BODY, secret: Secret = SECRET, now: float = NOW) -> WebhookRequest:
    """Make a delivery of Stripe's, with the length that an HTTP client adds."""
    return with_headers(PROVIDERS["stripe"].sign(Draft(body.encode()), secret, now), content_length=str(len(body)))


def with_headers(request: WebhookRequest, **more: str) -> WebhookRequest:
    """Add headers."""
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return replace(request, headers=Headers.of({**dict(request.headers), **named}))


def told(
    request: WebhookRequest, *secrets: Secret, provider: Provider | None = None, now: float = NOW, **others: str
) -> dict[str, str]:
    """Explain, and return the lines by their labels."""
    those = {name: Secret.several(text) for name, text in others.items()}
    return dict(explain(provider or PROVIDERS["stripe"], request, secrets or (SECRET,), now, those).lines)


def sample(origen: str, url: str = "http://127.0.0.1:8000/api/webhooks/x") -> WebhookRequest:
    """Make a delivery of any provider's."""
    provider, one = PROVIDERS[origen], next(iter(samples_of(origen).values()))
    return provider.sign(one.draft(provider, url, "0123456789abcdef" * 2, NOW), Secret(keys_of(origen).sign), NOW)


@pytest.mark.parametrize("origen", PROVIDERS)
def test_a_good_delivery_is_explained(origen: str) -> None:
    """Through raw HTTP and back it verifies; the moment is found where one is signed; no secret is shown."""
    request = read_request(write_request(sample(origen))).request
    provider = keys_of(origen).trusted_by(PROVIDERS[origen])
    explained = explain(provider, request, [Secret(keys_of(origen).verify)], NOW + 2)
    lines = dict(explained.lines)
    assert isinstance(explained.verdict, Verified)
    assert "matches" in lines["secret"]
    assert lines["verified"].startswith("stored, and answered 20")
    assert lines["event"].startswith(next(iter(samples_of(origen))))
    assert ("2 s before" in lines["time"]) == provider.signed.timestamp
    assert (signed_at(provider, request) == NOW) == provider.signed.timestamp
    assert keys_of(origen).verify not in str(explained.lines)


@pytest.mark.parametrize("origen", PROVIDERS)
def test_hostile_requests_are_explained_too(origen: str) -> None:
    """Without headers, with strange ones, with a body that is nothing: something to do is always said."""
    provider, secrets = PROVIDERS[origen], [Secret(keys_of(origen).verify)]
    strange = Headers([(name.encode(), b"\xff=,;t=9" * 600) for name, _ in sample(origen).headers])
    for body in (b"", b"\xff\xfe", b'{"a":' * 2000, b"[]", b'"\\ud800"', b"signature=1&signature=2"):
        for headers in (Headers(), strange, sample(origen).headers):
            explained = explain(provider, WebhookRequest(body, headers, "http://a/b"), secrets, NOW)
            assert dict(explained.lines).keys() & {"to do", "verified"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (json.dumps(json.loads(BODY), separators=(",", ":")), "with a space after commas and colons"),
        (json.dumps(json.loads(BODY), indent=2), "with a space after commas and colons"),
        (json.dumps(json.loads(BODY), ensure_ascii=False), "with a space after commas and colons"),
        (BODY + "\n", "without the white space around it"),
    ],
)
def test_a_rewritten_body_is_recognized(written: str, said: str) -> None:
    """The secret is cleared, and the writing that was signed is named."""
    lines = told(replace(stripe(), body=written.encode()))
    assert lines["cause"].startswith("the secret is right, but the body was rewritten")
    assert said in lines["cause"]
    assert lines["refused"].startswith("bad_signature, answered 400")


@pytest.mark.parametrize(
    ("signed", "said"),
    [
        (json.dumps(json.loads(BODY), separators=(",", ":")), "compactly"),
        (json.dumps(json.loads(BODY), indent=2), "indented by two"),
        (json.dumps(json.loads(BODY), indent=4), "indented by four"),
        (json.dumps(json.loads(BODY), ensure_ascii=False), "letters unescaped"),
        (json.dumps(json.loads(BODY), sort_keys=True), "keys sorted"),
        (json.dumps(json.loads(BODY), separators=(",", ":")).replace("/", "\\/"), "slashes escaped"),
        (BODY.replace("<", "\\u003c").replace(">", "\\u003e"), "<, > and & escaped"),
        (json.dumps(json.loads(BODY), indent=2) + "\n", "a newline at its end"),
        (json.dumps(json.loads(BODY), indent=2).replace("\n", "\r\n") + "\r\n", ""),
    ],
)
def test_whatever_serializer_signed_is_named(signed: str, said: str) -> None:
    """Every usual writing of the same JSON is tried; one that nobody uses is not claimed."""
    cause = told(replace(stripe(signed), body=BODY.encode()))["cause"]
    assert said in cause if said else "rewritten" not in cause


def test_encodings_and_ends_of_lines_are_tried() -> None:
    """Bodies that are no JSON are rewritten as well."""
    for signed, came in (
        ("a\r\nb", b"a\nb"),
        ("a\nb", b"a\r\nb"),
        ("a", b"\xef\xbb\xbfa"),
        ("a\xf1o", "a\xf1o".encode().decode("latin-1").encode()),
        ("a=b+c&d=%2F", b"a=b%20c&d=%2F"),
    ):
        assert "the body was rewritten" in told(replace(stripe(signed), body=came))["cause"]


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ('"whsec_one"', "with quotes around it"),
        ("one", "without its whsec_"),
        ("'one'", "without its whsec_"),
    ],
)
def test_a_secret_that_was_copied_wrongly_is_recognized(held: str, said: str) -> None:
    """What is wrong with it is said, and the secret itself is not."""
    lines = told(stripe(), Secret(held))
    assert lines["cause"] == f"STRIPE_WEBHOOK_SECRET has the secret {said}"
    assert "whsec_one" not in str(lines)


def test_the_secret_of_another_setting_is_recognized() -> None:
    """Two endpoints whose secrets were exchanged."""
    cause = told(stripe(), Secret("whsec_two"), STRIPE_CONNECT_SECRET="whsec_one")["cause"]
    assert cause == (
        "the request is signed with the secret in STRIPE_CONNECT_SECRET, but was verified with STRIPE_WEBHOOK_SECRET"
    )


def test_a_wrong_secret_and_a_changed_body_are_told_apart_where_that_can_be() -> None:
    """By the length of the body, and by the body not being signed; otherwise it is said that they cannot."""
    assert "so the secret is more likely" in told(stripe(), Secret("whsec_two"))["cause"]
    cut = replace(stripe(), body=BODY.encode()[:-9])
    assert "was changed after it was sent" in told(cut)["cause"]
    mailgun = told(sample("mailgun"), Secret("other"), provider=PROVIDERS["mailgun"])
    assert "the secret is wrong, or one of the signed parts" in mailgun["cause"]
    assert mailgun["unsigned"]


def test_the_matching_secret_of_several_is_named() -> None:
    """During a rotation it matters which."""
    assert told(stripe(), Secret("whsec_two"), SECRET)["secret"].startswith("secret 2 of 2 in STRIPE_WEBHOOK_SECRET")


@pytest.mark.parametrize("secrets", [[], [Secret(" ")]])
def test_an_empty_secret_is_ours(secrets: list[Secret]) -> None:
    """The provider is answered 503 until it is set."""
    lines = dict(explain(PROVIDERS["stripe"], stripe(), secrets, NOW).lines)
    assert lines["refused"] == "empty_secret, answered 503: STRIPE_WEBHOOK_SECRET has no secret"
    assert lines["to do"].startswith("Set the secret")


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (400, "it is old"),
        (-400, "this host is behind"),
        (2 * 3600 + 3, "by almost exactly 2 h"),
        (-5.5 * 3600, "by almost exactly 5.5 h"),
        (2 * 3600 + 60, "it is old"),
        (30 * 86_400, "it is old"),
    ],
)
def test_clocks_and_captures_are_told_apart(later: float, said: str) -> None:
    """The signature is good in all of them, and the moment to judge it at is given."""
    lines = told(stripe(), now=NOW + later)
    assert said in lines["cause"]
    assert "--at 2025-11-24T16:00:00Z" in lines["to do"]


def test_a_date_header_shows_that_it_was_held() -> None:
    """What was fresh when it was sent is no replay and no wrong clock."""
    date = format_datetime(datetime.fromtimestamp(NOW + 5, UTC), usegmt=True)
    assert "fresh when it was sent" in told(with_headers(stripe(), date=date), now=NOW + 4000)["cause"]


def test_another_provider_is_recognized() -> None:
    """A delivery that went to the wrong address."""
    lines = told(stripe(), provider=PROVIDERS["github"])
    assert lines["cause"].startswith("it has the header stripe-signature of stripe")
    assert "--provider stripe" in lines["to do"]
    svix = told(sample("svix"), provider=PROVIDERS["slack"])
    assert "webhook-signature" in svix["cause"]
    assert "cause" not in told(WebhookRequest(b""), provider=PROVIDERS["slack"])


@pytest.mark.parametrize("origen", ["square", "twilio"])
@pytest.mark.parametrize(
    ("called", "seen", "forwarded", "todo"),
    [
        ("https://a.example{}", "http://a.example{}", {}, "CAUCE_PUBLIC_URL=https://a.example,"),
        ("https://a.example{}?b=c", "http://a.example{}?b=c", {}, "CAUCE_PUBLIC_URL=https://a.example,"),
        (
            "https://a.example{}", "http://10.0.0.7:8000{}",
            {"x_forwarded_proto": "https", "x_forwarded_host": "a.example, b"}, "CAUCE_PUBLIC_URL=https://a.example,",
        ),
        (
            "https://a.example{}", "http://10.0.0.7:8000{}", {"x_forwarded_host": "a.example"},
            "CAUCE_PUBLIC_URL=https://a.example,",
        ),
        (
            "https://a.example/x/y{}", "http://10.0.0.7{}",
            {"x_forwarded_host": "a.example", "x_forwarded_prefix": "/x/y"}, "CAUCE_PUBLIC_URL=https://a.example/x/y,",
        ),
        ("https://a.example{}/", "https://a.example{}", {}, "public_url='https://a.example{}/'"),
    ],
    ids=["scheme", "query", "scheme and host", "host", "prefix", "slash"],
)  # fmt: skip
def test_a_url_that_a_proxy_changed_is_recognized(
    origen: str, called: str, seen: str, forwarded: dict[str, str], todo: str
) -> None:
    """By the verifier itself, or by the proxy's headers; the explanation has the setting that corrects it."""
    provider, path = PROVIDERS[origen], f"/api/webhooks/{origen}"
    secret = Secret(keys_of(origen).verify)
    request = sample(origen, called := called.format(path))
    inside = with_headers(replace(request, url=request.url.replace(called, seen.format(path))), **forwarded)
    lines = told(inside, secret, provider=provider)
    assert todo.format(path) in lines["to do"]
    assert called.partition("?")[0] in lines["cause"]
    assert "b=c" not in lines["cause"], "it is kept in the quarantine, and people put secrets there"
    wrong = told(inside, Secret("other"), provider=provider)
    assert "the provider signed" not in wrong["cause"]
    assert f"or the URL, which is signed and was received as {inside.url}" in wrong["to do"]


@pytest.mark.parametrize(
    ("url", "base", "public"),
    [
        ("http://10.0.0.7/dentro/api/webhooks/square?a=/api/webhooks/x", "http://10.0.0.7/dentro",
         "https://a.example/api/webhooks/square?a=/api/webhooks/x"),
        ("http://10.0.0.7/otra?a=/api/webhooks/x", "", "http://10.0.0.7/otra?a=/api/webhooks/x"),
    ],
)  # fmt: skip
def test_the_public_address_of_an_inbox(url: str, base: str, public: str) -> None:
    """What stands before /api/webhooks/ is another, and the rest is the same; other addresses stay as they are."""
    assert public_base(url) == base
    assert called_at("https://a.example", url) == public


def test_questions_are_no_events() -> None:
    """Slack's challenge is answered and not stored, and the explanation says so."""
    provider, one = PROVIDERS["slack"], samples_of("slack")["url_verification"]
    request = provider.sign(one.draft(provider, "http://a/", "0" * 32, NOW), SECRET, NOW)
    assert "not an event: answered 200" in told(request, provider=provider)["verified"]


def test_what_is_unsigned_or_cannot_be_stored_is_said() -> None:
    """The marks that the stored event would have."""
    shopify = told(sample("shopify"), Secret(keys_of("shopify").verify), provider=PROVIDERS["shopify"])
    assert shopify["event"].endswith("; unsigned: tipo, id_externo")
    assert "stored raw, in state error: not_json" in told(stripe("{"))["event"]


def test_a_token_is_not_shown() -> None:
    """GitLab's older scheme sends the secret itself."""
    provider, secret = PROVIDERS["gitlab_token"], Secret(keys_of("gitlab_token").verify)
    request = sample("gitlab_token")
    assert secret.text in dict(request.headers).values()
    assert secret.text not in str(told(request, Secret("x"), provider=provider))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1764000000", NOW),
        ("1764000000000", NOW),
        ("2025-11-24T16:00:00Z", NOW),
        ("2025-11-24T17:00:00+01:00", NOW),
        ("2025-11-24T16:00:00", None),
        ("soon", None),
        ("", None),
        ("9" * 16, None),
    ],
)
def test_moments(text: str, moment: float | None) -> None:
    """Seconds, milliseconds, ISO 8601 with an offset; nothing is guessed."""
    assert moment_of(text) == moment


def test_a_request_survives_being_written_and_read() -> None:
    """Also one that was called by https, whose scheme the first line then holds."""
    for url in ("http://a.example:81/x?y=1&z", "https://a.example/x"):
        request = replace(stripe("a\r\n\r\nb"), url=url)
        read = read_request(write_request(request)).request
        assert (read.body, read.url, read.method) == (request.body, url, "POST")
        assert read.headers.get("stripe-signature") == request.headers.get("stripe-signature")


def test_a_capture_is_read_generously() -> None:
    """Ends of lines, chunks, what an editor added, what is missing: read, and noted."""
    plain = read_request(b"POST /x HTTP/1.1\nHost: a\nX: 1\nX: 2\n\n{}")
    assert (plain.request.url, plain.request.body, plain.notes) == ("http://a/x", b"{}", ())
    assert plain.request.headers.all("x") == ("1", "2")
    longer = read_request(b"POST /x HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}\n")
    assert (longer.request.body, len(longer.notes)) == (b"{}", 1)
    shorter = read_request(b"POST /x HTTP/1.1\r\ncontent-length: 9\r\n\r\n{}")
    assert "Content-Length is 9" in shorter.notes[0]
    chunks = b"POST /x HTTP/2\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n"
    assert read_request(chunks).request.body == b"{}"
    joined = read_request(chunks.replace(b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n", b"{}"))
    assert (joined.request.body, len(joined.notes)) == (b"{}", 1)
    assert "gzip" in read_request(b"POST /x HTTP/1.1\r\ncontent-encoding: gzip\r\n\r\nx").notes[0]
    assert read_request(b"HEAD /x HTTP/1.1\r\n").request.method == "HEAD"


@pytest.mark.parametrize("raw", [b"", b"{}", b"POST /x", b"POST /x HTTP/1.1\r\nno header\r\n\r\n"])
def test_what_is_no_request_is_refused(raw: bytes) -> None:
    """It says how one looks."""
    with pytest.raises(ValueError, match=r"expected a line like|is not a header"):
        read_request(raw)


def test_rejections_that_need_no_cause_keep_their_advice() -> None:
    """There is always something to do."""
    double = replace(stripe(), headers=Headers([(b"stripe-signature", b"t=1,v1=a")] * 2))
    explained = explain(PROVIDERS["stripe"], double, [SECRET], NOW)
    assert isinstance(explained.verdict, Rejected)
    assert explained.verdict.reason is Reason.REPEATED_HEADER
    assert dict(explained.lines)["to do"] == Reason.REPEATED_HEADER.advice
    assert "(sent 2 times)" in dict(explained.lines)["header"]


def test_keys_are_not_in_the_way() -> None:
    """Only PayPal needs to be told whom to trust."""
    assert Keys("v", "s").trusted_by(PROVIDERS["stripe"]) is PROVIDERS["stripe"]
