"""Requests and headers as data, and the registry."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

import cauce.webhooks
from cauce.webhooks import PROVIDERS, Draft, Headers, Provider, Secret, Verified, WebhookRequest
from cauce.webhooks.limits import MAX_FORM_FIELDS, MAX_ID, MAX_STORED_HEADER, MAX_TIPO
from cauce.webhooks.signing import HmacProvider
from cauce.webhooks.urls import rewritten, with_and_without_port

ACME = HmacProvider(
    origen="acme",
    secret_setting="ACME_SECRET",
    header="X-Acme",
    id_from=("body:id", "header:x-id", "query:id"),
    type_from=("body:type",),
    keep_headers=("x-kept",),
)
SECRET = Secret("a secret")


def described(body: bytes, *headers: tuple[bytes, bytes], provider: Provider = ACME) -> cauce.webhooks.NuevoWebhook:
    """Sign a body, add headers, and describe the only event."""
    signed = provider.sign(Draft(body), SECRET, 0)
    request = WebhookRequest(body, Headers([*signed.headers.raw(), *headers]), signed.url)
    verdict = provider.verify(request, [SECRET], 0)
    assert isinstance(verdict, Verified)
    (evento,) = provider.describe(request, verdict)
    return evento


def test_headers_are_found_without_case_and_kept_apart() -> None:
    """A header that came twice has two values, and no single one."""
    headers = Headers([(b"X-A", b" 1\t"), (b"x-a", b"2"), (b"B", b"\xff")])
    assert headers.all("X-a") == ("1", "2")
    assert headers.get("x-a") is None
    assert headers.get("b") == "\xff"
    assert headers.get("c") is None
    assert Headers(headers.raw()) == headers
    assert "1" not in repr(headers)


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("https://x/?data.id=1&b=2", "1"),
        ("https://x/?data.id=1&data.id=2", None),
        ("https://x/#?data.id=1", None),
        ("http://[", None),
        ("?data.id=%20a", " a"),
        ("https://x/?" + "&".join(["data.id=1"] + ["a=1"] * MAX_FORM_FIELDS), None),
    ],
)
def test_a_parameter_is_the_only_one_of_its_name(url: str, value: str | None) -> None:
    """A parameter that is repeated, or among too many, is none."""
    assert WebhookRequest(b"", url=url).parameter("data.id") == value


def test_secrets_are_split_at_commas() -> None:
    """Several secrets may stand in one setting during rotation; empty parts are none."""
    assert Secret.several(" a, b,,") == (Secret("a"), Secret("b"))
    assert Secret.several(None) == Secret.several(" , ") == ()


def test_only_the_headers_of_the_list_are_kept() -> None:
    """Tokens and cookies are not stored; a long header is cut, a NUL is taken out."""
    long = b"k" * (MAX_STORED_HEADER + 1)
    evento = described(b"{}", (b"cookie", b"c"), (b"authorization", b"a"), (b"x-kept", b"\0" + long))
    assert evento.cabeceras == {"content-type": "application/json", "x-kept": "k" * MAX_STORED_HEADER}


@pytest.mark.parametrize(
    ("body", "id_externo"),
    [
        (b'{"id":7}', "7"),
        (b'{"id":"%s"}' % (b"i" * MAX_ID), "i" * MAX_ID),
        (b'{"id":"%s"}' % (b"i" * (MAX_ID + 1)), None),
        (b'{"id":""}', None),
        (b'{"id":true}', None),
        (b'{"id":["x"]}', None),
        (b'{"id":"\\u0000"}', None),
        (b'{"id":"\\ud800"}', None),
        (b"[1]", None),
        (b"\xff", None),
    ],
)
def test_an_id_that_no_column_holds_gives_way_to_the_hash(body: bytes, id_externo: str | None) -> None:
    """Ids are text of 1 to MAX_ID printable characters; anything else is replaced by the hash of the body."""
    evento = described(body, (b"x-id", b"unsigned"))
    assert evento.id_externo == id_externo or (id_externo is None and evento.id_externo.startswith("sha256:"))
    assert evento.sin_firmar == ()


def test_a_type_is_limited() -> None:
    """A type of MAX_TIPO characters is kept, a longer one is unknown."""
    assert described(b'{"type":"%s"}' % (b"t" * MAX_TIPO)).tipo == "t" * MAX_TIPO
    assert described(b'{"type":"%s"}' % (b"t" * (MAX_TIPO + 1))).tipo == "desconocido"


def test_an_unsigned_id_is_taken_only_when_opted_in_and_then_marked() -> None:
    """The signed place is preferred, in whatever order they are given; the unsigned one says so."""
    opted = HmacProvider(
        origen="acme",
        secret_setting="ACME_SECRET",
        header="X-Acme",
        id_from=("header:x-id", "body:id"),
        accept_unsigned=frozenset({"id_externo"}),
    )
    signed = described(b'{"id":"1"}', (b"x-id", b"2"), provider=opted)
    assert (signed.id_externo, signed.sin_firmar) == ("1", ())
    unsigned = described(b"{}", (b"x-id", b"2"), provider=opted)
    assert (unsigned.id_externo, unsigned.sin_firmar) == ("2", ("id_externo",))
    strict = described(b"{}", (b"x-id", b"2"), provider=replace(opted, accept_unsigned=frozenset()))
    assert strict.id_externo.startswith("sha256:")
    assert strict.sin_firmar == ()


def test_ports_and_rewritings_of_a_url() -> None:
    """The spellings that a provider may have signed."""
    assert with_and_without_port("https://a/b") == ("https://a/b", "https://a:443/b")
    assert with_and_without_port("http://a?b=/") == ("http://a?b=/", "http://a:80?b=/")
    assert with_and_without_port("https://a:1/b") == ("https://a:1/b", "https://a/b")
    assert with_and_without_port("/b") == ("/b",)
    assert set(rewritten("http://a/b?c")) == {"http://a/b/?c", "https://a/b?c", "https://a/b/?c"}
    assert rewritten("") == ("/",)


def test_importing_the_package_loads_no_provider_and_no_cryptography() -> None:
    """Only asking for a provider imports it, and only asymmetric signatures need cryptography."""
    program = (
        "import sys, cauce; before = set(sys.modules);"
        "import cauce.webhooks as w; assert len(list(w.PROVIDERS)) > 20; added = set(sys.modules) - before;"
        "own = {name for name in added if name.startswith('cauce.webhooks.')};"
        "assert {name.rpartition('.')[2] for name in own} =="
        " {'limits', 'payload', 'provider', 'registry', 'request', 'secrets', 'verdict'}, own;"
        "assert not {name for name in added - own if not hasattr(sys.modules[name], '__file__') or"
        " 'site-packages' in str(sys.modules[name].__file__)}, added;"
        "w.PROVIDERS['stripe'], w.PROVIDERS['standard'], w.PROVIDERS['discord'];"
        "assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_provider_is_made_once_and_an_unknown_one_is_a_key_error() -> None:
    """The registry is a mapping like any other."""
    assert PROVIDERS["github"] is PROVIDERS["github"]
    assert "nobody" not in PROVIDERS
    with pytest.raises(KeyError):
        PROVIDERS["nobody"]


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_says_what_its_users_need(name: str) -> None:
    """Name, setting, documentation, horizon and time to answer are there; the setting is named as variables are."""
    provider = PROVIDERS[name]
    assert provider.origen == name
    assert provider.secret_setting.replace("_", "").isalnum()
    assert provider.secret_setting.isupper()
    assert provider.documentation.startswith("https://")
    assert provider.retry_horizon > 0
    assert 3 <= provider.answer_within <= 30


def test_the_public_names_are_these() -> None:
    """Adding or removing one is a decision."""
    assert sorted(cauce.webhooks.__all__) == [
        "Answer",
        "Draft",
        "Headers",
        "NuevoWebhook",
        "Outcome",
        "PROVIDERS",
        "Provider",
        "Reason",
        "Rejected",
        "Secret",
        "SignedScope",
        "Verdict",
        "Verified",
        "WebhookRequest",
    ]
