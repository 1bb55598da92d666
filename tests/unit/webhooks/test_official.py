"""Agreement with the providers' own libraries on generated deliveries, valid and attacked; and where they differ.

Each check runs on some cases in the suite (``EXAMPLES=20000 pytest tests/unit/webhooks`` generates more of them) and on
ten thousand in ``make soak``. What is left out of the generated cases is a difference, and each of those has a line in
one of the tests below that are named for them: both verdicts are asserted, so a library that changes its mind shows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlencode

import pytest
import stripe
import svix.webhooks as svix
from hypothesis import given, settings
from hypothesis import strategies as st
from redsys import crypto
from redsys.clients import RedirectClient
from slack_sdk import signature as slack
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from twilio import request_validator as twilio

from cauce.webhooks import PROVIDERS, Draft, Headers, Secret, Verified, WebhookRequest
from cauce.webhooks.limits import MAX_SIGNATURES
from cauce.webhooks.providers.redsys import Redsys
from cauce.webhooks.providers.standard import MIN_KEY
from cauce.webhooks.providers.twilio import Twilio

SUITE: Final = int(os.environ.get("EXAMPLES", "200"))
"""Cases of each check in the suite."""
SOAK: Final = 10_000
"""Cases of each check in `make soak`."""

Check: TypeAlias = Callable[..., None]

texts = st.text(st.characters(codec="utf-8"), max_size=100)
secrets = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=40)
keys = st.binary(min_size=MIN_KEY, max_size=64)
ages = st.just(0) | st.sampled_from([-1000, -310, -290, 0, 290, 310, 1000])
places = st.integers(0, 30)
"""Of a letter in a signature. All have more, and the last ones of base64 may say nothing."""


def cases(**strategies: st.SearchStrategy[Any]) -> Callable[[Check], Check]:
    """Make a test of a check of generated values."""

    def decorate(check: Check) -> Check:
        @pytest.mark.parametrize("examples", [SUITE, pytest.param(SOAK, marks=pytest.mark.soak)])
        def test(examples: int) -> None:
            settings(max_examples=examples, deadline=None)(given(**strategies)(check))()

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def spoils(*more: str) -> st.SearchStrategy[str]:
    """Choose what is spoiled: nothing, half of the time."""
    return st.just("") | st.sampled_from(["body", "secret", "signature", *more])


def ours(name: str, request: WebhookRequest, secret: str) -> bool:
    """Ask our verifier, with the clock that the libraries read by themselves."""
    return isinstance(PROVIDERS[name].verify(request, [Secret(secret)], time.time()), Verified)


def request_of(body: str | bytes, headers: dict[str, str], url: str = "") -> WebhookRequest:
    """Make a request of what a library takes."""
    return WebhookRequest(body.encode() if isinstance(body, str) else body, Headers.of(headers), url)


def tampered(text: str, place: int) -> str:
    """Change one letter or digit."""
    spots = [index for index, letter in enumerate(text) if letter.isalnum()]
    place = spots[place % len(spots)]
    return text[:place] + ("b" if text[place] != "b" else "c") + text[place + 1 :]


# --- Stripe -----------------------------------------------------------------------------------------------------------


def stripe_says(body: str | bytes, header: str, secret: str, tolerance: int = 300) -> bool:
    """Ask stripe-python."""
    try:
        stripe.WebhookSignature.verify_header(body, header, secret, tolerance)
    except stripe.SignatureVerificationError:
        return False
    return True


@cases(
    payload=st.text(st.characters(codec="utf-8"), max_size=200),
    secret=st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=40),
    age=st.just(0) | st.sampled_from([0, 290, 310, 1000]),
    listed=st.lists(
        st.tuples(
            st.sampled_from(["v1", "v1", "v0", "v2"]),
            st.sampled_from(["good", "good", "other", "upper", "cut", "zeros", "empty", "tampered"]),
        ),
        max_size=4,
    ),
    spoil=spoils("timestamp"),
    place=places,
    shuffled=st.booleans(),
)
def test_agrees_with_stripe(
    payload: str, secret: str, age: int, listed: list[tuple[str, str]], spoil: str, place: int, *, shuffled: bool
) -> None:
    """Same verdict on well-formed headers of any age in the past, with signatures of any scheme, good and bad."""
    stamp = int(time.time()) - age
    good = stripe.WebhookSignature._compute_signature(f"{stamp}.{payload}", secret)
    other = stripe.WebhookSignature._compute_signature(f"{stamp}.{payload}", secret + "x")
    made = {"good": good, "other": other, "upper": good.upper(), "cut": good[:-1], "zeros": "0" * 64, "empty": ""}
    made["tampered"] = tampered(good, place)
    parts = [f"t={stamp + (spoil == 'timestamp')}", *(f"{scheme}={made[which]}" for scheme, which in listed)]
    header = ",".join(reversed(parts) if shuffled else parts)
    payload += "x" * (spoil == "body")
    secret += "x" * (spoil == "secret")
    request = request_of(payload, {"stripe-signature": tampered(header, place) if spoil == "signature" else header})
    theirs = stripe_says(payload, request.headers.get("stripe-signature") or "", secret)
    assert ours("stripe", request, secret) == theirs


def test_differences_to_stripe() -> None:
    """The future, strange numbers, two timestamps and hundreds of signatures are good to it, and not to us."""
    now, body, secret = int(time.time()), '{"id": "evt_1"}', "whsec_1"

    def both(header: str, content: str | bytes = body, key: str = secret) -> tuple[bool, bool]:
        request = request_of(content, {"stripe-signature": header})
        return stripe_says(content, header, key), ours("stripe", request, key)

    def made(stamp: int, key: str = secret) -> str:
        return str(stripe.WebhookSignature.generate_signature_header(body, key, stamp))

    good = made(now)
    assert both(good) == (True, True)
    assert both(made(now + 10_000)) == (True, False)
    for written in (f" {now}", f"+{now}", f"{now:_}", f"0{'0' * 12}{now}"):
        assert both(good.replace(f"t={now}", f"t={written}")) == (True, False), written
    assert both(f"{good},t=1") == (True, False)
    assert both("v1=00," * MAX_SIGNATURES + good) == (True, False)
    # tolerance=0 switches staleness off there; here such a provider cannot be made
    assert stripe_says(body, made(1), secret, tolerance=0)
    # what we take and it does not: spaces behind commas, a secret that was copied with white space around it
    assert both(good.replace(",", ", ")) == (False, True)
    assert both(good, key=f" {secret}\n") == (False, True)
    # and it raises an exception of Python's on a body that is not UTF-8, which we verify as the bytes it is
    with pytest.raises(UnicodeDecodeError):
        both(good, b"\xff")


# --- Standard Webhooks, and Svix -------------------------------------------------------------------------------------


def standard_says(body: str | bytes, headers: dict[str, str], secret: str) -> bool:
    """Ask standardwebhooks."""
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def svix_says(body: str | bytes, headers: dict[str, str], secret: str) -> bool:
    """Ask svix."""
    try:
        svix.Webhook(secret).verify(body, headers)
    except svix.WebhookVerificationError:
        return False
    return True


def attacked_standard(
    body: str, secret: str, age: int, spoil: str, place: int, listed: list[str]
) -> tuple[str, dict[str, str]]:
    """Sign, then spoil; return body and headers."""
    request = PROVIDERS["standard"].sign(Draft(body.encode()), Secret(secret), time.time() - age)
    headers = dict(request.headers)
    signature = headers["webhook-signature"]
    if spoil == "scheme":
        signature = "v2" + signature[2:]
    elif spoil == "signature":
        signature = signature[:3] + tampered(signature[3:], place)
    headers["webhook-signature"] = " ".join([*listed, signature])
    headers["webhook-id"] += "x" * (spoil == "id")
    headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) + (spoil == "timestamp"))
    if spoil.startswith("no "):
        del headers[spoil.removeprefix("no ")]
    return body + "x" * (spoil == "body"), headers


standard_cases: dict[str, st.SearchStrategy[Any]] = {
    "body": texts,
    "key": keys,
    "age": ages,
    "spoil": spoils("id", "timestamp", "scheme", "no webhook-id", "no webhook-timestamp", "no webhook-signature"),
    "place": places,
    "listed": st.lists(st.sampled_from(["v1,AAAA", "v3,AAAA", "v1a,AAAA"]), max_size=3),
}


@cases(**standard_cases, prefix=st.sampled_from(["whsec_", ""]))
def test_agrees_with_standardwebhooks(
    body: str, key: bytes, age: int, spoil: str, place: int, listed: list[str], prefix: str
) -> None:
    """Same verdict on well-formed headers of any age, with several signatures, of v1 and of unknown schemes."""
    secret = prefix + base64.b64encode(key).decode()
    body, headers = attacked_standard(body, secret, age, spoil, place, listed)
    secret = "whsec_" + base64.b64encode(key + b"x").decode() if spoil == "secret" else secret
    assert ours("standard", request_of(body, headers), secret) == standard_says(body, headers, secret)


@cases(**standard_cases, family=st.sampled_from(["svix", "webhook"]))
def test_agrees_with_svix(
    body: str, key: bytes, age: int, spoil: str, place: int, listed: list[str], family: str
) -> None:
    """Same verdict as Svix's library, under both names of its headers."""
    secret = "whsec_" + base64.b64encode(key).decode()
    body, headers = attacked_standard(body, secret, age, spoil, place, listed)
    headers = {name.replace("webhook-", f"{family}-"): value for name, value in headers.items()}
    secret = "whsec_" + base64.b64encode(key + b"x").decode() if spoil == "secret" else secret
    assert ours("svix", request_of(body, headers), secret) == svix_says(body, headers, secret)


