"""Explains a delivery line by line: its headers, what is signed, when and with which secret, or why it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cauce.webhooks.explaining.diagnose import Inquiry
from cauce.webhooks.explaining.moments import iso, signed_at
from cauce.webhooks.provider import Outcome, Provider
from cauce.webhooks.providers.standard import StandardWebhooks
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.secrets import Secret, written
from cauce.webhooks.signing import TemplateProvider
from cauce.webhooks.verdict import Rejected, Verdict, Verified

SHOWN: Final = 60
"""Characters of a header that are shown."""
_NAMES: Final = {"raw_body": "the whole body", "timestamp": "a time", "url": "the URL", "crc32": "the body's CRC-32"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict, and the lines that explain it as (label, text)."""

    verdict: Verdict
    lines: tuple[tuple[str, str], ...]


def explain(
    provider: Provider,
    request: WebhookRequest,
    secrets: Sequence[Secret],
    now: float,
    others: Mapping[str, Sequence[Secret]] | None = None,
) -> Explanation:
    """Verify a request as of ``now`` (Unix seconds) and explain the verdict.

    ``others`` are the secrets of other settings, which are tried if none of the provider's matches.
    """
    verdict = provider.verify(request, secrets, now)
    lines = [("request", _request_line(request)), ("provider", f"{provider}, {provider.documentation}")]
    lines += [("header", text) for text in _headers(provider, request)]
    lines += _scope(provider)
    lines.append(("time", _time(provider, request, now)))
    if isinstance(verdict, Verified):
        lines += _accepted(provider, request, verdict, secrets)
    else:
        lines += _refused(Inquiry(provider, request, secrets, now, others or {}), verdict)
    return Explanation(verdict, tuple(lines))


def _request_line(request: WebhookRequest) -> str:
    content_type = request.headers.get("content-type") or "no content type"
    return f"{request.method} {request.url}, {len(request.body)} bytes, {content_type}"


def _headers(provider: Provider, request: WebhookRequest) -> Iterator[str]:
    """Yield the headers that verification needs or that are stored."""
    needed: tuple[str, ...] = ()
    if isinstance(provider, TemplateProvider):
        needed = tuple(name for name in (provider.header, provider.timestamp_header, provider.id_header) if name)
    elif isinstance(provider, StandardWebhooks):
        needed = tuple(f"{provider.family_of(request)}-{part}" for part in ("id", "timestamp", "signature"))
    for name in dict.fromkeys(name.lower() for name in (*needed, *provider.keep_headers)):
        values = request.headers.all(name)
        if values:
            text = values[0][:SHOWN] + ("..." if len(values[0]) > SHOWN else "")
            yield f"{name}: {text}" + (f" (sent {len(values)} times)" if len(values) > 1 else "")
        elif name in {one.lower() for one in needed}:
            yield f"{name} is missing"


def _scope(provider: Provider) -> Iterator[tuple[str, str]]:
    """Yield what is signed, and what is not."""
    covered = [_NAMES.get(name, name) for name in provider.signed.names()]
    yield "signed", ", ".join(covered) or "nothing: the request only shows that its sender knows the token"
    if not provider.signed.raw_body:
        yield "unsigned", "the rest of the body: whoever has one delivery can change it"


def _time(provider: Provider, request: WebhookRequest, now: float) -> str:
    if not provider.signed.timestamp:
        return "not signed: a delivery never expires; its id prevents duplicates"
    moment = signed_at(provider, request)
    if moment is None:
        return "no readable timestamp"
    away = f"{now - moment:.0f} s before" if now >= moment else f"{moment - now:.0f} s after"
    return f"{iso(moment)}, {away} {iso(now)}; {provider.tolerance:.0f} s are allowed"


def _accepted(
    provider: Provider, request: WebhookRequest, verified: Verified, secrets: Sequence[Secret]
) -> Iterator[tuple[str, str]]:
    index = verified.secret or 0
    which = "the secret" if len(secrets) == 1 else f"secret {index + 1} of {len(secrets)}"
    until = secrets[index].until
    window = f"; it is accepted until {written(until)}" if until is not None else ""
    yield "secret", f"{which} in {provider.secret_setting} matches ({verified.scheme}){window}"
    question = provider.handshake(request)
    if question is not None:
        yield "verified", f"a handshake of the provider, not an event: answered {question.status}, not stored"
        return
    for event in provider.describe(request, verified):
        marked = f"; unsigned: {', '.join(event.sin_firmar)}" if event.sin_firmar else ""
        yield "event", f"{event.tipo}, id {event.id_externo}{marked}"
        if event.error is not None:
            yield "event", f"would be stored raw, in state error: {event.error}"
    answer = provider.respond(Outcome.STORED)
    yield "verified", f"stored, and answered {answer.status if answer else 200}"


def _refused(inquiry: Inquiry, rejected: Rejected) -> Iterator[tuple[str, str]]:
    ours = rejected.reason.is_ours
    answer = inquiry.provider.respond(Outcome.UNAVAILABLE if ours else Outcome.REJECTED)
    status = answer.status if answer else (503 if ours else 400)
    yield "refused", f"{rejected.reason}, answered {status}: {rejected.detail}"
    cause = inquiry.cause(rejected)
    if cause.found:
        yield "cause", cause.found
    yield "to do", cause.todo
