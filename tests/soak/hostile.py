"""What attackers send: deliveries that were good until something was done to them, and requests that never were.

Beside that, what each provider says that it signs, read from a request by code of its own and not by the verifiers:
whatever is still accepted must have that in common with a delivery that was signed.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from cauce.webhooks import PROVIDERS, Headers, Provider, Secret, WebhookRequest
from cauce.webhooks.providers.standard import StandardWebhooks
from cauce.webhooks.signing import HmacProvider
from cauce.webhooks.trying.keys import Keys, new_keys
from cauce.webhooks.trying.samples import samples_of

Field: TypeAlias = "tuple[str, int]"
"""A part of a request that has bytes: ``body``, ``url``, a header's value, a parameter's in the URL, by position."""

TOKENS: Final = (
    b"", b"\0", b"\xff", b"\xc3\xa9", b"\r\n", b" ", b"\t", b",", b";", b"=", b".", b":", b"|", b"&", b"#", b"+", b'"',
    b"%00", b"%ff", b"%2e", b"\\u0000", b"\\ud800", b"1e999", b"NaN", b"-0", b"9" * 400, b"[" * 200, b'{"a":' * 150,
    b"\xe2\x80\xae", b"\xd9\xa3", b"\xb2", b"t=1", b"v1=", b"v1,", b"v1a,", b"h1=", b"sha256=", b"sha1=", b"v0=",
    b";request-id:", b";ts:", b"payload=", b"a" * 5000, b"\xef\xbb\xbf", b"null", b"true", b"{}", b"[]",
)  # fmt: skip
NAMES: Final = (b"content-type", b"content-length", b"host", b"date", b"x", b"", b"transfer-encoding", b"user-agent")


@dataclass(frozen=True)
class Wire:
    """A request in parts that can be spoiled."""

    method: str
    url: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @classmethod
    def of(cls, request: WebhookRequest) -> Wire:
        """Take a request apart."""
        return cls(request.method, request.url, tuple(request.headers.raw()), request.body)

    def request(self) -> WebhookRequest:
        """Put it together, as the HTTP layer does."""
        return WebhookRequest(self.body, Headers(self.headers), self.url, self.method)

    def fields(self) -> list[Field]:
        """List the parts."""
        parameters = len(self._parameters()) if "?" in self.url else 0
        several = (("header", len(self.headers)), ("parameter", parameters))
        return [("body", 0), ("url", 0), *((kind, index) for kind, count in several for index in range(count))]

    def get(self, field: Field) -> bytes:
        """Return a part's bytes."""
        kind, index = field
        if kind == "body":
            return self.body
        if kind == "header":
            return self.headers[index][1]
        text = self.url if kind == "url" else unquote(self._parameters()[index].partition("=")[2])
        return text.encode("utf-8", "surrogateescape")

    def put(self, field: Field, content: bytes) -> Wire:
        """Return a copy with other bytes there."""
        kind, index = field
        if kind == "body":
            return replace(self, body=content)
        if kind == "url":
            return replace(self, url=content.decode("utf-8", "surrogateescape"))
        if kind == "header":
            fields = list(self.headers)
            fields[index] = (fields[index][0], content)
            return replace(self, headers=tuple(fields))
        parameters = self._parameters()
        parameters[index] = parameters[index].partition("=")[0] + "=" + quote(content)
        return replace(self, url=self.url.partition("?")[0] + "?" + "&".join(parameters))

    def _parameters(self) -> list[str]:
        return self.url.partition("?")[2].split("&")


@dataclass(frozen=True)
class Target:
    """A provider with a secret, and some deliveries that it signed."""

    provider: Provider
    keys: Keys
    deliveries: tuple[Wire, ...]

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What to verify with."""
        return (Secret(self.keys.verify),)


def target(origen: str, now: float, keys: Keys | None = None, host: str = "https://a.example") -> Target:
    """Sign one delivery of each of a provider's samples, with new keys unless some are given."""
    keys = keys or new_keys(PROVIDERS[origen], now)
    provider = keys.trusted_by(PROVIDERS[origen])
    drafts = [
        sample.draft(
            provider,
            f"{host}/api/webhooks/{origen}?x=1",
            hashlib.sha256(f"{origen}{number}".encode()).hexdigest()[:32],
            now,
        )
        for number, sample in enumerate(samples_of(origen).values())
    ]
    signed = (provider.sign(draft, Secret(keys.sign), now) for draft in drafts)
    return Target(provider, keys, tuple(Wire.of(request) for request in signed))