@cases(body=texts, key=keys, name=st.sampled_from(["standard", "openai", "svix"]))
def test_verifies_what_standardwebhooks_and_svix_sign(body: str, key: bytes, name: str) -> None:
    """The other way round: their signers, our verifier."""
    secret, moment = "whsec_" + base64.b64encode(key).decode(), datetime.now(UTC)
    signer = svix.Webhook(secret) if name == "svix" else Webhook(secret)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": f"{int(moment.timestamp())}",
        "webhook-signature": signer.sign("msg_1", moment, body),
    }
    assert ours(name, request_of(body, headers), secret)


def test_differences_to_standardwebhooks() -> None:
    """It reads numbers and base64 leniently, and takes ids with dots, short keys and any number of signatures."""
    now, secret, body = int(time.time()), "whsec_" + base64.b64encode(b"k" * 24).decode(), "{}"

    def made(key: str = secret, name: str = "msg_1") -> dict[str, str]:
        signature = Webhook(key).sign(name, datetime.fromtimestamp(now, UTC), body)
        return {"webhook-id": name, "webhook-timestamp": f"{now}", "webhook-signature": signature}

    def both(key: str = secret, content: str | bytes = body, **changed: str) -> tuple[bool, bool]:
        headers = made(key) | {f"webhook-{name}": value for name, value in changed.items()}
        return standard_says(content, headers, key), ours("standard", request_of(content, headers), key)

    good = made()["webhook-signature"]
    assert both() == (True, True)
    # the signature is made over the whole seconds, so these are all one timestamp to it
    for written in (f"{now}.9", f"+{now}", f"{now:_}", f"{now}e0"):
        assert both(timestamp=written) == (True, False), written
    assert both(signature=good[:10] + "!" + good[10:]) == (True, False)
    assert both(signature="v1,AAAA " * MAX_SIGNATURES + good) == (True, False)
    dotted = made(name="msg.1")
    assert both(id="msg.1", signature=dotted["webhook-signature"]) == (True, False)
    assert both("whsec_" + base64.b64encode(b"k" * (MIN_KEY - 1)).decode()) == (True, False)
    # and it raises exceptions of Python's where we have a verdict: no comma, no UTF-8, a secret copied with a space
    with pytest.raises(ValueError, match="unpack"):
        both(signature=f"nothing {good}")
    with pytest.raises(UnicodeDecodeError):
        both(content=b"\xff")
    with pytest.raises(ValueError, match="base64"):
        standard_says(body, made(), f" {secret}")
    assert ours("standard", request_of(body, made() | {"webhook-signature": f"nothing {good}"}), f" {secret}")


