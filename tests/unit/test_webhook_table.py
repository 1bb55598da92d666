"""docs/webhooks.md keeps up with the providers and with the commands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from cauce.cli.webhook import app
from cauce.web import ErrorCode
from cauce.webhooks import PROVIDERS, Outcome
from cauce.webhooks.table import BEGIN, DEFAULTS, END, duration, renewed, row_of, signed_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"


def test_the_table_is_that_of_the_code() -> None:
    """A provider that changed, or came, is in the document."""
    text = DOCUMENT.read_text()
    assert renewed(text) == text, "run: .venv/bin/python -m cauce.webhooks.table docs/webhooks.md"
    assert re.findall(r"^\| \[[^]]+\]\(\S+\) \| `(\w+)` \|", text, re.MULTILINE) == list(PROVIDERS)


def test_every_provider_stands_under_the_name_people_know() -> None:
    """Each has a name of its own, with the origin beside it; a self-made provider without a name has its origin."""
    titles = {origen: row_of(provider).title for origen, provider in PROVIDERS.items()}
    assert (titles["mercadopago"], titles["lemonsqueezy"]) == ("Mercado Pago", "Lemon Squeezy")
    assert [origen for origen, title in titles.items() if title == origen] == []
    assert len(set(titles.values())) == len(titles)
    assert str(PROVIDERS["standard"]) == "Standard Webhooks (standard)"
    assert str(replace(PROVIDERS["stripe"], origen="acme", title="")) == "acme"


def test_a_document_without_the_markers_is_refused() -> None:
    """Rather than written to its end."""
    with pytest.raises(ValueError, match="needs the lines"):
        renewed(f"{END} {BEGIN}")


def test_rows_say_what_providers_do() -> None:
    """What is signed, where ids and types come from, also where a provider has a way of its own."""
    stripe = row_of(PROVIDERS["stripe"])
    assert (stripe.signed, stripe.id_externo, stripe.tipo) == ("body, time", "`body:id`", "`body:type`")
    assert (stripe.answers, stripe.horizon, stripe.tolerance) == ("200 / 400", "3 d", "5 min")
    assert row_of(PROVIDERS["discord"]).answers == "204 / 401"
    assert row_of(PROVIDERS["github"]).id_externo == "hash of the body"
    assert row_of(PROVIDERS["github"]).tipo == "`header:x-github-event` and more (unsigned)"
    assert row_of(PROVIDERS["shopify"]).id_externo == "hash of the body and `header:x-shopify-topic` (unsigned)"
    assert row_of(PROVIDERS["adyen"]).id_externo == "`body:pspReference` and more"
    assert row_of(PROVIDERS["twilio"]).tolerance == ""
    assert signed_of(PROVIDERS["gitlab_token"]) == "nothing"
    assert row_of(replace(PROVIDERS["stripe"], tolerance=60.0)).tolerance == "1 min"
    assert [duration(seconds) for seconds in (3, 90, 5400, 108_000)] == ["3 s", "1.5 min", "1.5 h", "1.25 d"]


def test_the_default_answers_are_those_of_the_http_layer() -> None:
    """The table names statuses that it does not answer itself."""
    assert DEFAULTS[Outcome.REJECTED] == ErrorCode.BAD_SIGNATURE.status
    assert DEFAULTS[Outcome.UNAVAILABLE] == ErrorCode.NO_SECRET.status == ErrorCode.CANNOT_VERIFY.status


COMMANDS = ["dismiss", "list", "rejected", "reverify", "secret", "send", "verify"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    """Each command of the group has a section, and each of its options stands there."""
    section = re.search(
        rf"^### `cauce webhook {command}`$(.*?)(?=^##|\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    assert section
    options = {argument.name for argument in app[command].assemble_argument_collection()}
    assert [option for option in options if option.startswith("--") and option not in section[1]] == []
    assert {name for name in app if not name.startswith("-")} == {*COMMANDS}
