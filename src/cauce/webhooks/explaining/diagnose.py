"""Finds out why a signature does not match, by verifying the request as it may have been before something changed it.

Guessing is safe here, because nothing is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from cauce.webhooks.explaining.moments import iso, signed_at
from cauce.webhooks.limits import MAX_FORM_FIELDS
from cauce.webhooks.payload import without_bom
from cauce.webhooks.provider import Provider
from cauce.webhooks.providers.standard import StandardWebhooks
from cauce.webhooks.registry import PROVIDERS
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import TemplateProvider
from cauce.webhooks.urls import INBOX, public_base, rewritten, shown_url
from cauce.webhooks.verdict import Reason, Rejected, Verified

_HALF_HOUR: Final = 1800
_NEAR: Final = 5
"""Seconds by which a difference may miss a multiple of half an hour."""
_ZONES: Final = 28
"""The largest offset of a time zone from UTC, in half hours."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause of a refusal (empty: unknown), and what to do about it."""

    found: str
    todo: str


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A refused request and its provider; ``others`` are the secrets of other settings."""

    provider: Provider
    request: WebhookRequest
    secrets: Sequence[Secret]
    now: float
    others: Mapping[str, Sequence[Secret]]

    def cause(self, rejected: Rejected) -> Cause:
        """Return the cause, if it can be found."""
        found: Cause | None = None
        if rejected.reason is Reason.BAD_SIGNATURE:
            found = (
                self._window()
                or self._meant_secret()
                or self._rewritten_body()
                or self._forwarded_url()
                or self._undecided()
            )
        elif rejected.reason is Reason.URL_MISMATCH:
            found = self._rewritten_url()
        elif rejected.reason in (Reason.EXPIRED_SECRET, Reason.EARLY_SECRET, Reason.EMPTY_SECRET):
            found = self._window()
        elif rejected.reason in (Reason.STALE, Reason.FUTURE):
            found = self._clock()
        elif rejected.reason in (Reason.MISSING_HEADER, Reason.MALFORMED_BODY):
            found = self._other_provider()
        return found or Cause("", rejected.reason.advice)

    def _fits(self, request: WebhookRequest, secrets: Sequence[Secret]) -> bool:
        """Return whether the signature is good, whatever its age."""
        verdict = self.provider.verify(request, secrets, self.now)
        return isinstance(verdict, Verified) or verdict.reason in (Reason.STALE, Reason.FUTURE, Reason.CONTRADICTION)

    def _window(self) -> Cause | None:
        """Try the secrets that are not accepted at present."""
        for secret in self.secrets:
            bare = Secret(secret.text)
            if secret.accepted_at(self.now) or not secret.text.strip() or not self._fits(self.request, [bare]):
                continue
            if secret.until is not None and secret.expired_at(self.now):
                past = f"its secret expired {self.now - secret.until.timestamp():.0f} s earlier"
                return Cause(f"the signature is good, but {past}", Reason.EXPIRED_SECRET.advice)
            if secret.since is not None:
                ahead = f"its secret is accepted only {secret.since.timestamp() - self.now:.0f} s later"
                return Cause(f"the signature is good, but {ahead}", Reason.EARLY_SECRET.advice)
        return None

    def _meant_secret(self) -> Cause | None:
        """Try the secret without common copying mistakes, and the secrets of other settings."""
        setting = self.provider.secret_setting
        for secret in self.secrets:
            bare = secret.text.strip().strip("'\"")
            for said, text in (
                ("with quotes around it", bare),
                ("without its whsec_", f"whsec_{bare}"),
                ("with a whsec_ that is not the provider's", bare.removeprefix("whsec_")),
            ):
                if text != secret.text and self._fits(self.request, [Secret(text)]):
                    return Cause(f"{setting} has the secret {said}", "Set it exactly as the provider shows it.")
        for other, secrets in self.others.items():
            if other != setting and self._fits(self.request, secrets):
                found = f"the request is signed with the secret in {other}, but was verified with {setting}"
                return Cause(found, "Send it to the right endpoint, or swap the two secrets.")
        return None

    def _rewritten_body(self) -> Cause | None:
        """Try the body as it may have been sent: if the signature matches one form, the secret is right."""
        if not self.provider.signed.raw_body:
            return None
        for name, body in rewritings(self.request.body):
            if body != self.request.body and self._fits(replace(self.request, body=body), self.secrets):
                return Cause(
                    f"the secret is right, but the body was rewritten: the signature matches the same content {name}",
                    "Find what parses and rewrites it (a proxy, a middleware, a test tool), and let it forward the raw"
                    " bytes.",
                )
        return None

    def _rewritten_url(self) -> Cause | None:
        """Try other spellings of the URL."""
        return self._public_url(rewritten(self.request.url), "another spelling of it")

    def _forwarded_url(self) -> Cause | None:
        """Try the URLs in a proxy's headers. The inbox never trusts these; here they are a hint."""
        headers = self.request.headers
        scheme, _, rest = self.request.url.partition("://")
        host, slash, path = rest.partition("/")
        host = _first(headers.get("x-forwarded-host")) or host
        prefix = _first(headers.get("x-forwarded-prefix")).strip("/")
        schemes = dict.fromkeys((_first(headers.get("x-forwarded-proto")) or scheme, "https"))
        paths = dict.fromkeys((path, f"{prefix}/{path}" if prefix else path))
        urls = [f"{scheme}://{host}{slash}{path}" for scheme in schemes for path in paths]
        return self._public_url(urls, "X-Forwarded-* names it")

    def _public_url(self, urls: Iterable[str], hint: str) -> Cause | None:
        """Return how to configure the first URL that the signature matches."""
        seen = self.request.url
        if not self.provider.signed.url:
            return None
        for url in urls:
            if url == seen or not self._fits(replace(self.request, url=url), self.secrets):
                continue
            base = public_base(url)
            if base and base != public_base(seen):
                todo = f"Set CAUCE_PUBLIC_URL={base}, the part of the public address before {INBOX}."
            else:
                todo = f"Configure the provider with public_url={url.partition('?')[0]!r}."
            signed, here = shown_url(url), shown_url(seen)
            return Cause(f"the provider signed {signed} ({hint}), but the inbox sees {here}", todo)
        return None

    def _undecided(self) -> Cause:
        """Return the remaining causes: a wrong secret or a changed body."""
        setting, signed, body = self.provider.secret_setting, self.provider.signed, self.request.body
        if not signed.raw_body and "crc32" not in signed.fields:
            covered = ", ".join(signed.names()) or "the token"
            return Cause(
                f"the secret is wrong, or one of the signed parts was changed: only {covered} are signed here, so no"
                " other change can be the cause",
                f"Set {setting} to the secret of this endpoint; test and live mode have different ones.",
            )
        declared = self.request.headers.get("content-length") or ""
        if declared.isdecimal() and int(declared) != len(body):
            found = f"the body was changed after it was sent: it has {len(body)} of {declared} bytes"
            return Cause(found, "Capture the whole request again.")
        length = "; its length was not changed, so the secret is more likely" if declared else ""
        return Cause(
            f"the secret is wrong, or the body's content was changed: no usual rewriting explains it{length}",
            f"Compare {setting} with the secret of this endpoint. Each endpoint has its own, and so have test mode,"
            " live mode, and a forwarder on the command line. If it is the same, find what changes the body"
            + (f", or the URL, which is signed and was received as {self.request.url}." if signed.url else "."),
        )

    def _clock(self) -> Cause | None:
        """Distinguish a wrong clock from an old request; the signature is good."""
        moment = signed_at(self.provider, self.request)
        if moment is None:
            return None
        skew = self.now - moment
        judged = f"The signature is good; --at {iso(moment)} verifies it as of that time."
        halves = round(skew / _HALF_HOUR)
        if 0 < abs(halves) <= _ZONES and abs(skew - halves * _HALF_HOUR) < _NEAR:
            found = f"the clocks differ by almost exactly {abs(halves) / 2:g} h, as if one took local time for UTC"
            return Cause(found, f"Set the clock of this host by NTP. {judged}")
        with suppress(ValueError, TypeError):
            sent = parsedate_to_datetime(self.request.headers.get("date") or "").timestamp()
            if abs(sent - moment) <= self.provider.tolerance:
                return Cause("by its Date header it was fresh when it was sent: it was delayed on its way", judged)
        if skew < 0:
            return Cause("the clock of this host is behind the provider's", f"Set it by NTP. {judged}")
        return Cause("it is old: a captured request, a delayed request, or a replay", judged)

    def _other_provider(self) -> Cause | None:
        """Recognize another provider by its signature header."""
        own = signature_headers(self.provider)
        for origen, other in PROVIDERS.items():
            there = [name for name in signature_headers(other) if name not in own and self.request.headers.all(name)]
            if there:
                return Cause(
                    f"it has the header {there[0]} of {origen}, but was sent to {self.provider.origen}",
                    f"Send it to /api/webhooks/{origen}; to try that here, use --provider {origen}.",
                )
        return None