def test_differences_to_svix() -> None:
    """It takes each header from whichever family has it; we take a family as a whole."""
    moment, secret = datetime.now(UTC), "whsec_" + base64.b64encode(b"k" * 24).decode()
    stamp, signature = f"{int(moment.timestamp())}", svix.Webhook(secret).sign("msg_1", moment, "{}")
    mixed = {"webhook-id": "msg_1", "svix-timestamp": stamp, "svix-signature": signature}
    whole = {"svix-id": "msg_1", "svix-timestamp": stamp, "svix-signature": signature}
    assert [svix_says("{}", headers, secret) for headers in (mixed, whole)] == [True, True]
    assert [ours("svix", request_of("{}", headers), secret) for headers in (mixed, whole)] == [False, True]


# --- Slack ------------------------------------------------------------------------------------------------------------


@cases(
    body=texts,
    secret=secrets,
    age=ages,
    spoil=spoils("timestamp", "scheme", "no x-slack-signature", "no x-slack-request-timestamp"),
    place=places,
)
def test_agrees_with_slack_sdk(body: str, secret: str, age: int, spoil: str, place: int) -> None:
    """Same verdict on well-formed headers of any age."""
    request = PROVIDERS["slack"].sign(Draft(body.encode()), Secret(secret), time.time() - age)
    headers = dict(request.headers)
    stamp, signature = headers["x-slack-request-timestamp"], headers["x-slack-signature"]
    headers["x-slack-request-timestamp"] = str(int(stamp) + (spoil == "timestamp"))
    if spoil == "scheme":
        headers["x-slack-signature"] = "v1" + signature[2:]
    elif spoil == "signature":
        headers["x-slack-signature"] = signature[:3] + tampered(signature[3:], place)
    elif spoil.startswith("no "):
        del headers[spoil.removeprefix("no ")]
    body += "x" * (spoil == "body")
    secret += "x" * (spoil == "secret")
    theirs = slack.SignatureVerifier(secret).is_valid_request(body.encode(), headers)
    assert ours("slack", request_of(body, headers), secret) == theirs


