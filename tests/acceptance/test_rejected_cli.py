"""Refused deliveries for operators: a real server refuses, the command explains, reverifies and dismisses."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from cauce.testing import Server, wait_for
from cauce.webhooks import PROVIDERS, Secret
from cauce.webhooks.provider import Draft
from tests.acceptance.commands import run_command
from tests.acceptance.webhook_app import Here, command_here, keys_of, serving, settings_of

KEYS: Final = keys_of(("stripe", "square", "gitlab_token", "paypal"))
SETTINGS: Final = settings_of(KEYS)
ROLLED: Final = "whsec_rolled"


class Quarantine:
    """A server and its database, without any delivery."""

    def __init__(self, url: str, dsn: str) -> None:
        self.url, self.dsn = url, dsn
        self.query("delete from cauce.rechazados; delete from cauce.eventos")

    def query(self, query: str) -> list[Any]:
        """Ask the database, if it is a question; first columns."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            cursor = conn.execute(query)
            return [] if cursor.description is None else [row[0] for row in cursor]

    def numbers(self) -> list[int]:
        """What is in it, as it came."""
        return self.query("select id from cauce.rechazados order by id")

    def events(self) -> list[str]:
        """The types that are stored."""
        return self.query("select tipo from cauce.eventos order by id")

    def refuse(self, here: Here, *arguments: str) -> int:
        """Send what is refused; return its number, once it is kept."""
        before = len(self.numbers())
        here("send", *arguments, "--url", self.url, code=None)
        wait_for(lambda: len(self.numbers()) > before)
        return self.numbers()[-1]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of the application's, which has a provider."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(Path(__file__).with_name("own_provider.py"), folder / "de_la_tienda.py")
    return folder


@pytest.fixture(scope="module")
def service(cauce_server: Server) -> Iterator[tuple[str, str]]:
    """One process for all tests of this file; its address and its database."""
    with serving(cauce_server, KEYS) as served:
        yield served


