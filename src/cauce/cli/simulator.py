"""Sends deliveries as a provider would: signed with its scheme, over real HTTP.

It sends only to the given URL, and follows no redirects.
"""

from __future__ import annotations

import http.client
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from cauce.webhooks import Draft, Outcome, Provider, WebhookRequest
from cauce.webhooks.payload import JsonValue, at, read_json
from cauce.webhooks.secrets import Secret
from cauce.webhooks.trying.keys import new_keys
from cauce.webhooks.trying.samples import Sample, samples_of

MAX_CONCURRENCY: Final = 200
"""Most deliveries at once, each in a thread."""
FORM: Final = "application/x-www-form-urlencoded"
MAX_ANSWER: Final = 65_536
"""Bytes of an answer that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, and how."""

    provider: Provider
    tipo: str
    url: str
    """The inbox's whole address."""
    secret: Secret
    """The signing secret; see ``keys.has_two_keys``."""
    public_url: str = ""
    """The address to sign, if the inbox is behind a proxy."""
    body: bytes | None = None
    """Sent as it is, instead of the sample."""
    changes: Sequence[tuple[str, JsonValue]] = ()
    """Paths in the sample's body, and their new values."""
    id_externo: str = ""
    """The same id, and the same content, in every delivery; without it, each has its own."""
    age: float = 0.0
    """Seconds ago that it was signed; negative: in the future."""
    bad_signature: bool = False
    twice: bool = False
    started: float = field(default_factory=time.time)

    def request(self, now: float) -> WebhookRequest:
        """Make one delivery at ``now`` (Unix seconds).

        Raises:
            ValueError: there is no sample of that type, a path leads nowhere, or the secret cannot sign.
        """
        secret = _secret_of_a_stranger(self.provider) if self.bad_signature else self.secret
        return self.provider.sign(self._draft(now - self.age), secret, now - self.age)

    def _draft(self, moment: float) -> Draft:
        unique = sha256(self.id_externo.encode()).hexdigest()[:32] if self.id_externo else uuid.uuid4().hex
        if self.body is not None:
            tipo = sample.header if (sample := samples_of(self.provider.origen).get(self.tipo)) else self.tipo
            id_externo = self.id_externo or str(uuid.UUID(unique))
            content_type = "application/json" if self.body.lstrip()[:1] in (b"{", b"[") else FORM
            return Draft(self.body, self.public_url or self.url, id_externo, tipo, content_type)
        sample, changes = self._sample(), list(self.changes)
        if not self.id_externo:
            return sample.draft(self.provider, self.public_url or self.url, unique, moment, changes)
        path = _id_path(self.provider, sample)
        changes += [(path, self.id_externo)] if path else []
        draft = sample.draft(self.provider, self.public_url or self.url, unique, self.started - self.age, changes)
        return draft if path else replace(draft, id_externo=self.id_externo)

    def _sample(self) -> Sample:
        known = samples_of(self.provider.origen)
        if self.tipo not in known:
            there = f"there are {', '.join(known)}" if known else "there are none of this provider"
            raise ValueError(f"no sample of {self.tipo!r}: {there}; another body can be given in a file")
        return known[self.tipo]

    @property
    def wanted(self) -> int | None:
        """The status such a delivery should get; None: any 2xx."""
        too_old = self.age >= self.provider.tolerance or -self.age > self.provider.tolerance
        if not self.bad_signature and not (too_old and self.provider.signed.timestamp):
            return None
        answer = self.provider.respond(Outcome.REJECTED)
        return answer.status if answer else http.HTTPStatus.BAD_REQUEST

    def fault(self, answers: Sequence[Answered]) -> str:
        """Return what is wrong with the answers to one delivery; empty if nothing is."""
        for answer in answers:
            good = answer.status is not None and (
                answer.status == self.wanted if self.wanted else 200 <= answer.status < 300  # noqa: PLR2004 - 2xx
            )
            if not good:
                got = answer.problem or f"{answer.status} {answer.text}"
                return f"expected {self.wanted or '2xx'}, got {got}"
        if self.twice and answers[-1].says("duplicado") is False:
            return f"the second time it was not recognized: {answers[-1].text}"
        return ""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a delivery; ``status`` is None if there was none, and ``problem`` says why."""

    status: int | None
    body: bytes = b""
    seconds: float = 0.0
    problem: str = ""

    @property
    def text(self) -> str:
        """The body, for people."""
        return self.body.decode("utf-8", "replace")

    def says(self, key: str) -> JsonValue:
        """Return a field of a JSON answer; None if there is none."""
        return at(read_json(self.body).value, key)


@dataclass(slots=True)
class SendReport:
    """How many deliveries went out, how they were answered, and what was wrong."""

    statuses: Counter[str] = field(default_factory=Counter[str])
    faults: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


def send(request: WebhookRequest, timeout: float) -> Answered:
    """POST one delivery on a connection of its own; ``timeout`` in seconds, for each wait."""
    url, began = urlsplit(request.url), time.monotonic()
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=timeout)
    try:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("host", url.netloc)
        for name, value in request.headers:
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(request.body)))
        connection.endheaders(request.body)
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER)
    except TimeoutError:
        return Answered(None, problem=f"no answer within {timeout:g} s, which counts as a failure")
    except (OSError, http.client.HTTPException) as error:
        return Answered(None, problem=f"no answer: {type(error).__name__}: {error}")
    finally:
        connection.close()
    return Answered(answer.status, body, time.monotonic() - began)


def deliver(plan: Plan) -> list[Answered]:
    """Make one delivery and send it; twice if planned, with the same bytes."""
    request = plan.request(time.time())
    added = request.url.removeprefix(plan.public_url or plan.url)  # a scheme may put something into the query
    request = replace(request, url=plan.url + added)
    return [send(request, plan.provider.answer_within) for _ in range(2 if plan.twice else 1)]


def deliver_many(plan: Plan, count: int, concurrency: int) -> SendReport:
    """Send many deliveries, ``concurrency`` of them at once."""
    report, began = SendReport(), time.monotonic()
    numbers, lock, stop = iter(range(count)), threading.Lock(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with lock:
                if next(numbers, None) is None:
                    return
            answers = deliver(plan)
            fault = plan.fault(answers)
            with lock:
                report.statuses.update(str(answer.status or "none") for answer in answers)
                report.faults += [fault] if fault else []

    with ThreadPoolExecutor(min(count, concurrency, MAX_CONCURRENCY)) as pool:
        running = [pool.submit(work) for _ in range(min(count, concurrency, MAX_CONCURRENCY))]
        try:
            for one in running:
                one.result()
        finally:
            stop.set()  # after Ctrl-C or an error, the deliveries under way finish
    report.seconds = time.monotonic() - began
    return report


def inbox_url(url: str, origen: str) -> str:
    """Return the address of a provider's inbox; a URL with a path is returned as it is.

    Raises:
        ValueError: it is not an http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL; write http://host:port, or the inbox's whole address")
    if parts.path in ("", "/"):
        return f"{parts.scheme}://{parts.netloc}/api/webhooks/{origen}"
    return url


@cache
def _secret_of_a_stranger(provider: Provider) -> Secret:
    """Make another secret of the right form, once, since an RSA key takes long."""
    return Secret(new_keys(provider, time.time()).sign)


def _id_path(provider: Provider, sample: Sample) -> str:
    """Return the path of the id in the body; empty if it is outside the body, or not a single field."""
    if sample.id_path:
        return sample.id_path
    paths = [place.removeprefix("body:") for place in provider.id_from if place.startswith("body:")]
    return next((path for path in paths if at(sample.value, path) is not None), "")
