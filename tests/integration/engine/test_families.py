"""Families: an event that a handler publishes knows its cause and the root of its family, however it is published."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from psycopg import Rollback

from cauce import NuevoEvento, Subscriber, publicar_evento, publicar_eventos
from cauce.database import schema
from cauce.engine.cron import procesar_lote
from tests.integration.engine.kit import publish, quick, value, work
from tests.integration.engine.scenery import Cosa, PruebaEvents, bus, make_effects, quiet, settled, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import AsyncConnection, Connection

    from cauce import Bus, Evento
    from tests.integration.engine.kit import Conn

BY_FUNCTION = "select cauce.publicar_evento('prueba', 'otra', jsonb_build_object('n', 0, 'by', %(by)s::bigint))"
BY_INSERT = (
    "insert into cauce.eventos (origen, tipo, payload)"
    " values ('prueba', 'otra', jsonb_build_object('n', 0, 'by', %(by)s::bigint))"
)
SEVERAL_BY_INSERT = (
    "insert into cauce.eventos (origen, tipo, payload)"
    " select 'prueba', 'otra', jsonb_build_object('n', n, 'by', %(by)s::bigint) from generate_series(1, 3) n"
)
SEVERAL_BY_FUNCTION = (
    "select cauce.publicar_eventos((select jsonb_agg(jsonb_build_object("
    "'origen', 'prueba', 'tipo', 'otra', 'payload', jsonb_build_object('n', n, 'by', %(by)s::bigint)))"
    " from generate_series(1, 3) n))"
)
ONE = '[{"origen": "prueba", "tipo": "una", "payload": {}}]'
BY_TRIGGER = "insert into efectos values (%(by)s, 'trigger')"
WAYS = (BY_FUNCTION, BY_INSERT, SEVERAL_BY_INSERT, SEVERAL_BY_FUNCTION, BY_TRIGGER)
PUBLISHING_TABLE = """
    create function efectos_publican() returns trigger language plpgsql as $$
    begin
        perform cauce.publicar_evento('prueba', 'otra', jsonb_build_object('n', 0, 'by', new.evento));
        return new;
    end $$;
    create trigger efectos_publican after insert on efectos for each row execute function efectos_publican()"""


class Stored(NamedTuple):
    """What an event stores of its family."""

    id: int
    causa: int | None
    correlacion: int | None
    by: int | None
    """The event whose handler published it, as the handler itself wrote."""


def stored(conn: Conn) -> list[Stored]:
    """Return all events, the oldest first."""
    rows = conn.execute("select id, causa, correlacion, (payload ->> 'by')::bigint from cauce.eventos order by id")
    return [Stored._make(row) for row in rows]


def children(conn: Conn) -> list[Stored]:
    """Return the events that handlers published, after checking that each stores its true cause, and roots none."""
    events = {event.id: event for event in stored(conn)}
    for event in events.values():
        assert event.causa == event.by
        if event.causa is None:
            assert event.correlacion is None
        else:
            assert event.correlacion == (events[event.causa].correlacion or event.causa)
    return [event for event in events.values() if event.causa is not None]


def once(application: Bus, database: str, **changes: object) -> dict[str, Any]:
    """Do what the cron does: one batch after another, until nothing is due."""
    return dict(asyncio.run(procesar_lote(application, quick(database, **changes), segundos=float("inf"))))


def by_sql(script: Callable[[int], Sequence[str]]) -> Callable[..., Any]:
    """Make a handler that publishes in these ways, by SQL."""

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        for statement in script(evento.payload.n):
            await tx.execute(statement.encode(), {"by": evento.id})

    return handler


@pytest.mark.parametrize("way", WAYS)
def test_handlers_that_share_a_transaction_keep_their_events_apart(conn: Conn, database: str, way: str) -> None:
    """Twenty events in one batch, every second one publishes: no child has another's cause, no handler runs twice."""
    make_effects(conn)
    conn.execute(PUBLISHING_TABLE)
    calls: list[int] = []
    publishes = by_sql(lambda n: [way] * (n % 2))

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        calls.append(evento.id)
        await publishes(evento, tx)

    application = bus(handler)
    schema.migrate(conn, application)
    roots = tell(conn, 20)
    assert once(application, database)["errores"] == 0
    assert {event.causa for event in children(conn)} == set(roots[1::2])
    assert calls == roots


