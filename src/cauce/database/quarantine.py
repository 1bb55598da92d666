"""The quarantine: webhook deliveries that failed verification, kept to be explained and verified again after a fix.

Anyone who knows an inbox's address can fill it, so all of it is bounded: what is kept of a request (here), how much of
an origin and reason (``cauce.rechazar``), how often it is written (``cauce.web.quarantine``) and for how long
(``cauce.purgar_rechazados``). docs/adr/0014-quarantine.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from psycopg.rows import class_row, scalar_row

from cauce import sql
from cauce.database import inbox
from cauce.database.look import look
from cauce.errors import NotFound
from cauce.webhooks import Headers, Provider, Rejected, Secret, WebhookRequest
from cauce.webhooks.explaining.moments import signed_at
from cauce.webhooks.limits import MAX_SIGNATURE_HEADER

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

    from cauce.database.inbox import Stored
    from cauce.webhooks.payload import JsonValue

ROWS: Final = 1_000
"""Deliveries kept of one origin and reason; the oldest are deleted."""
BYTES: Final = 8 * 1_048_576
"""Bytes kept of one origin and reason, headers and URLs included. Beyond them the oldest large deliveries are deleted,
those of more than ``BYTES / 2 / ROWS`` (4 KiB): half of the bytes suffices for the others."""
BODY_BYTES: Final = 262_144
"""Bytes of the largest body that is kept; a part of a body could not be verified."""
URL_CHARACTERS: Final = 4_096
"""Characters kept of a URL; if it is longer, the body is not kept either."""
TEXT_CHARACTERS: Final = 1_000
"""Characters kept of ``detalle`` and of ``causa``."""
COPIES: Final = 3
"""Values kept of a repeated header."""
HEADER_CHARACTERS: Final = MAX_SIGNATURE_HEADER + 1
"""Characters kept of a header: one more than verification allows, so that a header that is too long stays so."""
HINTS: Final = (
    "content-encoding",
    "content-length",
    "date",
    "user-agent",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-proto",
)
"""Headers that often show what happened on the way."""

RECHAZAR: Final = "select cauce.rechazar(%s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s)"

SIGNED: Final = "signed"
"""Judge each delivery at the moment that it says it was signed."""
Moment: TypeAlias = "float | Literal['signed'] | None"
Result: TypeAlias = Literal["guardado", "duplicado", "pregunta", "rechazado", "imposible"]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A refused delivery without its headers and body. Fields are the columns."""

    id: int
    origen: str
    recibido_en: datetime
    """By the database's clock."""
    razon: str
    """The value of the ``Reason`` it was refused for."""
    detalle: str
    causa: str | None
    """The explanation found when it came, with the secrets of that time."""
    url: str
    tamano: int
    """Bytes of its body."""
    entero: bool
    """The body is kept."""


@dataclass(frozen=True, slots=True)
class FullRejected(RejectedRow):
    """A refused delivery with its headers and body, as far as they are kept."""

    cabeceras: list[list[str]]
    """Pairs of name and value."""
    cuerpo: bytes | None

    def request(self, url: str | None = None) -> WebhookRequest:
        """Return the request; ``url`` is the address that the provider called, if the inbox saw another.

        The query is the request's own, unless ``url`` has one.
        """
        if url is not None and "?" not in url:
            url += "".join(self.url.partition("?")[1:])
        headers = Headers((name.encode("latin-1"), value.encode("latin-1")) for name, value in self.cabeceras)
        return WebhookRequest(self.cuerpo or b"", headers, url or self.url)

    def as_json(self) -> dict[str, JsonValue]:
        """Return what is stored with the event that it became."""
        return {"id": self.id, "recibido_en": self.recibido_en.isoformat(), "razon": self.razon}


@dataclass(frozen=True, slots=True)
class RejectedPage:
    """A page of refused deliveries, newest first; ``siguiente`` is the ``before`` of the next page, None at the end."""

    rechazados: list[RejectedRow]
    siguiente: int | None


@dataclass(frozen=True, slots=True)
class Reverified:
    """What became of a delivery that was verified again.

    ``guardado`` and ``duplicado``: stored, now or earlier; ``pregunta``: the provider's handshake, not an event. These
    three leave the quarantine. ``rechazado``: refused again; ``imposible``: not all that verification needs was kept.
    """

    id: int
    origen: str
    resultado: Result
    eventos: list[int]
    detalle: str

    @property
    def is_done(self) -> bool:
        """Whether it has left the quarantine."""
        return self.resultado in ("guardado", "duplicado", "pregunta")


