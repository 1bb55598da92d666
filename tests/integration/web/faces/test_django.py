"""Django: the patterns among its middleware, limits and transactions; conftest.py switches all of that on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import httpx
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import reverse

from tests.integration.web.conftest import Delivery, Sign
from tests.integration.web.faces.conftest import Place

STRIPE = "/api/webhooks/stripe"


def reads_body(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Read the body as a middleware that logs does, some of it twice."""

    def middleware(request: HttpRequest) -> HttpResponse:
        assert request.body
        request.read(3)
        return get_response(request)

    return middleware


def reads_form(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Read the form, which leaves nothing of a multipart body."""

    def middleware(request: HttpRequest) -> HttpResponse:
        assert request.POST is not None
        return get_response(request)

    return middleware


@pytest.fixture(autouse=True)
def _urls(place: Place, in_django: Callable[..., AbstractContextManager[None]]) -> Iterator[None]:
    """Route Django to the inbox."""
    with in_django(place):
        yield


def post(delivery: Delivery, content_type: str = "application/json") -> HttpResponse:
    """Deliver, with CSRF checks on."""
    signature = delivery.headers["stripe-signature"]
    client = Client(enforce_csrf_checks=True)
    return client.post(STRIPE, data=delivery.body, content_type=content_type, headers={"stripe-signature": signature})


def test_nothing_of_django_stands_in_the_way(signed: Sign) -> None:
    """No CSRF token, no login, no transaction on Django's database, no limit of ten bytes."""
    assert settings.DATA_UPLOAD_MAX_MEMORY_SIZE == 10
    answer = post(signed())
    assert (answer.status_code, answer.json()["duplicado"]) == (200, False)


def test_its_addresses_have_names() -> None:
    """For ``reverse``."""
    assert reverse("cauce_webhooks", kwargs={"origen": "stripe"}) == STRIPE
    assert reverse("cauce_procesar_lote") == "/api/trabajadores/procesar_lote"


@pytest.mark.parametrize("read", ["reads_body", "reads_form"])
def test_a_body_that_a_middleware_has_read(signed: Sign, read: str) -> None:
    """Django keeps it, so the signature is checked on the same bytes."""
    middleware = [f"{__name__}.{read}", *settings.MIDDLEWARE]
    with override_settings(MIDDLEWARE=middleware, DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        assert post(signed(), "application/x-www-form-urlencoded").status_code == 200


def test_a_body_that_a_middleware_has_read_on_asgi(
    signed: Sign, over_asgi: Callable[..., AbstractContextManager[str]]
) -> None:
    """There as well."""
    middleware, delivery = [f"{__name__}.reads_body", *settings.MIDDLEWARE], signed()
    with (
        override_settings(MIDDLEWARE=middleware, DATA_UPLOAD_MAX_MEMORY_SIZE=1000),
        over_asgi(ASGIHandler(), lifespan=False) as url,
    ):
        assert httpx.post(url + STRIPE, content=delivery.body, headers=delivery.headers).status_code == 200


def test_a_body_that_a_middleware_has_lost(signed: Sign, caplog: pytest.LogCaptureFixture) -> None:
    """500, and a log entry that explains the mistake; not a misleading bad signature."""
    body = b"--x--\r\n"
    delivery = signed(body=body.decode())
    middleware = [f"{__name__}.reads_form", *settings.MIDDLEWARE]
    with override_settings(MIDDLEWARE=middleware), caplog.at_level(logging.ERROR, "cauce.web"):
        answer = post(delivery, "multipart/form-data; boundary=x")
    assert (answer.status_code, answer.json()["error"]) == (500, "interno")
    assert "has not kept it" in str(caplog.records[0].exc_info)
