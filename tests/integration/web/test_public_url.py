"""Behind a proxy: providers that sign the address sign the public one, and the settings say which that is."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import urlencode

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from twilio.request_validator import RequestValidator

from tests.integration.web.conftest import Inbox

PUBLIC: Final = "https://hooks.example.com"
TOKEN: Final = "12345"
KEY: Final = "square's"
FORM: Final = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": "+1 8005551212", "Empty": ""}
FORGED: Final = {"x-forwarded-host": "hooks.example.com", "x-forwarded-proto": "https", "forwarded": "proto=https"}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets of both providers."""
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("SQUARE_WEBHOOK_SIGNATURE_KEY", KEY)


def by_twilio(url: str) -> tuple[bytes, dict[str, str]]:
    """Sign as Twilio's own library does."""
    signature: str = RequestValidator(TOKEN).compute_signature(url, FORM)
    content_type = "application/x-www-form-urlencoded"
    return urlencode(FORM).encode(), {"x-twilio-signature": signature, "content-type": content_type}


def by_square(url: str) -> tuple[bytes, dict[str, str]]:
    """Sign as Square's page says: HMAC-SHA256 over address and body, in base64."""
    body = b'{"event_id": "sq_1", "type": "payment.created"}'
    signature = base64.b64encode(hmac.digest(KEY.encode(), url.encode() + body, hashlib.sha256)).decode()
    return body, {"x-square-hmacsha256-signature": signature}


SIGN: Final = {"twilio": by_twilio, "square": by_square}


def post(inbox: Inbox, origen: str, signed: str, called: str, **headers: str) -> httpx.Response:
    """Sign an address, and call another."""
    body, its = SIGN[origen](signed)
    return inbox.request("POST", called, content=body, headers={**its, **headers})


@pytest.mark.parametrize("origen", SIGN)
@pytest.mark.parametrize("query", ["", "?tienda=a%20b&n=(1)"])
@pytest.mark.parametrize("prefix", ["", "/cauce", "/a%20b/c"])
def test_the_public_address_is_what_is_verified(inbox: Inbox, origen: str, query: str, prefix: str) -> None:
    """Prefix and query included, letter for letter, while the proxy calls an address of its own."""
    inbox.configure(public_url=PUBLIC + prefix + "/")
    inside = f"/api/webhooks/{origen}{query}"
    answer = post(inbox, origen, PUBLIC + prefix + inside, inside)
    assert (answer.status_code, answer.json()["duplicado"]) == (200, False)
    assert [evento["origen"] for evento in inbox.events()] == [origen]


@pytest.mark.parametrize("origen", SIGN)
def test_a_mount_is_part_of_the_public_address_or_not(inbox: Inbox, origen: str) -> None:
    """The proxy may pass on the mount's path, or put it there itself: what counts is what the sender has."""
    inbox.configure(public_url=f"{PUBLIC}/fuera")
    inbox.app = Starlette(routes=[Mount("/dentro", inbox.app)], lifespan=inbox.app.router.lifespan_context)
    inside = f"/dentro/api/webhooks/{origen}"
    assert post(inbox, origen, f"{PUBLIC}/fuera/api/webhooks/{origen}", inside).status_code == 200
    assert post(inbox, origen, PUBLIC + inside, inside).status_code == 400


@pytest.mark.parametrize("origen", SIGN)
def test_without_the_setting_the_address_is_the_one_that_was_called(inbox: Inbox, origen: str) -> None:
    """And no header changes that: the delivery is refused, and the answer says what the two addresses are."""
    inside = f"/api/webhooks/{origen}"
    answer = post(inbox, origen, PUBLIC + inside, inside, host="hooks.example.com", **FORGED)
    assert answer.status_code == 400
    assert answer.json()["detalle"] == (
        f"url_mismatch: the provider signed {PUBLIC}{inside}, and here the URL is http://hooks.example.com{inside}"
    )
    assert post(inbox, origen, PUBLIC + inside, inside, **FORGED).json()["error"] == "firma_invalida"
    assert post(inbox, origen, f"http://test{inside}", inside, **FORGED).status_code == 200


@pytest.mark.parametrize("origen", SIGN)
def test_with_the_setting_no_other_address_is_accepted(inbox: Inbox, origen: str) -> None:
    """Neither the one inside, nor another path, nor another query, nor another host in any header."""
    inbox.configure(public_url=PUBLIC)
    inside = f"/api/webhooks/{origen}"
    for signed in (f"http://test{inside}", f"https://evil.example{inside}", f"{PUBLIC}{inside}?a=1", PUBLIC):
        answer = post(inbox, origen, signed, inside, **{**FORGED, "x-forwarded-host": "evil.example"})
        assert answer.status_code == 400
    assert inbox.events() == []
