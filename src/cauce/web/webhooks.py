"""``POST /api/webhooks/{origen}``: read, verify, store, commit, and only then answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import psycopg

from cauce.database import inbox
from cauce.database.refusals import explained
from cauce.web.answers import JSON, Endpoint, ErrorCode, Failed, error, json_answer, no_database, wrong_method
from cauce.web.body import read_body, read_headers
from cauce.web.intake import Intake
from cauce.web.quarantine import Quarantine
from cauce.web.secrets import Keyring, SecretSource
from cauce.webhooks import PROVIDERS, Answer, Headers, NuevoWebhook, Outcome, Provider, Reason, Rejected, WebhookRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from cauce.config import Settings
    from cauce.database.inbox import Stored
    from cauce.web.connections import HttpConnections

logger = logging.getLogger("cauce.web")

_SEGMENTS: Final = 3  # of /api/webhooks/{origen}


class Webhooks(Endpoint):
    """The inbox of every provider.

    Args:
        connections: to the database.
        providers: beside those of ``PROVIDERS``, or instead of one of the same ``origen``.
        secrets: from the name of a provider's setting to its secrets.
        settings: limits, and what is kept.
    """

    def __init__(
        self, connections: HttpConnections, providers: Iterable[Provider], secrets: SecretSource, settings: Settings
    ) -> None:
        self._connections, self._keyring, self._intake = connections, Keyring(secrets), Intake(connections)
        self._max_body, self._keep_raw = settings.max_body_bytes, settings.keep_raw_bodies
        self._public_url = settings.public_url
        self._quarantine = Quarantine(connections) if settings.quarantine_days else None
        self._providers = {provider.origen: provider for provider in providers}

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Receive one delivery."""
        provider = self._provider(scope["path_params"]["origen"])
        headers = read_headers(scope)
        is_post = scope["method"] == "POST"
        body = await read_body(scope, receive, headers, self._max_body) if is_post else b""
        request = WebhookRequest(body, headers, url_of(scope, headers, self._public_url), scope["method"])
        special = provider.preflight(request)
        if special is not None:
            return special
        if not is_post:
            return wrong_method("POST")
        secrets, now = await self._keyring.secrets(provider.secret_setting), time.time()
        verdict = secrets if isinstance(secrets, Rejected) else provider.verify(request, secrets, now)
        if isinstance(verdict, Rejected):
            if self._quarantine is not None:
                known = () if isinstance(secrets, Rejected) else secrets
                self._quarantine.take(provider, request, known, now, verdict)
            return _refuse(provider, verdict)
        question = provider.handshake(request)
        if question is not None:
            return question
        webhooks = provider.describe(request, verdict)
        kept = body if self._keep_raw else None
        try:
            stored = await self._intake.store(inbox.rows_of(webhooks, verdict, kept))
            await self._look_at(provider, webhooks, kept, stored)
        except psycopg.Error as problem:
            _log_database(provider, problem)
            return provider.respond(Outcome.UNAVAILABLE) or no_database(problem)
        new = any(not one.duplicado for one in stored)
        return provider.respond(Outcome.STORED if new else Outcome.DUPLICATE) or _accept(stored)

    async def finish(self) -> None:
        """Wait for the work that outlives its request: open transactions and the quarantine."""
        await self._intake.finish()
        if self._quarantine is not None:
            await self._quarantine.finish()

    async def _look_at(
        self, provider: Provider, webhooks: Sequence[NuevoWebhook], body: bytes | None, results: Sequence[Stored]
    ) -> None:
        """Log events stored in error, and duplicates with different content."""
        for stored, webhook in zip(results, webhooks, strict=True):
            if not stored.duplicado:
                if webhook.error is not None:
                    origen, why = provider.origen, webhook.error
                    logger.warning("event %s of %s is kept raw, in error: %s", stored.id, origen, why)
            elif stored.id is not None:
                fields = await self._connections.run(
                    partial(
                        inbox.differences,
                        evento=stored.id,
                        webhook=webhook,
                        volatile=provider.volatile_fields,
                        body=body,
                    )
                )
                if fields:
                    logger.warning(
                        "%s sent %s again with different content, which was ignored: event %s differs in %s",
                        provider.origen,
                        webhook.id_externo,
                        stored.id,
                        ", ".join(fields),
                    )

    def _provider(self, origen: str) -> Provider:
        provider = self._providers.get(origen)
        if provider is None:
            provider = PROVIDERS.get(origen)
        if provider is None:
            raise Failed(error(ErrorCode.UNKNOWN_ORIGIN, "no provider of that name is known here"))
        return provider


def _accept(stored: Sequence[Stored]) -> Answer:
    """Answer with the id of one event; for a batch, with all ids and those of duplicates."""
    if len(stored) == 1:
        (one,) = stored
        body = b'{"id": %s, "duplicado": %s}' % (
            b"null" if one.id is None else b"%d" % one.id,
            b"true" if one.duplicado else b"false",
        )
        return Answer(HTTPStatus.OK, body, JSON)
    return json_answer({"ids": [one.id for one in stored], "duplicados": [one.id for one in stored if one.duplicado]})


def _refuse(provider: Provider, rejected: Rejected) -> Answer:
    """Answer a delivery that is not verified; whose fault it is decides whether the sender should try again."""
    logger.warning("a delivery of %s was refused: %s", provider.origen, rejected)
    answer = provider.respond(Outcome.UNAVAILABLE if rejected.reason.is_ours else Outcome.REJECTED)
    if answer is not None:
        return answer
    if rejected.reason is Reason.EMPTY_SECRET:
        return error(ErrorCode.NO_SECRET, rejected.detail)
    code = ErrorCode.CANNOT_VERIFY if rejected.reason.is_ours else ErrorCode.BAD_SIGNATURE
    return error(code, f"{rejected.reason}: {rejected.detail}")


def _log_database(provider: Provider, problem: psycopg.Error) -> None:
    """Log a warning if the database is unavailable, an error with its traceback if it refuses a statement."""
    expected = isinstance(problem, (psycopg.OperationalError, psycopg.InterfaceError))
    log = logger.warning if expected else logger.exception
    log("a delivery of %s was not stored, and is answered 503: %s", provider.origen, explained(problem) or problem)


def url_of(scope: Scope, headers: Headers, public_url: str = "") -> str:
    """Return the address that the sender called; ``X-Forwarded-*`` is not looked at.

    Args:
        scope: the request's. Mounts, prefixes and ``root_path`` count in what this process sees, and in nothing else.
        headers: the request's.
        public_url: what stands before ``/api/webhooks/{origen}`` outside, if that is another than this process sees.
    """
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    base = public_url or f"{scope['scheme']}://{headers.get('host') or ''}"
    if public_url:
        path = b"/" + b"/".join(path.split(b"/")[-_SEGMENTS:])
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    return base + (path + query).decode("latin-1")