@cases(body=texts, secret=secrets)
def test_verifies_what_slack_sdk_signs(body: str, secret: str) -> None:
    """The other way round."""
    stamp = f"{int(time.time())}"
    signature = slack.SignatureVerifier(secret).generate_signature(timestamp=stamp, body=body) or ""
    assert ours("slack", request_of(body, {"x-slack-request-timestamp": stamp, "x-slack-signature": signature}), secret)


def test_differences_to_slack_sdk() -> None:
    """It reads the timestamp as int() does, and raises on what is no number, no ASCII, no UTF-8."""
    now, secret = int(time.time()), "s3cret"
    verifier = slack.SignatureVerifier(secret)

    def both(stamp: str, body: bytes = b"{}", signature: str | None = None, key: str = secret) -> tuple[bool, bool]:
        signature = signature or verifier.generate_signature(timestamp=stamp, body="{}") or ""
        headers = {"x-slack-request-timestamp": stamp, "x-slack-signature": signature}
        theirs = slack.SignatureVerifier(key).is_valid_request(body, headers)
        return theirs, ours("slack", request_of(body, headers), key)

    assert both(f"{now}") == (True, True)
    for written in (f"+{now}", f"{now:_}", f"0{'0' * 12}{now}"):
        assert both(written) == (True, False), written
    # what we take and it does not: a secret that was copied with white space around it
    assert both(f"{now}", key=f" {secret}\n") == (False, True)
    with pytest.raises(ValueError, match="invalid literal"):
        both("soon")
    with pytest.raises(TypeError):
        both(f"{now}", signature="v0=\xe9")
    with pytest.raises(UnicodeDecodeError):
        both(f"{now}", body=b"\xff")


# --- Twilio -----------------------------------------------------------------------------------------------------------

fields = st.lists(st.tuples(st.sampled_from(["A", "AB", "Body", "To", "b"]), texts), min_size=1, max_size=6)
urls = st.sampled_from(
    [
        "https://a.example/x?y=1",
        "https://a.example:443/x",
        "https://a.example:8443/x?y",
        "http://a.example/",
        "http://a:80/",
    ]
)
algorithms = st.sampled_from(["sha1", "sha256"])


