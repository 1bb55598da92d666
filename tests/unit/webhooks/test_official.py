"""Agreement with the providers' own libraries on generated deliveries; each difference is named where it is excluded.

stripe-python has its own in ``test_stripe.py``. ``EXAMPLES=20000 pytest tests/unit/webhooks`` generates more cases.
"""

from __future__ import annotations

import base64
import json
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import svix.webhooks as svix
from hypothesis import given, settings
from hypothesis import strategies as st
from redsys import crypto
from slack_sdk import signature as slack
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from twilio import request_validator as twilio

from cauce.webhooks import PROVIDERS, Draft, Headers, Secret, Verified, WebhookRequest
from cauce.webhooks.redsys import Redsys
from cauce.webhooks.standard import MIN_KEY

if TYPE_CHECKING:
    from cauce.webhooks.redsys import Version

CASES = settings(max_examples=int(os.environ.get("EXAMPLES", "300")), deadline=None)
texts = st.text(st.characters(codec="utf-8"), max_size=100)
secrets = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=40)
keys = st.binary(min_size=MIN_KEY, max_size=64)
ages = st.sampled_from([-1000, -310, -290, 0, 290, 310, 1000])
spoils = st.sampled_from(["", "body", "id", "timestamp", "secret", "scheme"])


def ours(name: str, request: WebhookRequest, secret: str) -> bool:
    """Ask our verifier, with the clock that the libraries read by themselves."""
    return isinstance(PROVIDERS[name].verify(request, [Secret(secret)], time.time()), Verified)


# Differences: Standard Webhooks' library takes keys of any length, reads the timestamp with float(), so "1e9" and " 1"
# are good to it, decodes signatures leniently, and raises foreign exceptions on a signature without comma or on a body
# that is not UTF-8.
@CASES
@given(
    body=texts,
    key=keys,
    age=ages,
    spoil=spoils,
    prefix=st.sampled_from(["whsec_", ""]),
    listed=st.lists(st.sampled_from(["v1,AAAA", "v3,AAAA"]), max_size=3),
)
def test_agrees_with_standardwebhooks(  # noqa: PLR0913, PLR0917 - generated
    body: str, key: bytes, age: int, spoil: str, prefix: str, listed: list[str]
) -> None:
    """Same verdict on well-formed headers of any age, with several signatures, of v1 and of unknown schemes."""
    secret = prefix + base64.b64encode(key).decode()
    request = PROVIDERS["standard"].sign(Draft(body.encode()), Secret(secret), time.time() - age)
    headers = dict(request.headers)
    good = headers["webhook-signature"] if spoil != "scheme" else "v2," + headers["webhook-signature"][3:]
    headers["webhook-signature"] = " ".join([*listed, good])
    headers["webhook-id"] += "x" * (spoil == "id")
    headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) + (spoil == "timestamp"))
    body += "x" * (spoil == "body")
    secret = "whsec_" + base64.b64encode(key + b"x").decode() if spoil == "secret" else secret
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
        theirs = True
    except WebhookVerificationError:
        theirs = False
    assert ours("standard", WebhookRequest(body.encode(), Headers.of(headers)), secret) == theirs


@CASES
@given(body=texts, key=keys)
def test_verifies_what_standardwebhooks_signs(body: str, key: bytes) -> None:
    """The other way round: their signer, our verifier."""
    secret, moment = "whsec_" + base64.b64encode(key).decode(), datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": f"{int(moment.timestamp())}",
        "webhook-signature": Webhook(secret).sign("msg_1", moment, body),
    }
    assert ours("standard", WebhookRequest(body.encode(), Headers.of(headers)), secret)
    assert ours("openai", WebhookRequest(body.encode(), Headers.of(headers)), secret)


