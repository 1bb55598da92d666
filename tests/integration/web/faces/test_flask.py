"""Flask: the blueprint among the application's own hooks and limits."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from flask import Flask, request, url_for

from cauce.web.flask import create_blueprint
from tests.integration.web.conftest import Sign
from tests.integration.web.faces.conftest import Place

STRIPE = "/api/webhooks/stripe"


@pytest.fixture
def app(place: Place) -> Flask:
    """An application with the inbox in it."""
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(place.bus, place.settings, secrets=place.secrets))
    return app


def test_its_addresses_have_names(app: Flask) -> None:
    """As a blueprint's have."""
    with app.test_request_context():
        assert url_for("cauce.webhooks", origen="stripe") == STRIPE
        assert url_for("cauce.procesar_lote") == "/api/trabajadores/procesar_lote"


def test_a_body_that_a_hook_has_read(app: Flask, signed: Sign) -> None:
    """``get_data`` keeps it, so the signature is checked on the same bytes."""
    app.before_request(lambda: (request.get_data(), None)[1])
    delivery = signed()
    answer = app.test_client().post(STRIPE, data=delivery.body, headers=delivery.headers)
    assert (answer.status_code, answer.get_json()["duplicado"]) == (200, False)


@pytest.mark.parametrize(
    "hook",
    [lambda: (request.form, None)[1], lambda: (request.get_data(cache=False), None)[1]],
    ids=["form", "no cache"],
)
def test_a_body_that_a_hook_has_lost(
    app: Flask, signed: Sign, caplog: pytest.LogCaptureFixture, hook: Callable[[], None]
) -> None:
    """500, and a log entry that explains the mistake; not a misleading bad signature."""
    app.before_request(hook)
    delivery = signed()
    headers = {**delivery.headers, "content-type": "application/x-www-form-urlencoded"}
    with caplog.at_level(logging.ERROR, "cauce.web"):
        answer = app.test_client().post(STRIPE, data=delivery.body, headers=headers)
    assert (answer.status_code, answer.get_json()["error"]) == (500, "interno")
    assert "has not kept it" in str(caplog.records[0].exc_info)


def test_the_limit_is_the_inboxs(app: Flask, signed: Sign) -> None:
    """``MAX_CONTENT_LENGTH`` is about the application's uploads."""
    app.config["MAX_CONTENT_LENGTH"] = 10
    delivery = signed()
    assert app.test_client().post(STRIPE, data=delivery.body, headers=delivery.headers).status_code == 200


def test_an_unknown_method_is_the_frameworks(app: Flask) -> None:
    """A method that HTTP does not know never comes to the inbox; OPTIONS does, and is not answered by Flask."""
    client = app.test_client()
    assert client.open(STRIPE, method="BREW").status_code == 405
    assert client.open(STRIPE, method="OPTIONS").headers["allow"] == "POST"
