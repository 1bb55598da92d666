"""What is kept of a refused delivery: enough to verify it again, nothing that is a secret, and no more than so much."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from cauce.database import quarantine
from cauce.database.quarantine import FullRejected
from cauce.webhooks import PROVIDERS, Headers, Provider, Reason, Rejected, Secret, Verified, WebhookRequest
from cauce.webhooks.signing import HmacProvider
from cauce.webhooks.trying.keys import Keys, new_keys
from cauce.webhooks.trying.samples import samples_of

NOW: Final = 1_764_000_000.0
KEYS: Final[dict[str, Keys]] = {origen: new_keys(provider, NOW) for origen, provider in PROVIDERS.items()}
URL: Final = "https://example.com/api/webhooks/x?topic=a"
STRANGE: Final = {
    "authorization": "Basic c2VjcmV0",
    "cookie": "c=secret",
    "x-api-key": "secret",
    "user-agent": "Them/1",
}


def delivery(origen: str) -> tuple[Provider, WebhookRequest]:
    """A good delivery of a provider, with headers that are none of its business."""
    provider = KEYS[origen].trusted_by(PROVIDERS[origen])
    sample = next(iter(samples_of(origen).values()))
    request = provider.sign(sample.draft(provider, URL, "0123456789abcdef" * 2, NOW), Secret(KEYS[origen].sign), NOW)
    return provider, with_headers(request, STRANGE)


def with_headers(request: WebhookRequest, more: dict[str, str]) -> WebhookRequest:
    """The request, with more headers."""
    return replace(request, headers=Headers.of({**dict(request.headers), **more}))


def stored(provider: Provider, request: WebhookRequest) -> FullRejected:
    """The request as the table holds it."""
    return FullRejected(
        id=1, origen=provider.origen, recibido_en=datetime.fromtimestamp(NOW, UTC), razon="bad_signature", detalle="",
        causa=None, url=quarantine.address(provider, request), tamano=len(request.body), entero=True,
        cabeceras=quarantine.evidence(provider, request), cuerpo=request.body,
    )  # fmt: skip


@pytest.mark.parametrize("origen", PROVIDERS)
def test_what_a_wrong_secret_refused_is_good_once_the_secret_is_right(origen: str) -> None:
    """From what is kept alone, the verdict and the events are those of the request as it came."""
    provider, request = delivery(origen)
    wrong, right = [Secret(new_keys(PROVIDERS[origen], NOW).verify)], [Secret(KEYS[origen].verify)]
    assert isinstance(provider.verify(request, wrong, NOW), Rejected)
    row = stored(provider, request)
    verdict = provider.verify(row.request(), right, NOW)
    if origen == "gitlab_token":
        assert isinstance(verdict, Rejected)
        assert "tokens are not stored" in (quarantine.obstacle(provider, row) or "")
        return
    assert quarantine.obstacle(provider, row) is None
    assert isinstance(verdict, Verified)
    assert verdict == provider.verify(request, right, NOW)
    assert provider.describe(row.request(), verdict) == provider.describe(request, verdict)


@pytest.mark.parametrize("origen", PROVIDERS)
def test_nothing_is_kept_that_is_nobodys_business(origen: str) -> None:
    """No header beside the allow-list: not those of other schemes, and not a token."""
    provider, request = delivery(origen)
    row = stored(provider, request)
    assert {"authorization", "cookie", "x-api-key", "x-gitlab-token"}.isdisjoint(name for name, _ in row.cabeceras)
    assert ["user-agent", "Them/1"] in row.cabeceras
    assert KEYS[origen].sign not in repr(row.cabeceras)


def test_a_query_is_kept_where_it_counts() -> None:
    """People put secrets into queries; Mercado Pago's id, and the whole URL of those that sign it, are needed."""
    kept = {origen for origen in PROVIDERS if "?" in quarantine.address(*delivery(origen))}
    assert kept == {"mercadopago", "square", "twilio"}


def test_a_providers_own_headers_are_kept() -> None:
    """An application's provider names its headers once, and its refused deliveries can be verified again."""
    provider = HmacProvider(
        origen="acme", secret_setting="ACME", header="X-Acme-Signature", template="{timestamp}.{id}.{body}",
        timestamp_header="X-Acme-Time", id_header="X-Acme-Id", type_from=("header:X-Acme-Topic", "query:topic"),
    )  # fmt: skip
    assert set(provider.evidence) == {
        "content-type",
        "x-acme-signature",
        "x-acme-time",
        "x-acme-id",
        "x-acme-topic",
    }
    assert provider.reads_query


def test_a_header_that_came_twice_is_still_there_twice() -> None:
    """Three times at most: a thousand are no better evidence."""
    provider, request = delivery("github")
    pairs = [*request.headers.raw(), *[(b"x-hub-signature-256", b"sha256=00")] * 9]
    row = stored(provider, replace(request, headers=Headers(pairs)))
    assert len([name for name, _ in row.cabeceras if name == "x-hub-signature-256"]) == quarantine.COPIES
    verdict = provider.verify(row.request(), [Secret(KEYS["github"].verify)], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.REPEATED_HEADER


def test_a_header_that_is_too_long_stays_too_long() -> None:
    """It is cut, and refused for the same reason again."""
    provider, request = delivery("github")
    row = stored(provider, with_headers(request, {"x-hub-signature-256": "sha256=" + "0" * 9_999}))
    (value,) = [value for name, value in row.cabeceras if name == "x-hub-signature-256"]
    assert len(value) == quarantine.HEADER_CHARACTERS
    verdict = provider.verify(row.request(), [Secret(KEYS["github"].verify)], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.HEADER_TOO_LONG


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "http://inside/api/webhooks/square?topic=a"),
        ("https://outside/hooks", "https://outside/hooks?topic=a"),
        ("https://outside/hooks?b=c", "https://outside/hooks?b=c"),
    ],
)
def test_the_address_that_was_called_replaces_the_one_that_was_seen(given: str | None, expected: str) -> None:
    """The query stays, unless another is given."""
    provider, request = delivery("square")
    row = stored(provider, replace(request, url="http://inside/api/webhooks/square?topic=a"))
    assert row.request(given).url == expected


@pytest.mark.parametrize(
    ("at", "expected"), [(None, NOW), (1000.0, 1000.0), (quarantine.SIGNED, int(NOW))], ids=["came", "given", "signed"]
)
def test_the_moment_that_it_is_judged_at(at: quarantine.Moment, expected: float) -> None:
    """When it came, by default."""
    provider, request = delivery("stripe")
    row = stored(provider, request)
    assert quarantine.moment(provider, row, row.request(), at) == pytest.approx(expected, abs=0.001)


def test_what_says_no_time_is_judged_as_of_when_it_came() -> None:
    """GitHub signs no moment."""
    provider, request = delivery("github")
    row = stored(provider, request)
    assert quarantine.moment(provider, row, row.request(), quarantine.SIGNED) == pytest.approx(NOW, abs=0.001)