# --- what is done to a delivery ---------------------------------------------------------------------------------------


def spoiled(dice: Random, deliveries: Sequence[Wire]) -> Wire:
    """Do one to four things to a good delivery."""
    wire = dice.choice(deliveries)
    for _ in range(dice.randint(1, 4)):
        wire = dice.choice(DEEDS)(dice, wire, deliveries)
    return wire


def strange(dice: Random, deliveries: Sequence[Wire]) -> Wire:
    """Make a request of pieces, under the names that the provider reads."""
    names = [name for wire in deliveries for name, _ in wire.headers] + list(NAMES)
    values = [*TOKENS, *(value for wire in deliveries for _, value in wire.headers)]

    def piece() -> bytes:
        return b"".join(dice.choice((*TOKENS, dice.randbytes(3))) for _ in range(dice.randint(0, 6)))

    headers = tuple((dice.choice(names), dice.choice((*values, piece()))) for _ in range(dice.randint(0, 8)))
    url = dice.choice(("", "//", "http://[", "https://a:b:c/", dice.choice(deliveries).url)) + piece().decode("latin-1")
    method = dice.choice(("POST", "POST", "HEAD", "GET", "", "PUT"))
    return Wire(method, url, headers, dice.choice((piece(), dice.choice(deliveries).body)))


def change_bytes(dice: Random, wire: Wire, deliveries: Sequence[Wire]) -> Wire:
    """Change some bytes of one part."""
    field = dice.choice(wire.fields())
    content = wire.get(field)
    start, end = sorted((dice.randint(0, len(content)), dice.randint(0, len(content))))
    first, middle, last = content[:start], content[start:end], content[end:]
    other = dice.choice(deliveries)
    elsewhere = other.get(field) if field in other.fields() else b""
    return wire.put(
        field,
        dice.choice(
            (
                first + bytes(byte ^ 1 << dice.randint(0, 7) for byte in middle[:1]) + middle[1:] + last,
                first + dice.choice(TOKENS) + middle + last,
                first + dice.choice(TOKENS) + last,
                first + dice.randbytes(1) + middle + last,
                first + last,
                first + middle + middle + last,
                last + middle + first,
                first,
                last,
                content.swapcase(),
                first + elsewhere[start:],
                dice.choice(TOKENS),
            )
        ),
    )


def shift_border(dice: Random, wire: Wire, _: Sequence[Wire]) -> Wire:
    """Move some bytes from one part to another, so that what is signed, put together, stays the same."""
    fields = wire.fields()
    one, other = dice.choice(fields), dice.choice(fields)
    content = wire.get(one)
    cut = dice.choice((0, len(content), dice.randint(0, len(content)), max(0, len(content) - 1), min(1, len(content))))
    rest, moved = dice.choice(((content[:cut], content[cut:]), (content[cut:], content[:cut])))
    wire = wire.put(one, rest)
    if other not in wire.fields():
        return wire
    there = wire.get(other)
    token = dice.choice(TOKENS)
    return wire.put(other, dice.choice((moved + token + there, there + token + moved)))


def change_headers(dice: Random, wire: Wire, deliveries: Sequence[Wire]) -> Wire:
    """Drop, double, rename or borrow a header."""
    if not wire.headers:
        return wire
    headers = list(wire.headers)
    index = dice.randrange(len(headers))
    name, value = headers[index]
    borrowed = dice.choice(dice.choice(deliveries).headers or ((b"x", b"y"),))
    deed = dice.choice(("drop", "double", "empty", "case", "family", "rename", "borrow", "add", "strange"))
    if deed == "drop":
        del headers[index]
    elif deed == "double":
        headers.insert(dice.randint(0, len(headers)), (name, dice.choice((value, borrowed[1], dice.choice(TOKENS)))))
    elif deed == "empty":
        headers[index] = (name, b"")
    elif deed == "case":
        headers[index] = (name.upper(), value)
    elif deed == "family":
        turned = name.replace(b"webhook-", b"svix-")
        headers[index] = (turned if turned != name else name.replace(b"svix-", b"webhook-"), value)
    elif deed == "rename":
        headers[index] = (dice.choice((*NAMES, borrowed[0])), value)
    elif deed == "borrow":
        headers = [(other, borrowed[1] if other == borrowed[0] else kept) for other, kept in headers]
    elif deed == "add":
        headers.append((dice.choice((*NAMES, borrowed[0])), dice.choice(TOKENS)))
    else:
        headers.append((dice.randbytes(3), dice.randbytes(3)))
    return replace(wire, headers=tuple(headers))


