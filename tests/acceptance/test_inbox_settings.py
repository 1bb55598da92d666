"""Secrets with periods and the public address, as users of ``cauce`` see them: real commands, real HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from twilio.request_validator import RequestValidator

from cauce.testing import Database, wait_for
from tests.acceptance.commands import run_command

CAUCE: Final = str(Path(sys.executable).with_name("cauce"))
SERVE: Final = ["serve", "cli_app:bus", "--app-dir", str(Path(__file__).parent), "--port", "0"]
NOWHERE: Final = "postgresql://127.0.0.1:1/nowhere"
SECONDS: Final = 30.0
PUBLIC: Final = "https://hooks.example.com/cauce"
TOKEN: Final = "twilio's"
OLD, NEW = "square's old", "square's new"
FORM: Final = {"MessageSid": "SM1", "MessageStatus": "delivered"}
FORGED: Final = {"x-forwarded-proto": "https", "x-forwarded-host": "hooks.example.com", "x-forwarded-prefix": "/cauce"}


def settings_of(**settings: str) -> dict[str, str]:
    """The environment of a command."""
    secrets = {"TWILIO_AUTH_TOKEN": TOKEN, "SQUARE_WEBHOOK_SIGNATURE_KEY": NEW}
    return {**os.environ, **secrets, **settings}


def failed(*arguments: str, settings: dict[str, str] | None = None, code: int = 1) -> str:
    """Run a command that does not do what it is asked; return what it says."""
    done = run_command(arguments, settings_of(**settings or {}))
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr + done.stdout


class Server:
    """``cauce serve``, with settings."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self._log, self._dsn = folder / "log", dsn
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self, **settings: str) -> None:
        """Serve with other settings than before."""
        self.stop()
        self._log.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            environment = settings_of(DATABASE_URL=self._dsn, **settings)
            self._process = subprocess.Popen([CAUCE, *SERVE], env=environment, stdout=log, stderr=log)
        listening = re.compile(r"listening on (\S+)")
        wait_for(lambda: listening.search(self._log.read_text()), "cauce serve listens", seconds=SECONDS)
        found = listening.search(self._log.read_text())
        assert found
        self.url = found[1]

    def stop(self) -> None:
        """End it, if it serves."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(SECONDS)

    def twilio(self, signed: str) -> httpx.Response:
        """Deliver a message whose signature is for an address, through a proxy that says all it can."""
        signature: str = RequestValidator(TOKEN).compute_signature(signed, FORM)
        headers = {**FORGED, "x-twilio-signature": signature}
        return httpx.post(f"{self.url}/api/webhooks/twilio", data=FORM, headers=headers, timeout=SECONDS)

    def square(self, signed: str, key: str) -> httpx.Response:
        """Likewise, as Square signs."""
        body = b'{"event_id": "sq_1", "type": "payment.created"}'
        signature = base64.b64encode(hmac.digest(key.encode(), signed.encode() + body, hashlib.sha256)).decode()
        headers = {**FORGED, "x-square-hmacsha256-signature": signature}
        return httpx.post(f"{self.url}/api/webhooks/square", content=body, headers=headers, timeout=SECONDS)


@pytest.fixture
def server(tmp_path: Path, cauce_db: Database) -> Iterator[Server]:
    """A server that is stopped in the end."""
    started = Server(tmp_path, cauce_db.dsn)
    try:
        yield started
    finally:
        started.stop()


@pytest.mark.parametrize(
    ("setting", "text", "said"),
    [
        ("GITHUB_WEBHOOK_SECRET", "hush;until=never", "GITHUB_WEBHOOK_SECRET cannot be read: until of secret 1 of 1"),
        ("STRIPE_WEBHOOK_SECRET", "a, hush;utnil=5", "STRIPE_WEBHOOK_SECRET cannot be read: after a ; in secret 2"),
        ("CAUCE_PUBLIC_URL", "hooks.example.com", "CAUCE_PUBLIC_URL: value error, write http:// or https://"),
    ],
)
def test_a_setting_that_cannot_be_read_is_no_server(setting: str, text: str, said: str) -> None:
    """It is told in one line, by its name, and no secret is in it."""
    told = failed(*SERVE, settings={"DATABASE_URL": NOWHERE, setting: text})
    assert told.startswith(f"cauce: {said}")
    assert told.count("\n") == 1
    assert "hush" not in told


def test_no_header_says_by_which_address_it_was_called(server: Server) -> None:
    """Not even one from this host, which uvicorn by itself would believe."""
    server.start()
    inside = "/api/webhooks/twilio"
    assert server.twilio(server.url + inside).status_code == 200
    for signed in (PUBLIC + inside, server.url.replace("http", "https") + inside):
        assert server.twilio(signed).status_code == 400


def test_the_settings_say_by_which_address_it_was_called(server: Server) -> None:
    """What Twilio's own library signs is accepted at the public address, and nowhere else."""
    server.start(CAUCE_PUBLIC_URL=PUBLIC)
    assert server.twilio(f"{PUBLIC}/api/webhooks/twilio").status_code == 200
    assert server.square(f"{PUBLIC}/api/webhooks/square", NEW).status_code == 200
    for signed in (f"{server.url}/api/webhooks/twilio", "https://hooks.example.com/api/webhooks/twilio"):
        assert server.twilio(signed).status_code == 400


