"""What the tests of ``cauce webhook`` share: a server with an inbox, and the command in the process of the test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import pytest

from cauce.cli.app import run
from cauce.testing import Server
from cauce.webhooks import PROVIDERS
from cauce.webhooks.trying.keys import Keys, new_keys

CAUCE: Final = [str(Path(sys.executable).with_name("cauce")), "webhook"]
SERVE: Final = """
import os, socket, sys
import uvicorn
from dataclasses import replace
from cauce import Bus, Catalog, EventHandlers, EventType, Settings
from cauce.web import create_app
from cauce.webhooks import PROVIDERS
from cauce.webhooks.trying.keys import trusting
from own_provider import ACME

class StripeEvents(Catalog, origen="stripe"):
    paid = EventType("invoice.paid", dict[str, object])

async def paid(evento): ...

bus = Bus(catalogs=[StripeEvents], event_handlers=EventHandlers(StripeEvents.paid.handled_by(paid)))
providers = [
    trusting(PROVIDERS["paypal"], os.environ["PAYPAL_CERTIFICATE"].encode()),
    replace(PROVIDERS["stripe"], origen="stripe_connect", secret_setting="STRIPE_CONNECT_WEBHOOK_SECRET"),
    ACME,
]
config = uvicorn.Config(create_app(bus, Settings(), providers=providers), log_level="warning")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


class Here(Protocol):
    """The command in this process, which costs no start of a Python."""

    def __call__(self, *arguments: str, said: str = "", code: int | None = 0) -> str:
        """Run it; return what it printed, after what it complained about. Any exit code will do where it is None."""
        ...


def keys_of(origins: Iterable[str]) -> dict[str, Keys]:
    """Make up what these providers sign with and are verified by, PayPal among them."""
    return {origen: new_keys(PROVIDERS[origen], time.time()) for origen in origins}


def settings_of(keys: Mapping[str, Keys]) -> dict[str, str]:
    """Return the settings of an inbox that verifies them."""
    return {PROVIDERS[origen].secret_setting: each.verify for origen, each in keys.items()}


@contextmanager
def serving(server: Server, keys: Mapping[str, Keys]) -> Generator[tuple[str, str]]:
    """Run an inbox in a process of its own, on a fresh database; its address and its database."""
    with server.migrated() as database, socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        environment = {
            **os.environ,
            **settings_of(keys),
            "DATABASE_URL": database.dsn,
            "PAYPAL_CERTIFICATE": keys["paypal"].certificate,
        }
        descriptor = listener.fileno()
        with subprocess.Popen(
            [sys.executable, "-c", SERVE, str(descriptor)],
            pass_fds=[descriptor],
            env=environment,
            cwd=Path(__file__).parent,
        ) as process:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", database.dsn
            process.terminate()


def command_here(
    settings: Mapping[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Here:
    """Make the command, with these settings."""
    for name, text in settings.items():
        monkeypatch.setenv(name, text)

    def command(*arguments: str, said: str = "", code: int | None = 0) -> str:
        done = run(["webhook", *arguments])
        captured = capsys.readouterr()
        output = captured.err + captured.out
        assert code in (done, None), output
        assert said in output
        return output

    return command