def change_json(dice: Random, wire: Wire, _: Sequence[Wire]) -> Wire:
    """Change, add, double or take away something in a JSON body."""
    try:
        value: Any = json.loads(wire.body)
    except (ValueError, RecursionError):
        return wire
    inside = value
    while isinstance(inside, dict | list) and inside and dice.randint(0, 3):
        inner = list(inside.values()) if isinstance(inside, dict) else inside
        chosen = dice.choice(inner)
        if not isinstance(chosen, dict | list):
            break
        inside = chosen
    new: Any = dice.choice((None, True, 0, -1, 1.5, 10**400, "", "x", "\0", "\ud800", [], {}, value))
    if isinstance(inside, dict):
        key = dice.choice([*inside, "x", "", "id", "type"])
        if dice.randint(0, 1):
            inside.pop(key, None)
        else:
            inside[key] = new
    elif isinstance(inside, list):
        inside.insert(dice.randint(0, len(inside)), dice.choice((new, *inside)))
        if dice.randint(0, 1):
            inside.pop(0)
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # it holds itself
        return wire
    if dice.randint(0, 3) == 0 and text.startswith('{"'):
        text = text[:-1] + ', "id": "doubled"}'
    return replace(wire, body=text.encode("utf-8", "surrogatepass"))


def change_url(dice: Random, wire: Wire, _: Sequence[Wire]) -> Wire:
    """Write the URL in another way, or add to it."""
    url = wire.url
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return replace(
        wire,
        url=dice.choice(
            (
                f"http{mark}{rest}",
                f"{scheme}{mark}{host}:443{slash}{path}",
                f"{scheme}{mark}{host}:80{slash}{path}",
                f"{scheme}{mark}{host}:{slash}{path}",
                f"{scheme}{mark}u:p@{host}{slash}{path}",
                f"{scheme}{mark}{host.upper()}{slash}{path}",
                url + "#x",
                url + "/",
                url + "&data.id=1",
                url + "&bodySHA256=" + hashlib.sha256(wire.body).hexdigest(),
                url.replace("?", "?data.id=1&"),
                url.replace("e", "%65"),
                url.replace("data.id", "data%2Eid"),
                url.partition("?")[0],
                "",
            )
        ),
    )


def change_form(dice: Random, wire: Wire, _: Sequence[Wire]) -> Wire:
    """Shuffle, double, cut or spoil the fields of a form."""
    fields = wire.body.split(b"&")
    deed = dice.randint(0, 3)
    index = dice.randrange(len(fields))
    if deed == 0:
        dice.shuffle(fields)
    elif deed == 1:
        fields.append(fields[index])
    elif deed == 2:
        del fields[index]
    else:
        name, equals, value = fields[index].partition(b"=")
        fields[index] = name + value[:1] + equals + value[1:]
    return replace(wire, body=b"&".join(fields))


def exchange(dice: Random, wire: Wire, deliveries: Sequence[Wire]) -> Wire:
    """Take the body, the headers or the URL of another good delivery."""
    other = dice.choice(deliveries)
    return dice.choice(
        (
            replace(wire, body=other.body),
            replace(wire, headers=other.headers),
            replace(wire, url=other.url),
            replace(wire, method=dice.choice(("HEAD", "GET", "PUT", "post"))),
        )
    )


DEEDS: Final[tuple[Callable[[Random, Wire, Sequence[Wire]], Wire], ...]] = (
    change_bytes, change_bytes, change_bytes, shift_border, shift_border, change_headers, change_headers, change_json,
    change_url, change_form, exchange,
)  # fmt: skip


# --- what is signed ---------------------------------------------------------------------------------------------------