@pytest.mark.parametrize(("provider", "tipo"), [("twilio", "message.delivered"), ("square", "payment.created")])
def test_the_simulator_signs_the_public_address_too(server: Server, provider: str, tipo: str) -> None:
    """And sends to the server all the same."""
    server.start(CAUCE_PUBLIC_URL=PUBLIC)
    send = ["webhook", "send", provider, tipo, "--url", server.url]
    for settings, code in (({"CAUCE_PUBLIC_URL": PUBLIC}, 0), ({}, 1)):
        done = run_command(send, settings_of(**settings))
        assert done.returncode == code, done.stdout


def test_a_secret_ends_at_its_moment(server: Server) -> None:
    """The old one counts before it and not after it, while the new one counts all along."""
    statuses: list[int] = []
    details: list[str] = []
    for until in ("2100-01-01T00:00:00Z", "2020-01-01T00:00:00Z"):
        server.start(SQUARE_WEBHOOK_SIGNATURE_KEY=f"{NEW}, {OLD};until={until}")
        for key in (OLD, NEW):
            answer = server.square(f"{server.url}/api/webhooks/square", key)
            statuses.append(answer.status_code)
            details.append(answer.json().get("detalle", ""))
    assert statuses == [200, 200, 400, 200]
    assert details[2].endswith(
        "it is signed with secret 2 of 2 in SQUARE_WEBHOOK_SIGNATURE_KEY, which expired at 2020-01-01T00:00:00Z"
    )


def test_a_capture_is_explained_with_the_setting_that_mends_it(tmp_path: Path) -> None:
    """What the inbox saw behind a proxy: first why it was refused, then, with the setting made, that it verifies."""
    signature = RequestValidator(TOKEN).compute_signature(f"{PUBLIC}/api/webhooks/twilio", FORM)
    head = f"POST /api/webhooks/twilio HTTP/1.1\r\nhost: 10.0.0.7:8000\r\nx-twilio-signature: {signature}\r\n"
    forwarded = "".join(f"{name}: {value}\r\n" for name, value in FORGED.items())
    capture = tmp_path / "capture"
    capture.write_bytes((head + forwarded + "\r\nMessageSid=SM1&MessageStatus=delivered").encode())
    assert f"Set CAUCE_PUBLIC_URL={PUBLIC}," in failed("webhook", "verify", str(capture))
    environment = settings_of(CAUCE_PUBLIC_URL=f"{PUBLIC}/", TWILIO_AUTH_TOKEN=f"{TOKEN};until=2100-01-01T00:00:00Z")
    done = run_command(["webhook", "verify", str(capture)], environment)
    assert done.returncode == 0, done.stderr
    assert "it is accepted until 2100-01-01T00:00:00Z" in done.stdout
    environment["TWILIO_AUTH_TOKEN"] = f"{TOKEN};until=2020-01-01T00:00:00Z"
    told = failed("webhook", "verify", str(capture), settings=environment)
    assert "expired_secret, answered 400: it is signed with the secret in TWILIO_AUTH_TOKEN" in told
    told = failed("webhook", "verify", str(capture), "--secret", f"{TOKEN};until=never", code=2)
    assert "cannot be read: until of secret 1 of 1 is not a time" in told
