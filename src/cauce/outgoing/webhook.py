"""A handler that delivers events to another party's endpoint, made of a URL and a secret.

``signing`` writes the request, ``ssrf`` checks the address, ``sending`` sends; this module interprets the answer.
"""

from __future__ import annotations

import hashlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg

from cauce.outcome import Attempt, Discard, RetryAfter
from cauce.outgoing.sending import Reply, Timeouts, is_success, retry_after_seconds, send
from cauce.outgoing.signing import envelope, message_id, read_secrets, signed, without_secrets
from cauce.outgoing.ssrf import Address, DeliveryFailed, Rules, checked_addresses, read_url, resolve
from cauce.outgoing.threads import in_thread
from cauce.retry import RetryPolicy

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from cauce.evento import Evento
    from cauce.outgoing.destinations import Destinations
    from cauce.outgoing.ssrf import Resolver
    from cauce.webhooks.secrets import Secret

    T = TypeVar("T")

logger = logging.getLogger("cauce.outgoing")

WEBHOOK_RETRY: Final = RetryPolicy(max_attempts=30, base=10.0, cap=28_800.0)
"""Thirty attempts over three days on average, six at most: 10 s doubling to 8 h, full jitter.

Providers give up after one to three days (Stripe, Svix): an endpoint may be down over a weekend.
"""
MAX_RETRY_AFTER: Final = 86_400.0
"""Seconds of a ``Retry-After`` that are granted, at most."""
MAX_EXCERPT: Final = 500
"""Characters of the receiver's own words in an error."""
GONE: Final = 410
THROTTLED: Final = frozenset({429, 502, 503, 504})
"""The statuses whose ``Retry-After`` counts, which Standard Webhooks reads as "less, please"."""


class Webhook:
    """A handler that POSTs each event, signed, to a URL; for any payload.

    2xx is done. 410 disables the destination, if its state is kept, and gives the delivery up. Anything else, a
    redirect too, is a failure, tried again by ``retry``. Give it a group of its own: a receiver that is slow then
    delays nobody else.

    Args:
        url: ``https://...``, without user and fragment.
        secret: ``whsec_...`` (HMAC, v1) or ``whsk_...`` (Ed25519, v1a; needs the extra ``crypto``); several, separated
            by commas, during rotation. Or a function that returns that, called at every attempt, from the event loop.
        destino: the name its state is kept under; made from host and URL by default.
        destinations: where that state is kept; None: nowhere, and nothing is ever disabled.
        retry: used where the binding gives none.
        rules: which URLs and addresses are admitted.
        timeouts: how long the receiver may take.
        resolver: returns the addresses of a host; the system's by default.
        tls: how the receiver proves its name, if not by the system's certificate authorities.

    Raises:
        ConfigError: the URL or a secret cannot be used; neither is quoted.

    Example:
        >>> socio = Webhook("https://socio.example/eventos", new_secret())
        >>> Subscriber("socio", ReservaEvents.reserva_creada.handled_by(socio), grupo="socio")
    """

    def __init__(  # noqa: PLR0913 - all but the first two have their default
        self,
        url: str,
        secret: str | Callable[[], str],
        *,
        destino: str = "",
        destinations: Destinations | None = None,
        retry: RetryPolicy = WEBHOOK_RETRY,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target = read_url(url, rules)
        if isinstance(secret, str):
            read_secrets(secret)
        self._secret = secret
        # The URL itself may be a secret of the receiver's, and this name is stored and logged.
        fingerprint = hashlib.sha256(url.encode()).hexdigest()[:12]
        self.destino = destino or f"{self._target.host[:200]}/{fingerprint}"
        self.retry = retry
        self._destinations, self._rules, self._timeouts = destinations, rules, timeouts
        self._resolver, self._tls = resolver, tls

    def __repr__(self) -> str:
        """Name the destination, without path and secret."""
        return f"Webhook({self._target.origin!r}, destino={self.destino!r})"

    async def __call__(self, evento: Evento[Any], attempt: Attempt) -> None:
        """Deliver one event; its payload is whatever pydantic can write, hence Any.

        Raises:
            Discard: the destination is gone, or disabled.
            RetryAfter: the receiver asks for time.
            DeliveryFailed: anything else that is not a success.
            ConfigError: a secret cannot be used.
        """
        known = await self._record(lambda record: record.find(self.destino))
        if known is not None and known.motivo is not None:
            raise Discard(f"the destination {self.destino} is disabled since {known.deshabilitado_en}: {known.motivo}")
        secrets = read_secrets(self._secret if isinstance(self._secret, str) else self._secret())
        request = signed(envelope(evento), message_id(evento, attempt.idempotency_key), secrets, time.time())
        try:
            answer = await send(request, self._target, self._addresses, self._timeouts, self._tls)
        except DeliveryFailed as error:
            await self._failed(str(error))
            raise
        if not is_success(answer.status):
            await self._refused(answer, secrets, attempt)
        elif known is not None and known.fallando_desde is not None:
            await self._record(lambda record: record.succeeded(self.destino))

    async def _refused(self, answer: Reply, secrets: Sequence[Secret], attempt: Attempt) -> None:
        """Say what an answer that is no success means."""
        said = self._describe(answer, secrets)
        if answer.status == GONE:
            await self._record(lambda record: record.disable(self.destino, said))
            raise Discard(said)
        await self._failed(said)
        wait = retry_after_seconds(answer.retry_after, time.time()) if answer.status in THROTTLED else None
        if wait is None:
            raise DeliveryFailed(said)
        # What it asks for, and what the policy draws on top: one that always says "0" must not use all the attempts
        # up, and those that were all told "60" must not come back all at once.
        raise RetryAfter(min(wait, MAX_RETRY_AFTER) + self.retry.delay(attempt.number), said)

    async def _failed(self, said: str) -> None:
        motivo = await self._record(lambda record: record.failed(self.destino, said))
        if motivo is not None:
            logger.warning("the destination %s is disabled: %s", self.destino, motivo)

    async def _record(self, call: Callable[[Destinations], T]) -> T | None:
        """Read or write the destination's state, if it is kept; deliveries do not depend on it."""
        record = self._destinations
        if record is None:
            return None
        try:
            return await in_thread(lambda: call(record))
        except psycopg.Error as error:
            logger.warning("the state of the destination %s is out of reach: %s", self.destino, error)
            return None

    def _addresses(self) -> Sequence[Address]:
        return checked_addresses(self._target, self._rules, self._resolver)

    def _describe(self, answer: Reply, secrets: Sequence[Secret]) -> str:
        said = f"{self._target.origin} answered {answer.status}"
        if answer.status // 100 == 3:  # noqa: PLR2004 - the class of codes
            said += f", a redirect to {_clean(answer.location or 'nowhere', secrets)}; they are never followed"
        excerpt = _clean(answer.excerpt.decode("utf-8", "replace"), secrets)
        return f"{said}: {excerpt}" if excerpt else said


def _clean(text: str, secrets: Sequence[Secret]) -> str:
    """Make the receiver's text fit for a log: one line, printable, short, without secrets."""
    printable = "".join(letter if letter.isprintable() else " " for letter in without_secrets(text, secrets))
    return " ".join(printable.split())[:MAX_EXCERPT]
