"""``cauce webhook`` as a user meets it: the real command, a real server, a real database."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import psycopg
import pytest

from cauce.cli.app import run
from cauce.testing import Server
from cauce.webhooks import PROVIDERS
from cauce.webhooks.raw import read_request, write_request
from cauce.webhooks.trying.samples import samples_of
from tests.acceptance.commands import run_command
from tests.acceptance.webhook_app import Here, command_here, keys_of, serving, settings_of

KEYS: Final = keys_of(PROVIDERS)
SETTINGS: Final = settings_of(KEYS)


class Inbox:
    """A server of all providers, and what came in since this was made."""

    def __init__(self, url: str, dsn: str) -> None:
        self.url, self._dsn = url, dsn
        self._before = self._count()

    def stored(self) -> list[tuple[str, str]]:
        """Return origins and types, in the order they came."""
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            rows = conn.execute("select origen, tipo from cauce.eventos order by id offset %s", (self._before,))
            return [(row[0], row[1]) for row in rows]

    def _count(self) -> int:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            row = conn.execute("select count(*) from cauce.eventos").fetchone()
        return row[0] if row else 0


@pytest.fixture(scope="module")
def service(cauce_server: Server) -> Iterator[tuple[str, str]]:
    """One process for all tests of this file; its address and its database."""
    with serving(cauce_server, KEYS) as served:
        yield served


@pytest.fixture
def inbox(service: tuple[str, str]) -> Inbox:
    """The server, as of now."""
    return Inbox(*service)


def webhook(*arguments: str, said: str = "", code: int = 0, stdin: bytes = b"", **settings: str) -> str:
    """Run a command in a process of its own; return what it printed, after what it complained about."""
    done = run_command(["webhook", *arguments], {**os.environ, **SETTINGS, **settings}, stdin=stdin)
    output = done.stderr + done.stdout
    assert done.returncode == code, output
    assert said in output
    assert "Traceback" not in output
    return output


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run commands in this process, with the settings of the server."""
    return command_here(SETTINGS, capsys, monkeypatch)


@pytest.mark.parametrize("origen", PROVIDERS)
def test_every_provider_is_sent_and_taken(origen: str, inbox: Inbox, tmp_path: Path, here: Here) -> None:
    """Each sample over real HTTP: stored once, under its name; a forgery gets the answer that the provider expects."""
    file = tmp_path / "secret"
    file.write_text(KEYS[origen].sign)
    options = ("--url", inbox.url, "--secret", f"@{file}")
    for number, tipo in enumerate(samples_of(origen)):
        here("send", origen, tipo, *options, "--id-externo", f"one-{number}", "--twice")
    refused = "401 in" if origen == "discord" else "400 in"
    here("send", origen, next(iter(samples_of(origen))), *options, "--bad-signature", said=refused)
    questions = {("slack", "url_verification"), ("discord", "ping")}
    assert inbox.stored() == [(origen, tipo) for tipo in samples_of(origen) if (origen, tipo) not in questions]


def test_a_delivery_is_sent_changed_and_repeated(inbox: Inbox) -> None:
    """What the command prints is the status and the answer; the value that was set is in the table."""
    command = ("send", "stripe", "checkout.session.completed", "--url", inbox.url)
    output = webhook(*command, "--set", "data.object.amount_total=4200", "--set", "account=acct_9", "--twice")
    assert re.findall(r"^(\d+) in \d+ ms$", output, re.MULTILINE) == ["200", "200"]
    assert re.findall(r'"duplicado": (\w+)', output) == ["false", "true"]
    assert inbox.stored() == [("stripe", "checkout.session.completed")]


def test_age_is_judged(inbox: Inbox, here: Here) -> None:
    """Too old or in the future is refused, as it should be; what is inside the tolerance is taken."""
    command = ("send", "stripe", "invoice.paid", "--url", inbox.url)
    assert "stale" in here(*command, "--age", "10m")
    assert "future" in here(*command, "--age", "-10m")
    here(*command, "--age", "1m")
    assert inbox.stored() == [("stripe", "invoice.paid")]


def test_many_at_once(inbox: Inbox, here: Here) -> None:
    """Each is an event of its own; with one id all of them are one event."""
    command = ("send", "stripe", "invoice.paid", "--url", inbox.url, "--concurrency", "20")
    assert re.search(r"^200   60$", webhook(*command, "--count", "60"), re.MULTILINE)
    assert len(inbox.stored()) == 60
    here(*command, "--count", "40", "--id-externo", "evt_same")
    assert len(inbox.stored()) == 61


def test_another_answer_than_it_should_be_is_an_error(inbox: Inbox, here: Here) -> None:
    """A secret that is not the server's, for one and for many; an address where nobody listens."""
    command = ("send", "stripe", "invoice.paid", "--secret", "whsec_other")
    here(*command, "--url", inbox.url, code=1, said="expected 2xx, got 400")
    here(*command, "--url", inbox.url, "--count", "3", code=1, said="3 deliveries went wrong; the first: expected 2xx")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    here(*command, "--url", f"http://127.0.0.1:{port}", code=1, said="no answer: ConnectionRefusedError")
    assert inbox.stored() == []