@pytest.mark.parametrize("seed", range(4))
def test_any_mix_of_publishing_keeps_causes_apart(conn: Conn, database: str, seed: int) -> None:
    """Sync and async handlers, savepoints that are kept or rolled back, failures, and children that publish too."""
    make_effects(conn)
    conn.execute(PUBLISHING_TABLE)
    chance = random.Random(seed)  # noqa: S311 - no secret
    failures = set(chance.sample(range(12), seed))

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        for way in chance.choices(WAYS, k=chance.randrange(3)):
            async with tx.transaction():
                await tx.execute(way.encode(), {"by": evento.id})
                if chance.random() < 0.3:
                    raise Rollback
        if evento.payload.n in failures and evento.intentos == 1:
            raise ValueError("once")

    def sync(evento: Evento[Cosa], tx: Connection[Any]) -> None:
        for way in chance.choices(WAYS, k=chance.randrange(2)):
            tx.execute(way.encode(), {"by": evento.id})

    async def grandchild(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        if evento.correlacion == evento.causa and chance.random() < 0.5:
            await tx.execute(BY_FUNCTION, {"by": evento.id})

    application = bus(handler, other=grandchild, subscribers=[Subscriber("sync", PruebaEvents.una.handled_by(sync))])
    schema.migrate(conn, application)
    roots = tell(conn, 12)
    work(application, quick(database), lambda: settled(conn))
    born = children(conn)
    assert born
    assert {event.correlacion for event in born} <= set(roots)


def test_a_handler_that_hides_what_it_published_is_run_apart(conn: Conn, database: str) -> None:
    """One sets `application_name` back after it has published: the batch is taken apart, and no cause is wrong."""

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await tx.execute(BY_FUNCTION, {"by": evento.id})
        if evento.payload.n == 0:
            await tx.execute("reset application_name")

    application = bus(handler)
    schema.migrate(conn, application)
    roots = tell(conn, 3)
    tally = once(application, database)
    assert [event.causa for event in children(conn)] == roots
    assert (tally["reintentos"], tally["errores"]) == (0, 0)
    assert value(conn, "select count(*) from cauce.fallos") == 0
    assert value(conn, "select max(intentos) from cauce.eventos") == 1


def test_an_attempt_that_succeeds_has_the_same_cause_as_one_that_failed(conn: Conn, database: str) -> None:
    """What the failed attempt published is gone; what the next one publishes has the cause again."""

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await tx.execute(BY_INSERT, {"by": evento.id})
        if evento.intentos == 1:
            raise ValueError("once")

    (root,) = tell(conn)
    work(bus(handler), quick(database), lambda: settled(conn))
    assert [event[1:] for event in children(conn)] == [(root, root, root)]


def test_a_handler_sees_cause_and_root(conn: Conn, database: str) -> None:
    """Through three generations; a root has neither."""
    seen: list[tuple[int, int | None, int | None]] = []

    async def handler(evento: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        seen.append((evento.id, evento.causa, evento.correlacion))
        if len(seen) < 3:
            await tx.execute(BY_FUNCTION, {"by": evento.id})

    (root,) = tell(conn)
    work(bus(handler, other=handler), quick(database), lambda: settled(conn))
    first, second, third = (evento for evento, _, _ in seen)
    assert first == root
    assert seen == [(first, None, None), (second, first, first), (third, second, first)]


def test_a_root_stores_nothing_of_a_family(conn: Conn) -> None:
    """However it is published, also on a connection on which a handler's transaction has ended."""
    conn.execute("begin; select set_config('cauce.causa', '7', true); commit")
    publish(conn)
    conn.execute("insert into cauce.eventos (origen, tipo, payload) values ('prueba', 'una', '{}')")
    conn.execute("select cauce.publicar_eventos(%s)", (ONE,))
    tell(conn)
    assert [event[1:] for event in stored(conn)] == [(None, None, None)] * 4


def test_sql_names_a_cause_or_a_whole_transactions(conn: Conn) -> None:
    """For programs that handle events without Python; the root is looked up, also of a cause that is not stored."""
    (root,) = publish(conn)
    child = value(conn, "select cauce.publicar_evento('prueba', 'una', '{}', causa => %s)", root)
    conn.execute("select cauce.publicar_eventos(%s, %s)", (ONE, child))
    with conn.transaction():
        conn.execute("select set_config('cauce.causa', %s, true)", (str(child),))
        conn.execute("insert into cauce.eventos (origen, tipo, payload) values ('prueba', 'una', '{}')")
    value(conn, "select cauce.publicar_evento('prueba', 'una', '{}', causa => 1000000)")
    assert [event[1:3] for event in stored(conn)] == [
        (None, None), (root, root), (child, root), (child, root), (1_000_000, 1_000_000),
    ]  # fmt: skip


def test_no_function_rewrites_the_cause_of_what_is_committed(conn: Conn) -> None:
    """`cauce.atribuir` writes only to events of its own transaction that have no cause yet."""
    committed = publish(conn)
    with conn.transaction():
        named = value(conn, "select cauce.publicar_evento('prueba', 'una', '{}', causa => 1)")
        anonymous = publish(conn)
        conn.execute("select cauce.atribuir('{0}', '{1000000}', '{2}', '{2}')")
    assert {event.id: event.causa for event in stored(conn)} == {committed[0]: None, named: 1, anonymous[0]: 2}


def test_a_deleted_cause_leaves_its_children(conn: Conn, database: str) -> None:
    """Retention takes a root: the family is still one, and its youngest can publish."""
    application = bus(by_sql(lambda _: [BY_FUNCTION]), other=quiet)
    (root,) = tell(conn)
    work(application, quick(database), lambda: settled(conn))
    conn.execute("delete from cauce.eventos where id = %s", (root,))
    ((child, *_),) = stored(conn)
    value(conn, "select cauce.publicar_evento('prueba', 'una', '{}', causa => %s)", child)
    assert [event.correlacion for event in stored(conn)] == [root, root]


def test_python_publishes_with_the_cause_of_its_handler(conn: Conn, database: str) -> None:
    """With tx or without, one or many: the context tells."""

    async def handler(_: Evento[Cosa], tx: AsyncConnection[Any]) -> None:
        await publicar_evento(tx, PruebaEvents.otra, Cosa())
        await publicar_eventos(tx, [NuevoEvento(PruebaEvents.otra, Cosa()), NuevoEvento(PruebaEvents.otra, Cosa())])

    def plain(evento: Evento[Cosa]) -> None:
        with psycopg.connect(database) as own:
            publicar_evento(own, PruebaEvents.otra, Cosa(), clave="k")
            publicar_eventos(own, [NuevoEvento(PruebaEvents.otra, Cosa(), id_externo=str(evento.id))])

    application = bus(handler, subscribers=[Subscriber("plain", PruebaEvents.una.handled_by(plain))])
    schema.migrate(conn, application)
    roots = tell(conn, 3)
    once(application, database)
    born = [event for event in stored(conn) if event.causa is not None]
    assert sorted(event.causa or 0 for event in born) == sorted(roots * 5)
    assert all(event.correlacion == event.causa for event in born)