# ------------------------------------------------------------------------------------------------------------- keeping


def evidence(provider: Provider, request: WebhookRequest) -> list[list[str]]:
    """Return the headers that are kept: those the provider reads, and ``HINTS``; never a token."""
    names = dict.fromkeys((*provider.evidence, *HINTS))
    return [[name, _clean(value, HEADER_CHARACTERS)] for name in names for value in request.headers.all(name)[:COPIES]]


def address(provider: Provider, request: WebhookRequest) -> str:
    """Return the URL that is kept; its query, where people put secrets, only if the provider reads it."""
    if provider.reads_query:
        return request.url
    return request.url.partition("?")[0]


def obstacle(provider: Provider, row: RejectedRow) -> str | None:
    """Return why a delivery can never be verified again; None if it can."""
    if not provider.signed.names():
        return f"{provider.origen} authenticates by a token in a header, and tokens are not stored"
    if not row.entero:
        return f"its body of {row.tamano} bytes was not kept: at most {BODY_BYTES} bytes of body are"
    return None


def weight(provider: Provider, request: WebhookRequest, rejected: Rejected) -> int:
    """Return how many bytes a refused delivery takes, with the longest possible ``causa``."""
    url = address(provider, request)
    texts = (
        _clean(rejected.detail),
        _clean(url, URL_CHARACTERS),
        json.dumps(evidence(provider, request), ensure_ascii=False),
    )
    body = len(request.body) if _is_whole(request, url) else 0
    return body + sum(len(text.encode()) for text in texts) + TEXT_CHARACTERS


def _is_whole(request: WebhookRequest, url: str) -> bool:
    return len(request.body) <= BODY_BYTES and len(url) <= URL_CHARACTERS


async def keep(
    conn: AsyncConnection[Any],
    provider: Provider,
    request: WebhookRequest,
    rejected: Rejected,
    causa: str | None = None,
) -> int:
    """Keep a refused delivery, delete what exceeds the bounds of its origin and reason, and return its id.

    Args:
        conn: a connection in autocommit.
        provider: the provider of the inbox it came to.
        request: as it came.
        rejected: why it was refused.
        causa: the explanation, if there is one.

    Raises:
        psycopg.Error: it was not kept.
    """
    url = address(provider, request)
    values = (
        provider.origen,
        rejected.reason,
        _clean(rejected.detail),
        None if causa is None else _clean(causa),
        _clean(url, URL_CHARACTERS),
        json.dumps(evidence(provider, request)),
        len(request.body),
        request.body if _is_whole(request, url) else None,
        ROWS,
        BYTES,
    )
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(RECHAZAR, values)
    return int(await cursor.fetchone() or 0)


def _clean(text: str, longest: int = TEXT_CHARACTERS) -> str:
    """Return the part of an untrusted text that a column can hold."""
    return text[:longest].replace("\0", "").encode("utf-8", "replace").decode()


# ------------------------------------------------------------------------------------------------------------- looking