def test_redirections_are_not_followed(here: Here) -> None:
    """Whoever answers 302 gets no second request, and the exit code says that it was no good answer."""
    seen: list[str] = []

    class Redirects(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(302)
            self.send_header("location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/hooks/github"
        here("send", "github", "push", "--url", url, code=1, said="got 302")
        server.shutdown()
        thread.join()
    assert seen == ["/hooks/github"]


def test_a_printed_request_is_explained_and_accepted(inbox: Inbox, tmp_path: Path) -> None:
    """--print sends nothing; its output is read by verify, and by the server, byte for byte."""
    file = tmp_path / "request.http"
    file.write_text(webhook("send", "stripe", "invoice.paid", "--url", inbox.url, "--print"), newline="")
    assert inbox.stored() == []
    lines = webhook("verify", str(file))
    assert "the secret in STRIPE_WEBHOOK_SECRET matches" in lines
    assert "verified  stored, and answered 200" in lines
    raw = file.read_bytes()
    host, port = inbox.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(raw)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert inbox.stored() == [("stripe", "invoice.paid")]


def test_an_old_capture_is_judged_as_of_its_signature(tmp_path: Path, here: Here) -> None:
    """`--at signed` is of `verify` what it is of refused deliveries; without it, the moment is now."""
    old = tmp_path / "old.http"
    old.write_bytes(webhook("send", "stripe", "invoice.paid", "--age", "1d", "--print").encode())
    here("verify", str(old), code=1, said="stale")
    here("verify", str(old), "--at", "signed")


def test_a_refused_request_is_explained(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewritten body, a wrong secret, an empty one, another time; exit code 1 and what to do."""
    printed = webhook("send", "stripe", "invoice.paid", "--print").encode()
    longer, rewritten = tmp_path / "longer.http", tmp_path / "rewritten.http"
    longer.write_bytes(printed + b"\x1b[31m\n")
    request = read_request(printed).request
    rewritten.write_bytes(write_request(replace(request, body=json.dumps(json.loads(request.body)).encode())))
    webhook("verify", "-", "--secret", "whsec_other", stdin=printed, code=1, said="the secret is more likely")
    here("verify", str(rewritten), code=1, said="the signature matches the same content as JSON")
    here("verify", str(longer), said="note      6 bytes after")
    here("verify", str(longer), "--at", "2001-01-01T00:00:00Z", code=1, said="verifies it as of that time")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "")
    here("verify", str(longer), code=1, said="answered 503")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("send nobody x", "no provider is called nobody; there are adyen, "),
        ("send stripe nothing", "no sample of 'nothing': there are checkout.session.completed"),
        ("send stripe invoice.paid --set data.nothing.x=1", "there is no 'nothing' where it is looked for"),
        ("send stripe invoice.paid --set x", "write path=value"),
        ("send stripe invoice.paid --age soon", "write 90, 90s, 10m, 2h or 1d"),
        ("send stripe invoice.paid --url nowhere", "is not a URL"),
        ("send stripe invoice.paid --body nowhere.json", "nowhere.json"),
        ("send stripe invoice.paid --body x --set a=1", "give one of the two"),
        ("send stripe invoice.paid --count 0", "--count"),
        ("send stripe invoice.paid --concurrency 201", "--concurrency"),
        ("send discord ping", "cauce webhook secret discord"),
        ("send github push --secret @nowhere", "nowhere"),
        ("send svix invoice.paid --id-externo a.b", "must not hold a dot"),
        ("secret nobody", "no provider is called nobody"),
        ("list nobody", "no provider is called nobody"),
        ("verify nowhere.http", "nowhere.http"),
        ("verify {empty}", "expected a line like POST /api/webhooks/stripe HTTP/1.1"),
        ("verify {strange}", "give --provider"),
        ("verify {strange} --provider nobody", "no provider is called nobody"),
        ("verify {strange} --provider stripe --at soon", "--at soon is not a time"),
        ("verify {strange} --provider stripe --secret x;until=soon", "--secret cannot be read: until of secret 1 of 1"),
        ("verify {strange} --provider stripe --secret @{bad}", "bad cannot be read: until of secret 1 of 1"),
    ],
)
def test_mistakes_are_told_in_one_line(
    command: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and a line that says what is wrong and what there is."""
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_x")
    monkeypatch.setenv("SVIX_WEBHOOK_SECRET", KEYS["svix"].sign)
    files = {"empty": "", "strange": "POST /x HTTP/1.1\n\n", "bad": "x;until=soon"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    words = command.format(**{name: tmp_path / name for name in files}).split()
    assert run(["webhook", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_secret_that_is_not_set_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that makes one."""
    monkeypatch.delenv("GITHUB_WEBHOOK_SECRET", raising=False)
    assert run(["webhook", "send", "github", "push"]) == 2
    assert "GITHUB_WEBHOOK_SECRET is not set" in capsys.readouterr().err


def test_providers_and_secrets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Every provider with its setting; a new secret in the form the provider has."""
    assert run(["webhook", "list"]) == 0
    listed = capsys.readouterr().out
    assert [name for name in SETTINGS if name not in listed] == []
    assert "\nMercado Pago (mercadopago)\n" in listed
    assert "samples  checkout.session.completed, payment_intent.succeeded" in listed
    assert run(["webhook", "list", "slack"]) == 0
    assert capsys.readouterr().out.startswith(
        "Slack (slack)\n  secret   SLACK_SIGNING_SECRET\n  signed   body, time, 5 min"
    )
    assert run(["webhook", "secret", "stripe"]) == 0
    assert re.fullmatch(r"STRIPE_WEBHOOK_SECRET=whsec_[0-9a-f]{64}\n", capsys.readouterr().out)
    assert run(["webhook", "secret", "paypal"]) == 0
    assert "BEGIN CERTIFICATE" in capsys.readouterr().out