class Form(dict[str, list[str]]):
    """A form as Twilio's library reads one."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in pairs:
            self.setdefault(name, []).append(value)

    def getlist(self, name: str) -> list[str]:
        """Return every value."""
        return self[name]


def twilio_of(request: WebhookRequest, secret: str, digest: str = "sha1") -> bool:
    """Ask our verifier."""
    provider = Twilio(digest="sha256") if digest == "sha256" else Twilio()
    return isinstance(provider.verify(request, [Secret(secret)], 0), Verified)


@cases(
    pairs=fields,
    secret=secrets,
    url=urls,
    seen=urls,
    same=st.booleans(),
    spoil=spoils(),
    place=places,
    digest=algorithms,
)
def test_agrees_with_twilio(
    pairs: list[tuple[str, str]], secret: str, url: str, seen: str, spoil: str, place: int, digest: str, *, same: bool
) -> None:
    """Same signature and same verdict on forms with repeated fields, whatever port the URL has on either side."""
    algorithm = f"HMAC_{digest.upper()}"
    provider = Twilio(digest="sha256") if digest == "sha256" else Twilio()
    request = provider.sign(Draft(urlencode(pairs).encode(), url=url), Secret(secret), 0)
    signature = request.headers.get("x-twilio-signature") or ""
    assert signature == twilio.RequestValidator(secret).compute_signature(url, Form(pairs), algorithm)
    seen = url if same else seen
    pairs = [*pairs, ("Body", "more")] if spoil == "body" else pairs
    secret += "x" * (spoil == "secret")
    signature = tampered(signature, place) if spoil == "signature" else signature
    theirs = twilio.RequestValidator(secret).validate(seen, Form(pairs), signature, algorithm)
    request = request_of(urlencode(pairs), {"X-Twilio-Signature": signature}, seen)
    assert twilio_of(request, secret, digest) == theirs


@cases(
    value=st.dictionaries(texts, texts, max_size=3) | st.lists(texts, max_size=3),
    secret=secrets,
    url=urls,
    spoil=spoils("hash"),
    place=places,
)
def test_agrees_with_twilio_on_json(value: object, secret: str, url: str, spoil: str, place: int) -> None:
    """Same verdict on JSON bodies that a hash in the URL covers."""
    body = json.dumps(value)
    request = PROVIDERS["twilio"].sign(Draft(body.encode(), url=url), Secret(secret), 0)
    signature, seen = request.headers.get("x-twilio-signature") or "", request.url
    body += " " * (spoil == "body")
    secret += "x" * (spoil == "secret")
    signature = tampered(signature, place) if spoil == "signature" else signature
    if spoil == "hash":  # of a body that somebody else would like
        seen = seen.partition("bodySHA256=")[0] + "bodySHA256=" + hashlib.sha256(body.encode()).hexdigest()[::-1]
    theirs = twilio.RequestValidator(secret).validate(seen, body, signature)
    assert twilio_of(request_of(body, {"X-Twilio-Signature": signature}, seen), secret) == theirs


def test_differences_to_twilio() -> None:
    """It takes an empty token, JSON that nothing covers, and the first of two hashes."""
    url, body = "https://a.example/x", '{"a": 1}'
    covered = f"{url}?bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"

    def both(seen: str, content: str, params: object, secret: str = "s") -> tuple[bool, bool]:
        validator = twilio.RequestValidator(secret)
        signature = validator.compute_signature(seen, {} if isinstance(params, str) else params)
        request = request_of(content, {"X-Twilio-Signature": signature}, seen)
        return validator.validate(seen, params, signature), twilio_of(request, secret)

    assert both(covered, body, body) == (True, True)
    assert both(url, "A=1", {"A": "1"}) == (True, True)
    assert both(url, "A=1", {"A": "1"}, secret="") == (True, False)
    assert both(url, body, {}) == (True, False)
    assert both(f"{covered}&bodySHA256=0", body, body) == (True, False)


# --- Redsys -----------------------------------------------------------------------------------------------------------


def redsys_says(form: dict[str, str], secret: str) -> bool:
    """Ask python-redsys."""
    try:
        RedirectClient(secret).parse_response(form)
    except ValueError:
        return False
    return True


def redsys_of(form: dict[str, str], secret: str) -> bool:
    """Ask our verifier."""
    request = WebhookRequest(urlencode(form).encode())
    return isinstance(Redsys().verify(request, [Secret(secret)], 0), Verified)


def redsys_form(version: str, secret: str, parameters: dict[str, str]) -> dict[str, str]:
    """Sign with python-redsys."""
    signer = crypto.get_signer(secret, version)
    encoded = signer.encode_parameters(parameters)
    return {
        "Ds_SignatureVersion": version,
        "Ds_MerchantParameters": encoded.decode(),
        "Ds_Signature": signer.sign(parameters.get("Ds_Order", ""), encoded).decode(),
    }


@cases(
    version=st.sampled_from(["HMAC_SHA256_V1", "HMAC_SHA512_V1", "HMAC_SHA512_V2"]),
    key=st.binary(min_size=24, max_size=24),
    order=st.text("0123456789abcXYZ", min_size=1, max_size=20),
    note=texts,
    spoil=spoils("version", "unknown version", "order"),
    place=places,
)
def test_agrees_with_python_redsys(version: str, key: bytes, order: str, note: str, spoil: str, place: int) -> None:
    """Same verdict on what it signs, for any order, parameters and version, and on what was changed afterwards."""
    secret = base64.b64encode(key).decode()
    form = redsys_form(version, secret, {"Ds_Order": order, "Ds_Note": note})
    other = redsys_form(version, secret, {"Ds_Order": order + "1" * (spoil == "order"), "Ds_Note": note + "x"})
    if spoil in ("body", "order"):
        form["Ds_MerchantParameters"] = other["Ds_MerchantParameters"]
    elif spoil == "signature":
        form["Ds_Signature"] = tampered(form["Ds_Signature"], place)
    elif spoil == "version":
        form["Ds_SignatureVersion"] = "HMAC_SHA256_V1" if version != "HMAC_SHA256_V1" else "HMAC_SHA512_V2"
    elif spoil == "unknown version":
        form["Ds_SignatureVersion"] = "HMAC_SHA1_V1"
    elif spoil == "secret":
        secret = base64.b64encode(bytes([key[0] ^ 255]) + key[1:]).decode()
    assert redsys_of(form, secret) == redsys_says(form, secret)
    assert redsys_of(form, secret) == (not spoil)


@cases(order=st.text("0123456789abcXYZ", min_size=1, max_size=20), note=texts, key=st.binary(min_size=24, max_size=24))
def test_python_redsys_verifies_what_we_sign(order: str, note: str, key: bytes) -> None:
    """The other way round."""
    secret = base64.b64encode(key).decode()
    body = json.dumps({"Ds_Order": order, "Ds_Note": note}).encode()
    form = dict(parse_qsl(Redsys().sign(Draft(body), Secret(secret), 0).body.decode()))
    assert redsys_says(form, secret)


def test_differences_to_python_redsys() -> None:
    """It assumes a version, and compares letters and digits alone; we compare bytes, however they are written."""
    secret = base64.b64encode(b"123456789012345678901234").decode()
    form = redsys_form("HMAC_SHA512_V2", secret, {"Ds_Order": "1234"})
    assert (redsys_says(form, secret), redsys_of(form, secret)) == (True, True)
    silent = {name: value for name, value in form.items() if name != "Ds_SignatureVersion"}
    assert (redsys_says(silent, secret), redsys_of(silent, secret)) == (True, False)
    strewn = form | {"Ds_Signature": "_-" + form["Ds_Signature"]}
    assert (redsys_says(strewn, secret), redsys_of(strewn, secret)) == (True, False)
    # what we take and it does not: the last character of 64 bytes in base64 has four bits that say nothing
    signature = form["Ds_Signature"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    idle = form | {"Ds_Signature": signature[:-1] + alphabet[alphabet.index(signature[-1]) + 1]}
    assert (redsys_says(idle, secret), redsys_of(idle, secret)) == (False, True)