def signed_parts(origen: str, wire: Wire) -> frozenset[Any]:
    """Return what a provider's signature covers; of a batch that is signed item by item, of each item.

    Two spellings that the provider itself uses for one thing are one here: the case of Mercado Pago's ids, the port in
    Twilio's URLs, the white space around a header.
    """
    request, provider = wire.request(), PROVIDERS[origen]
    if origen in ITEMS:
        return frozenset(ITEMS[origen](request))
    if origen in PARTS:
        return frozenset([PARTS[origen](request)])
    if isinstance(provider, StandardWebhooks):
        family = "webhook" if request.headers.all("webhook-signature") else "svix"
        return frozenset([(head(request, f"{family}-id"), head(request, f"{family}-timestamp"), request.body)])
    assert isinstance(provider, HmacProvider), f"nobody has said here what {origen} signs"
    parts: list[Any] = [request.body]
    if "{timestamp}" in provider.template:
        text = head(request, provider.timestamp_header or provider.header)
        if pairs := provider.pairs:
            between = pairs.separator
            text = re.findall(rf"(?:^|{between})\s*{pairs.timestamp}=([^{between}]*)", text)[0].strip()
        parts.append(text)
    if "{url}" in provider.template:
        parts.append(request.url)
    return frozenset([tuple(parts)])


def head(request: WebhookRequest, name: str) -> str:
    """Return a header that came once."""
    (value,) = request.headers.all(name)
    return value


def _adyen(request: WebhookRequest) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for entry in json.loads(request.body)["notificationItems"]:
        item = entry["NotificationRequestItem"]
        amount = item.get("amount") if isinstance(item.get("amount"), dict) else {}
        names = ("pspReference", "originalReference", "merchantAccountCode", "merchantReference")
        values = [item.get(name) for name in names]
        values += [amount.get("value"), amount.get("currency"), item.get("eventCode"), item.get("success")]
        found.append(tuple(_written(value) for value in values))
    return found


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""


def _mailgun(request: WebhookRequest) -> tuple[str, str]:
    signature = json.loads(request.body)["signature"]
    return str(signature["timestamp"]), signature["token"]


def _mercadopago(request: WebhookRequest) -> tuple[str, str, str]:
    ids = [value for name, value in parse_qsl(urlsplit(request.url).query, keep_blank_values=True) if name == "data.id"]
    stamp = re.findall(r"(?:^|,)\s*ts=([^,]*)", head(request, "x-signature"))[0].strip()
    return (ids[0].lower() if len(ids) == 1 else ""), request.headers.get("x-request-id") or "", stamp


def _redsys(request: WebhookRequest) -> str:
    body = request.body.decode()
    form = json.loads(body) if body.lstrip().startswith("{") else dict(parse_qsl(body, keep_blank_values=True))
    return str(form["Ds_MerchantParameters"]).replace(" ", "+")


def _twilio(request: WebhookRequest) -> str:
    url = re.sub(r"^(https?://[^/?]*):[0-9]+(?=[/?]|$)", r"\1", request.url)
    if request.body.lstrip()[:1] in (b"{", b"["):
        assert request.parameter("bodySHA256") == hashlib.sha256(request.body).hexdigest()
        return url
    pairs = sorted(set(parse_qsl(request.body.decode(), keep_blank_values=True)))
    return url + "".join(name + value for name, value in pairs)


def _paypal(request: WebhookRequest) -> tuple[str, str, int]:
    parts = (head(request, f"paypal-transmission-{part}") for part in ("id", "time"))
    return (*parts, zlib.crc32(request.body))  # type: ignore[return-value]  # two and one are three


ITEMS: Final[dict[str, Callable[[WebhookRequest], Sequence[Any]]]] = {"adyen": _adyen}
PARTS: Final[dict[str, Callable[[WebhookRequest], Any]]] = {
    "discord": lambda request: (head(request, "x-signature-timestamp"), request.body),
    "gitlab_token": lambda request: head(request, "x-gitlab-token"),
    "mailgun": _mailgun,
    "mercadopago": _mercadopago,
    "paypal": _paypal,
    "redsys": _redsys,
    "sendgrid": lambda request: (head(request, "x-twilio-email-event-webhook-timestamp"), request.body),
    "twilio": _twilio,
}
