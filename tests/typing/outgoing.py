"""What type checkers say of outgoing webhooks: a marked line must be an error."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from dataclasses import dataclass
from typing import assert_type

from cauce import Catalog, EventType, Subscriber
from cauce.outgoing import Destinations, Rules, Timeouts, Webhook
from cauce.outgoing.destinations import Destino


@dataclass
class Uno:
    """A payload."""


class Events(Catalog, origen="typing"):
    """Two payloads, one of them no class of anybody's."""

    uno = EventType("uno", Uno)
    dos = EventType("dos", dict[str, int])


webhook = Webhook("https://socio.example/", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", timeouts=Timeouts(total=10))
Subscriber("socio", Events.uno.handled_by(webhook), Events.dos.handled_by(webhook), grupo="socio")

Webhook("https://socio.example/", lambda: "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", rules=Rules(allow_private=True))
Webhook("https://socio.example/", None)  # type: ignore[arg-type]
Webhook("https://socio.example/")  # type: ignore[call-arg]
Rules(allow_private="yes")  # type: ignore[arg-type]

assert_type(Destinations().enable("socio"), bool)
assert_type(Destinations().find("socio"), Destino | None)