# Difference: svix's library parses the body as JSON and raises if it is not.
@CASES
@given(body=texts, key=keys, age=ages, spoil=spoils, family=st.sampled_from(["svix", "webhook"]))
def test_agrees_with_svix(body: str, key: bytes, age: int, spoil: str, family: str) -> None:
    """Same verdict as Svix's library, under both names of its headers."""
    secret, body = "whsec_" + base64.b64encode(key).decode(), json.dumps(body)
    request = PROVIDERS["svix"].sign(Draft(body.encode()), Secret(secret), time.time() - age)
    headers = {name.replace("webhook-", f"{family}-"): value for name, value in request.headers}
    headers[f"{family}-id"] += "x" * (spoil == "id")
    body += "x" * (spoil == "body")
    try:
        svix.Webhook(secret).verify(body, headers)
        theirs = True
    except svix.WebhookVerificationError:
        theirs = False
    assert ours("svix", WebhookRequest(body.encode(), Headers.of(headers)), secret) == theirs


# Differences: slack-sdk raises on a timestamp that is no number and on a signature that is not ASCII.
@CASES
@given(body=texts, secret=secrets, age=ages, spoil=spoils)
def test_agrees_with_slack_sdk(body: str, secret: str, age: int, spoil: str) -> None:
    """Same verdict on well-formed headers of any age."""
    request = PROVIDERS["slack"].sign(Draft(body.encode()), Secret(secret), time.time() - age)
    headers = dict(request.headers)
    stamp = "x-slack-request-timestamp"
    headers[stamp] = str(int(headers[stamp]) + (spoil == "timestamp"))
    if spoil == "scheme":
        headers["x-slack-signature"] = "v1" + headers["x-slack-signature"][2:]
    body += "x" * (spoil == "body")
    secret += "x" * (spoil == "secret")
    theirs = slack.SignatureVerifier(secret).is_valid_request(body.encode(), headers)
    assert ours("slack", WebhookRequest(body.encode(), Headers.of(headers)), secret) == theirs


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


# Differences: Twilio's library accepts an empty token, and a JSON body that no bodySHA256 covers if it is given as {}.
@CASES
@given(pairs=fields, secret=secrets, url=urls, seen=urls, spoil=spoils)
def test_agrees_with_twilio(pairs: list[tuple[str, str]], secret: str, url: str, seen: str, spoil: str) -> None:
    """Same verdict on forms with repeated fields, whatever port the URL has on either side."""

    class Form(dict[str, list[str]]):
        """A form as the library reads one."""

        def getlist(self, name: str) -> list[str]:
            """Return every value."""
            return self[name]

    form = Form()
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    validator = twilio.RequestValidator(secret)
    request = PROVIDERS["twilio"].sign(Draft(urlencode(pairs).encode(), url=url), Secret(secret), 0)
    signature = request.headers.get("x-twilio-signature") or ""
    assert signature == validator.compute_signature(url, form)
    if spoil == "body":
        form["Body"] = [*form.get("Body", []), "more"]
        pairs = [*pairs, ("Body", "more")]
    secret += "x" * (spoil == "secret")
    theirs = twilio.RequestValidator(secret).validate(seen, form, signature)
    headers = Headers.of({"X-Twilio-Signature": signature})
    assert ours("twilio", WebhookRequest(urlencode(pairs).encode(), headers, seen), secret) == theirs


@pytest.mark.parametrize("version", ["HMAC_SHA256_V1", "HMAC_SHA512_V1", "HMAC_SHA512_V2"])
def test_signs_as_python_redsys_does(version: Version) -> None:
    """The same text for any order and any parameters."""
    secret = base64.b64encode(b"123456789012345678901234").decode()

    @CASES
    @given(order=st.text("0123456789abcXYZ", min_size=1, max_size=20), note=texts)
    def check(order: str, note: str) -> None:
        signer = crypto.get_signer(secret, version)
        parameters = signer.encode_parameters({"Ds_Order": order, "Ds_Note": note}).decode()
        form = {
            "Ds_SignatureVersion": version,
            "Ds_MerchantParameters": parameters,
            "Ds_Signature": signer.sign(order, parameters.encode()).decode(),
        }
        request = WebhookRequest(urlencode(form).encode())
        assert isinstance(Redsys().verify(request, [Secret(secret)], 0), Verified)

    check()
