"""Publishing over a link: every statement of every library passes through here."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from cauce.causing import current
from cauce.database.refusals import unpublished
from cauce.errors import NotInTransaction
from cauce.publishing.statements import (
    ANTES_DE_COPIAR,
    COPIADOS,
    EVENTS,
    PUBLICAR_VARIOS,
    ULTIMO_ID,
    Pieces,
    Statement,
    alone,
    documents,
    not_published,
    runs,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from cauce.catalog import NuevoEvento
    from cauce.publishing.links import Link


async def send(link: Link, statement: Statement, what: object, *, own_transaction: bool) -> int:
    """Publish one event and return its id; ``what`` is its name in errors."""
    if not own_transaction and not link.begun():
        raise _refused(link, what)
    try:
        return int(await link.fetch(*statement))
    except Exception as error:
        _translate(link, error, what)
        raise


async def send_all(link: Link, eventos: Iterable[NuevoEvento[Any]], *, own_transaction: bool) -> list[int]:
    """Publish many events and return their ids, in order."""
    begun = link.begun()
    if not own_transaction and not begun:
        raise _refused(link, EVENTS)
    ids: list[int] = []
    try:
        async with nullcontext() if begun else _transaction(link):
            for by_copy, run in runs(eventos, link.copies):
                if by_copy:
                    ids += await _copy(link, run)
                else:
                    for document in documents(run):
                        ids += await link.fetch(PUBLICAR_VARIOS, (document, *current()))
    except Exception as error:
        _translate(link, error, EVENTS)
        raise
    return ids


async def _copy(link: Link, run: Iterator[NuevoEvento[Any]]) -> list[int]:
    before: int = await link.fetch(ANTES_DE_COPIAR)
    pieces = Pieces(run)
    await link.copy(pieces)
    last: int | None = await link.fetch(ULTIMO_ID)
    ids: list[int] = alone(before, pieces.made, last) or await link.fetch(COPIADOS, (before,))
    return ids


@asynccontextmanager
async def _transaction(link: Link) -> AsyncGenerator[None]:
    await link.execute("begin")
    try:
        yield
    except BaseException:
        with suppress(Exception):  # a lost connection has rolled back; the first error says more
            await link.execute("rollback")
        raise
    await link.execute("commit")


def _refused(link: Link, what: object) -> NotInTransaction:
    return NotInTransaction(
        f"{not_published(what)}: the connection is in autocommit and in no transaction, so the event would"
        f" commit apart from its cause. {link.advice}; pass own_transaction=True if no transaction causes the event"
    )


def _translate(link: Link, error: Exception, what: object) -> None:
    """Raise Cauce's error about a refused event; for other errors, such as a lost connection, return."""
    said = link.response(error)
    if said is not None and (better := unpublished(said, not_published(what))) is not None:
        raise better from error
