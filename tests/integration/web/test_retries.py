"""A 5xx makes a sender try again: it is answered when that can help, and never when it cannot."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from cauce.web import ErrorCode
from cauce.webhooks import PROVIDERS, Draft, Outcome, Reason, Rejected, Secret, Verdict, WebhookRequest
from cauce.webhooks.limits import MAX_JSON_DEPTH
from cauce.webhooks.signing import HmacProvider
from tests.integration.web.conftest import Inbox, Sign

OURS = {Reason.EMPTY_SECRET, Reason.MALFORMED_SECRET, Reason.UNAVAILABLE}
"""The reasons that somebody here can take away, while the same delivery stays good."""


@dataclass(frozen=True, kw_only=True)
class Refusing(HmacProvider):
    """Refuses everything, for one reason."""

    origen: str = "acme"
    secret_setting: str = "ACME_SECRET"
    header: str = "x-acme"
    reason: Reason = Reason.STALE

    def verify(self, request: WebhookRequest, secrets: Sequence[Secret], now: float) -> Verdict:  # noqa: ARG002 - refused unseen
        """Refuse."""
        return Rejected(self.reason, "as asked")


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_a_5xx_only_when_a_retry_can_help(inbox: Inbox, reason: Reason) -> None:
    """Faults of the request are a 400; faults here can be corrected, and are a 503."""
    inbox.configure(providers=[Refusing(reason=reason)])
    answer = inbox.request("POST", "/api/webhooks/acme", content=b"{}")
    assert answer.status_code == (503 if reason in OURS else 400)
    assert reason.is_ours == (reason in OURS)


@pytest.mark.parametrize("origen", PROVIDERS)
def test_no_provider_answers_a_refusal_with_a_5xx(origen: str) -> None:
    """In whatever manner it answers, and never a fault of ours with anything else."""
    refused, fault = (PROVIDERS[origen].respond(outcome) for outcome in (Outcome.REJECTED, Outcome.UNAVAILABLE))
    assert refused is None or 400 <= refused.status < 500
    assert fault is None or fault.status >= 500


def test_the_codes_that_ask_for_a_retry() -> None:
    """Each of them is about this installation; all the others are about the request."""
    assert {code.value for code in ErrorCode if code.status >= 500} == {
        "demasiadas_conexiones",
        "interno",
        "sin_secreto",
        "verificacion_no_disponible",
        "base_de_datos_no_disponible",
        "base_de_datos_restaurada",
        "esquema_anticuado",
    }


@pytest.mark.parametrize(
    "body",
    [
        "{",
        '{"id": "evt_1", "text": "\\u0000"}',
        '{"id": "evt_1", "a": ' + "[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH + "}",
        '{"id": "evt_1", "n": 1' + "0" * 200_000 + "}",
    ],
    ids=["broken", "nul", "too deep", "too long a number"],
)
def test_what_can_never_be_stored_is_not_asked_for_again(inbox: Inbox, signed: Sign, body: str) -> None:
    """It is signed, so it is kept raw, in error, and answered 200: a retry would bring the same bytes."""
    assert inbox.deliver(signed(body=body)).status_code == 200
    (evento,) = inbox.events()
    assert (evento["estado"], evento["payload"], bytes(evento["cuerpo"])) == ("error", None, body.encode())


def test_a_retry_after_the_secret_is_set_is_stored(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same delivery: 503 without a secret, and with one that cannot be read; then 200."""
    event = json.dumps({"type": "event_callback", "event_id": "Ev1"}).encode()
    request = PROVIDERS["slack"].sign(Draft(event), Secret("slack's"), time.time())
    statuses: list[int] = []
    for held in (None, "slack's;until=never", "slack's;until=2020-01-01T00:00:00Z,other", "slack's"):
        if held is not None:
            monkeypatch.setenv("SLACK_SIGNING_SECRET", held)
        answer = inbox.request("POST", "/api/webhooks/slack", content=request.body, headers=dict(request.headers))
        statuses.append(answer.status_code)
    assert statuses == [503, 503, 400, 200]