def _first(header: str | None) -> str:
    """Return the first of the comma-separated values; empty if there is none."""
    return (header or "").split(",", maxsplit=1)[0].strip()


def signature_headers(provider: Provider) -> tuple[str, ...]:
    """Return the names of the headers that may contain a provider's signature, in lower case."""
    if isinstance(provider, TemplateProvider):
        return (provider.header.lower(),)
    if isinstance(provider, StandardWebhooks):
        return tuple(f"{family}-signature" for family in provider.families)
    return tuple(name for name in provider.keep_headers if "signature" in name and not name.endswith("timestamp"))


def rewritings(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, body) for each form that a body may have had before something rewrote it."""
    yield "with a newline at its end", body + b"\n"
    yield "without the white space around it", body.strip()
    yield "with lines that end in LF", body.replace(b"\r\n", b"\n")
    yield "with lines that end in CRLF", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "without the byte order mark", without_bom(body)
    with suppress(UnicodeError):
        yield "encoded as latin-1", body.decode().encode("latin-1")
    with suppress(UnicodeError):
        yield "before it was read as latin-1 and written as UTF-8", body.decode().encode("latin-1").decode().encode()
    with suppress(ValueError, RecursionError):
        yield from _writings(json.loads(body))
    with suppress(ValueError):
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FORM_FIELDS)
        yield "as a form with + for spaces", urlencode(pairs).encode()
        yield "as a form with %20 for spaces", urlencode(pairs, quote_via=quote).encode()


def _writings(value: object) -> Iterator[tuple[str, bytes]]:
    """Yield JSON as the usual serializers write it."""
    for order, sort in (("", False), (", keys sorted", True)):
        for name, separators, indent in (
            ("compactly", (",", ":"), None),
            ("with a space after commas and colons", (", ", ": "), None),
            ("indented by two", (",", ": "), 2),
            ("indented by four", (",", ": "), 4),
        ):
            for letters, ascii_only in (("", True), (", letters unescaped", False)):
                text = json.dumps(value, separators=separators, indent=indent, ensure_ascii=ascii_only, sort_keys=sort)
                with suppress(UnicodeEncodeError):
                    yield f"as JSON written {name}{letters}{order}", text.encode()
                    yield f"as JSON written {name}{letters}{order}, a newline at its end", text.encode() + b"\n"
                    yield f"as JSON written {name}{letters}{order}, slashes escaped", text.replace("/", r"\/").encode()
                    safe = text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
                    yield f"as JSON written {name}{letters}{order}, <, > and & escaped", safe.encode()