@pytest.fixture
def here(service: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run commands in this process, with the settings of the server."""
    return command_here({**SETTINGS, "DATABASE_URL": service[1]}, capsys, monkeypatch)


@pytest.fixture
def kept(service: tuple[str, str]) -> Quarantine:
    """The quarantine, empty."""
    return Quarantine(*service)


def webhook(kept: Quarantine, *arguments: str, code: int = 0, **settings: str) -> str:
    """Run the command in a process of its own; return what it printed, after what it complained about."""
    done = run_command(["webhook", *arguments], {**os.environ, **SETTINGS, "DATABASE_URL": kept.dsn, **settings})
    output = done.stderr + done.stdout
    assert done.returncode == code, output
    assert "Traceback" not in output
    return output


def test_a_wrong_secret_from_the_refusal_to_the_event(kept: Quarantine, here: Here) -> None:
    """Listed with the reason, explained, still refused before the fix, stored after it, and gone."""
    number = kept.refuse(here, "stripe", "invoice.paid", "--secret", "whsec_rolled")
    listed = webhook(kept, "rejected")
    assert re.search(rf"^ *{number}  stripe  .* bad_signature .* body's content was changed", listed, re.MULTILINE)

    explained = webhook(kept, "rejected", str(number))
    assert f"refused   number {number} of stripe, " in explained
    assert "then      bad_signature: no signature in Stripe-Signature" in explained
    assert "now       with the current secrets:" in explained
    assert "header    stripe-signature: t=" in explained
    assert "verified  stored" in webhook(kept, "rejected", str(number), STRIPE_WEBHOOK_SECRET=ROLLED)

    assert f"{number}  stripe  still refused: bad_signature" in webhook(kept, "reverify", str(number), code=1)
    assert (kept.numbers(), kept.events()) == ([number], [])
    fixed = webhook(kept, "reverify", "--origen", "stripe", STRIPE_WEBHOOK_SECRET=f"whsec_new, {ROLLED}")
    assert re.search(rf"^{number}  stripe  stored as event \d+$", fixed, re.MULTILINE)
    assert (kept.numbers(), kept.events()) == ([], ["invoice.paid"])
    assert f"there is no refused delivery {number}" in webhook(kept, "reverify", str(number), code=1)
    assert "No delivery was refused." in webhook(kept, "rejected")


def test_all_of_an_origin_as_they_came(kept: Quarantine, here: Here) -> None:
    """Those that are good are stored in their order; those that are not stay, and exit code 1 says so."""
    first = kept.refuse(here, "stripe", "invoice.paid", "--secret", "whsec_rolled")
    other = kept.refuse(here, "stripe", "customer.subscription.updated", "--secret", "whsec_unknown")
    last = kept.refuse(here, "stripe", "checkout.session.completed", "--secret", "whsec_rolled")
    output = here("reverify", "--origen", "stripe", "--secret", "whsec_rolled", code=1)
    assert "2 of 3 have left the quarantine" in output
    assert re.findall(r"^(\d+) ", output, re.MULTILINE)[:3] == [str(first), str(other), str(last)]
    assert (kept.numbers(), kept.events()) == ([other], ["invoice.paid", "checkout.session.completed"])


def test_a_filter_and_pages(kept: Quarantine, here: Here) -> None:
    """By origin and by reason, newest first, so many at a time."""
    stale = kept.refuse(here, "stripe", "invoice.paid", "--age", "2h")
    bad = kept.refuse(here, "stripe", "invoice.paid", "--bad-signature")
    gitlab = kept.refuse(here, "gitlab_token", "push", "--bad-signature")

    def listed(*options: str) -> list[int]:
        return [row["id"] for row in json.loads(here("rejected", "--json", *options))["rechazados"]]

    assert listed() == [gitlab, bad, stale]
    assert listed("--origen", "stripe") == [bad, stale]
    assert listed("--razon", "stale") == [stale]
    assert listed("--before", str(gitlab), "--limit", "1") == [bad]
    here("rejected", "--limit", "2", said=f"There are more: --before {bad}")
    here("reverify", "--origen", "stripe", "--razon", "stale", code=1, said=f"{stale}  stripe  still refused: stale")


def test_a_moment_that_is_given(kept: Quarantine, here: Here) -> None:
    """For a clock that was wrong; explained as it would be judged, then stored."""
    number = str(kept.refuse(here, "stripe", "invoice.paid", "--age", "2h"))
    here("rejected", number, said="the clocks differ by almost exactly 2 h")
    here("rejected", number, "--at", "signed", said="verified  stored")
    here("reverify", number, "--at", "signed", said="stored as event")
    assert kept.events() == ["invoice.paid"]


def test_an_address_that_is_given(kept: Quarantine, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, or by the setting that the server has after the fix."""
    outside = "https://hooks.example.com/api/webhooks/square"
    for number in range(2):
        body = json.dumps({"event_id": f"{number}", "type": "payment.created"}).encode()
        request = PROVIDERS["square"].sign(Draft(body, outside), Secret(KEYS["square"].sign), time.time())
        answer = httpx.post(f"{kept.url}/api/webhooks/square", content=body, headers=dict(request.headers))
        assert answer.status_code == 400
    wait_for(lambda: len(kept.numbers()) == 2)
    one, two = (str(number) for number in kept.numbers())
    here("reverify", one, code=1, said="still refused: bad_signature")
    here("rejected", one, "--url", outside, said="verified  stored")
    here("reverify", one, "--url", outside, said="stored as event")
    monkeypatch.setenv("CAUCE_PUBLIC_URL", "https://hooks.example.com")
    here("reverify", two, said="stored as event")


def test_a_token_is_not_kept(kept: Quarantine, here: Here) -> None:
    """It is the secret itself, so the delivery can be read and never verified again; both commands say so."""
    number = str(kept.refuse(here, "gitlab_token", "push", "--secret", "token-of-old"))
    explained = here(
        "rejected", number, said="never     it cannot be verified again here: gitlab_token authenticates by a token"
    )
    assert "token-of-old" not in explained
    here(
        "reverify",
        number,
        "--secret",
        "token-of-old",
        code=1,
        said="cannot be verified again: gitlab_token authenticates",
    )
    assert "token-of-old" not in here("rejected", number, "--json") + here("rejected", number, "--print")


def test_a_provider_of_the_applications_own(kept: Quarantine, here: Here) -> None:
    """The command does not know it, and is told whose scheme it has; the event has its own origin."""
    inbox = f"{kept.url}/api/webhooks/stripe_connect"
    before = kept.numbers()
    here("send", "stripe", "invoice.paid", "--url", inbox, "--secret", "whsec_connect", code=None)
    wait_for(lambda: kept.numbers() != before)
    number = str(kept.numbers()[-1])
    here("rejected", number, said="no built-in provider is called stripe_connect: name one with --provider")
    here("reverify", number, code=1, said="no built-in provider is called stripe_connect")
    here("reverify", number, "--provider", "stripe", "--secret", "whsec_connect", said="stored as event")
    assert kept.query("select origen from cauce.eventos") == ["stripe_connect"]


def test_a_scheme_of_the_applications_own(kept: Quarantine, own: Path, tmp_path: Path) -> None:
    """Signed, explained and verified again by what a module of the application says."""
    body, captured = tmp_path / "order.json", tmp_path / "order.http"
    body.write_text('{"id": "order_1", "type": "order.paid"}')
    acme = ("de_la_tienda:ACME", "--app-dir", str(own))
    assert webhook(kept, "list", *acme).startswith("acme\n  secret   ACME_WEBHOOK_SECRET\n  signed   body, time, 5 min")
    secret = webhook(kept, "secret", *acme).strip().removeprefix("ACME_WEBHOOK_SECRET=")
    send = ("send", acme[0], "order.paid", *acme[1:], "--body", str(body), "--secret", secret)
    captured.write_text(webhook(kept, *send, "--print"))
    explained = webhook(kept, "verify", str(captured), "--provider", *acme, "--secret", secret)
    assert "event     order.paid, id order_1" in explained

    assert "503" in webhook(kept, *send, "--url", kept.url, code=1)  # the server has no secret yet
    wait_for(lambda: kept.numbers() != [])
    (number,) = kept.numbers()
    assert "no built-in provider is called acme" in webhook(kept, "reverify", str(number), code=1)
    again = ("--provider", *acme, "--secret", secret)
    assert "now       with the current secrets:" in webhook(kept, "rejected", str(number), *again)
    assert "stored as event" in webhook(kept, "reverify", str(number), *again)
    assert (kept.numbers(), kept.query("select origen || ' ' || id_externo from cauce.eventos")) == (
        [],
        ["acme order_1"],
    )


@pytest.mark.parametrize("command", ["list {}", "secret {}", "send {} t", "reverify 1 --provider {}"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("de_la_tienda:NOBODY", "has no 'NOBODY'; it has de_la_tienda:ACME\n"),
        ("de_la_tienda:OTHER", "is a str, not a cauce.webhooks.Provider; it has de_la_tienda:ACME\n"),
        ("de_la_tienda:HmacProvider", "is a class, not a cauce.webhooks.Provider"),
        ("de_nadie:ACME", "there is no module de_nadie in "),
        ("de_la_tienda:", "names no provider: write module:provider"),
    ],
)
def test_a_provider_that_is_not_there(own: Path, here: Here, command: str, name: str, said: str) -> None:
    """One line, with what there is instead."""
    output = here(*command.format(name).split(), "--app-dir", str(own), code=1, said=said)
    assert output.count("\n") == 1


def test_a_certificate_is_given(kept: Quarantine, here: Here, tmp_path: Path) -> None:
    """PayPal's deliveries need one, which the command does not fetch."""
    secret, certificate = tmp_path / "secret", tmp_path / "certificate.pem"
    secret.write_text(KEYS["paypal"].sign.replace("|", "0|", 1))
    certificate.write_text(KEYS["paypal"].certificate)
    number = str(kept.refuse(here, "paypal", "PAYMENT.CAPTURE.COMPLETED", "--secret", f"@{secret}"))
    right = ("--secret", KEYS["paypal"].verify + "0")
    here("reverify", number, *right, code=1, said="unavailable")
    here("reverify", number, *right, "--certificate", str(certificate), said="stored as event")


def test_the_request_can_be_had_as_it_came(kept: Quarantine, here: Here, tmp_path: Path) -> None:
    """--print writes what `verify` reads: what is kept, and no more."""
    number = str(kept.refuse(here, "stripe", "invoice.paid", "--secret", "whsec_other"))
    file = tmp_path / "request.http"
    file.write_text(here("rejected", number, "--print"), newline="")
    here("verify", str(file), "--secret", "whsec_other", said="verified  stored")


def test_programs_read_json(kept: Quarantine, here: Here) -> None:
    """Each command has it; bytes are base64, keys are the columns."""
    number = kept.refuse(here, "stripe", "invoice.paid", "--secret", "whsec_other")
    one = json.loads(here("rejected", str(number), "--json"))
    assert (one["rechazado"]["id"], one["rechazado"]["razon"], one["imposible"]) == (number, "bad_signature", None)
    assert ["provider", "Stripe (stripe), https://docs.stripe.com/webhooks#verify-events"] in one["explicacion"]
    (done,) = json.loads(here("reverify", str(number), "--json", code=1))["resultados"]
    assert (done["id"], done["resultado"], done["eventos"]) == (number, "rechazado", [])
    assert json.loads(here("dismiss", str(number), "--yes", "--json")) == {"descartados": 1}


def test_dismissing_is_for_good(kept: Quarantine, here: Here) -> None:
    """It asks, and without a terminal wants --yes; one, or all of an origin."""
    one = kept.refuse(here, "stripe", "invoice.paid", "--bad-signature")
    two = kept.refuse(here, "stripe", "invoice.paid", "--age", "2h")
    three = kept.refuse(here, "gitlab_token", "push", "--bad-signature")
    assert "say --yes" in webhook(kept, "dismiss", str(one), code=2)
    here("dismiss", str(one), "--yes", said="dismissed 1 refused delivery")
    assert kept.numbers() == [two, three]
    here("dismiss", "--origen", "stripe", "--razon", "stale", "--yes", said="dismissed 1 refused delivery")
    here("dismiss", "--origen", "stripe", "--yes", code=1, said="the quarantine has nothing of stripe to dismiss")
    here("dismiss", str(one), "--yes", code=1, said=f"there is no refused delivery {one}")
    assert (kept.numbers(), kept.events()) == ([three], [])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("reverify", "say which: their numbers, or --origen"),
        ("dismiss --yes", "say which: their numbers, or --origen"),
        ("rejected --print", "--print goes with the number"),
        ("rejected 1 --provider nobody", "no provider is called nobody; there are adyen, "),
        ("reverify 1 --secret x;until=soon", "--secret cannot be read: until of secret 1 of 1"),
        ("reverify 1 --at soon", "--at soon is not a time"),
        ("reverify 1 --secret @nowhere", "nowhere"),
        ("reverify 1 --certificate nowhere.pem", "nowhere.pem"),
        ("rejected --razon boredom", "boredom"),
    ],
)
def test_mistakes_are_told_in_one_line(here: Here, command: str, said: str) -> None:
    """Exit code 2, and a line that says what is wrong and what there is."""
    error = here(*command.split(), code=2, said=said)
    assert error.count("\n") == 1


def test_what_is_not_there_is_told(kept: Quarantine, here: Here) -> None:
    """Exit code 1."""
    assert kept.numbers() == []
    here("rejected", "1", code=1, said="there is no refused delivery 1")
    here("reverify", "1", "2", code=1, said="there is no refused delivery 1, 2")
    here("reverify", "--origen", "stripe", code=1, said="the quarantine has nothing of stripe to verify")


def test_a_setting_that_cannot_be_read_is_told(kept: Quarantine, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, and without its text."""
    number = str(kept.refuse(here, "stripe", "invoice.paid", "--bad-signature"))
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_x;til=never")
    for command in ("rejected", "reverify"):
        output = here(command, number, code=2, said="STRIPE_WEBHOOK_SECRET cannot be read")
        assert "whsec_x" not in output