def page(
    conn: Connection[Any],
    *,
    origen: str | None = None,
    razon: str | None = None,
    before: int | None = None,
    limit: int = 20,
) -> RejectedPage:
    """List the newest refused deliveries that match.

    Args:
        conn: a connection in autocommit.
        origen: only those of this origin.
        razon: only those refused for this reason.
        before: only those with a lower id.
        limit: how many.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    values = {"origen": origen, "razon": razon, "antes": before, "limite": limit + 1}
    with look(conn), conn.cursor(row_factory=class_row(RejectedRow)) as cursor:
        found = cursor.execute(sql.query("rejected"), values).fetchall()
    return RejectedPage(found[:limit], found[limit - 1].id if len(found) > limit else None)


def find(conn: Connection[Any], number: int) -> FullRejected:
    """Read one refused delivery, on a connection in autocommit.

    Raises:
        NotFound: it is not there.
        SchemaError: the tables are missing, older or newer.
    """
    with look(conn), conn.cursor(row_factory=class_row(FullRejected)) as cursor:
        found = cursor.execute(sql.query("rejected_one"), {"id": number}).fetchone()
    if found is None:
        raise _absent([number])
    return found


def select(
    conn: Connection[Any],
    numbers: Sequence[int] = (),
    *,
    origen: str | None = None,
    razon: str | None = None,
) -> list[int]:
    """Return the ids of the refused deliveries that match, oldest first.

    Args:
        conn: a connection in autocommit.
        numbers: only these.
        origen: only those of this origin.
        razon: only those refused for this reason.

    Raises:
        NotFound: one of ``numbers`` is not there.
        SchemaError: the tables are missing, older or newer.
    """
    values = {"ids": list(numbers) or None, "origen": origen, "razon": razon}
    with look(conn), conn.cursor(row_factory=scalar_row) as cursor:
        found = [int(number) for number in cursor.execute(sql.query("rejected_ids"), values).fetchall()]
    absent = [number for number in numbers if number not in found]
    if absent:
        raise _absent(absent)
    return found


def dismiss(conn: Connection[Any], numbers: Sequence[int]) -> int:
    """Delete refused deliveries; return how many there were."""
    return conn.execute(sql.query("rejected_dismiss"), {"ids": list(numbers)}).rowcount


def _absent(numbers: Iterable[int]) -> NotFound:
    listed = ", ".join(str(number) for number in numbers)
    return NotFound(
        f"there is no refused delivery {listed}: it was verified, dismissed, or pushed out by newer ones;"
        " cauce webhook rejected lists what there is"
    )


# ----------------------------------------------------------------------------------------------------- verifying again


async def reverify(  # noqa: PLR0913 - what a verification depends on, by name
    conn: AsyncConnection[Any],
    number: int,
    provider: Provider,
    secrets: Sequence[Secret],
    *,
    at: Moment = None,
    url: str | None = None,
    keep_raw: bool = True,
) -> Reverified:
    """Verify a refused delivery again and, if it is valid now, store it as the inbox would have, in one transaction.

    Args:
        conn: a connection in autocommit.
        number: the delivery's id.
        provider: the provider it came from, as configured now.
        secrets: the provider's secrets now.
        at: the moment to judge it at, in Unix seconds; by default when it came, by the database's clock. ``SIGNED`` is
            the time in its signature: for wrong clocks, and for deliveries known to be no replay.
        url: the address that the provider called, if the inbox saw another.
        keep_raw: store its bytes, as ``Settings.keep_raw_bodies`` says.

    Raises:
        NotFound: it is not there.
    """
    async with conn.transaction(), conn.cursor(row_factory=class_row(FullRejected)) as cursor:
        row = await (await cursor.execute(sql.query("rejected_one"), {"id": number})).fetchone()
        if row is None:
            raise _absent([number])
        why = obstacle(provider, row)
        if why is not None:
            return Reverified(row.id, row.origen, "imposible", [], why)
        request = row.request(url)
        verdict = provider.verify(request, secrets, moment(provider, row, request, at))
        if isinstance(verdict, Rejected):
            return Reverified(row.id, row.origen, "rechazado", [], f"{verdict.reason}: {verdict.detail}")
        if not (await conn.execute(sql.query("rejected_dismiss"), {"ids": [number]})).rowcount:
            raise _absent([number])  # another process was faster
        if provider.handshake(request) is not None:
            return Reverified(row.id, row.origen, "pregunta", [], "the provider's handshake, not an event")
        webhooks = provider.describe(request, verdict)
        body = request.body if keep_raw else None
        results = await inbox.store(conn, inbox.rows_of(webhooks, verdict, body, {"rechazado": row.as_json()}))
        said = [
            f"event {stored.id} differs in {', '.join(fields)}, and stays as it is"
            for stored, webhook in zip(results, webhooks, strict=True)
            if stored.duplicado and stored.id is not None
            and (fields := await inbox.differences(conn, stored.id, webhook, provider.volatile_fields, body))
        ]  # fmt: skip
        return Reverified(
            row.id, row.origen, _result(results), [one.id for one in results if one.id is not None], "; ".join(said)
        )


def _result(results: Sequence[Stored]) -> Result:
    return "duplicado" if results and all(one.duplicado for one in results) else "guardado"


def moment(provider: Provider, row: FullRejected, request: WebhookRequest, at: Moment) -> float:
    """Return the moment (Unix seconds) that a delivery is judged at; ``reverify`` explains it."""
    if at is None:
        return row.recibido_en.timestamp()
    if at == SIGNED:
        signed = signed_at(provider, request)
        return row.recibido_en.timestamp() if signed is None else signed
    return float(at)
