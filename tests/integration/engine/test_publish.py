"""Publishing: in the caller's transaction, in order, with every check (DESIGN section 3; review A11)."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import dict_row, tuple_row
from pydantic import BaseModel

from cauce import (
    Catalog,
    EventType,
    InvalidPayload,
    NotInTransaction,
    NuevoEvento,
    PublishError,
    UnknownEvent,
    WrongArgument,
    publicar_evento,
    publicar_eventos,
)
from cauce.publishing import statements
from tests.integration.engine.kit import Conn, claim, column, drain, outcome, publish, settle, states, value


class Nota(BaseModel):
    """A payload."""

    texto: str
    numero: int = 0


class PruebaEvents(Catalog, origen="prueba", prioridad=3):
    """A catalog."""

    anotada = EventType("anotada", Nota)
    con_llave = EventType("llave", Nota, clave="texto")


TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
) | st.sampled_from(["\\", "\\N", "\\.", "\t", "\r\n", "a\\tb", '"', "\x01\x7f\x85\u2028"])

stray = EventType("suelta", Nota)

FORMS: dict[str, Callable[..., object]] = {
    "evento": lambda conn, **more: publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a"), **more),
    "eventos": lambda conn, **more: publicar_eventos(
        conn, [NuevoEvento(PruebaEvents.anotada, Nota(texto="a"))], **more
    ),
}
forms = pytest.mark.parametrize("form", FORMS)


@forms
def test_an_event_is_stored_in_the_callers_transaction(conn: Conn, form: str) -> None:
    """Committed with it, rolled back with it."""
    with conn.transaction():
        FORMS[form](conn)
    with conn.transaction(force_rollback=True):
        FORMS[form](conn)
    assert column(conn, "select payload::text from cauce.eventos") == ['{"texto": "a", "numero": 0}']
    assert len(drain(conn)) == 1


@forms
def test_a_connection_without_autocommit_begins_its_transaction_by_publishing(
    connect: Callable[..., Conn], conn: Conn, form: str
) -> None:
    """As psycopg does by default, the first statement begins the transaction, and the caller commits."""
    caller = connect(autocommit=False)
    FORMS[form](caller)
    assert value(conn, "select count(*) from cauce.eventos") == 0
    caller.commit()
    assert value(conn, "select count(*) from cauce.eventos") == 1


@forms
def test_autocommit_outside_a_transaction_is_refused_unless_it_is_meant(conn: Conn, form: str) -> None:
    """The event would commit apart from its cause; `own_transaction=True` says that it has none."""
    with pytest.raises(NotInTransaction, match="autocommit"):
        FORMS[form](conn)
    assert value(conn, "select count(*) from cauce.eventos") == 0
    FORMS[form](conn, own_transaction=True)
    assert value(conn, "select count(*) from cauce.eventos") == 1


def test_an_async_connection_publishes_as_well(database: str, conn: Conn) -> None:
    """The same functions, awaited."""

    async def scene() -> tuple[int, list[int]]:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as mine:
            with pytest.raises(NotInTransaction):
                await publicar_evento(mine, PruebaEvents.anotada, Nota(texto="a"))
            async with mine.transaction():
                one = await publicar_evento(mine, PruebaEvents.anotada, Nota(texto="a"))
                return one, await publicar_eventos(mine, [NuevoEvento(PruebaEvents.anotada, Nota(texto="b"))])

    one, more = asyncio.run(scene())
    assert drain(conn) == [one, *more]


def test_an_event_of_no_catalog_is_refused(conn: Conn) -> None:
    """An unknown event would have no handler."""
    with pytest.raises(UnknownEvent, match="no Catalog declares it"):
        publicar_evento(conn, stray, Nota(texto="a"), own_transaction=True)
    with pytest.raises(UnknownEvent):
        publicar_eventos(conn, [NuevoEvento(stray, Nota(texto="a"))], own_transaction=True)


@pytest.mark.parametrize("payload", [{"numero": 1}, {"texto": "a", "numero": "x"}, None, 3])
def test_a_payload_that_is_not_of_its_type_is_refused(conn: Conn, payload: Any) -> None:
    """Before anything is sent to the database."""
    with pytest.raises(InvalidPayload, match="prueba/anotada"):
        publicar_evento(conn, PruebaEvents.anotada, payload, own_transaction=True)


def test_text_that_postgresql_cannot_hold_is_refused_in_our_words(conn: Conn) -> None:
    """A NUL character is valid JSON and no text of PostgreSQL's."""
    with pytest.raises(InvalidPayload, match="cannot store"):
        publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a\0b"), own_transaction=True)
    with pytest.raises(InvalidPayload, match="cannot store"):
        publicar_eventos(conn, [NuevoEvento(PruebaEvents.anotada, Nota(texto="a\0b"))], own_transaction=True)


@pytest.mark.parametrize("column", ["clave", "id_externo"])
def test_a_column_that_is_too_long_is_named(conn: Conn, column: str) -> None:
    """Keys and ids have 500 characters at most, whether one event is published or many, in Python or in SQL."""
    for length in (500, 501):
        said = rf"prueba/anotada was not published: {column} is too long: 501 characters, and 500 are allowed"
        refused = contextlib.nullcontext() if length == 500 else pytest.raises(PublishError, match=said)
        text: dict[str, Any] = {column: str(length % 10) * length}
        with refused:
            publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a"), own_transaction=True, **text)
        with refused:
            publicar_eventos(conn, [NuevoEvento(PruebaEvents.anotada, Nota(texto="a"), **text)], own_transaction=True)
    with pytest.raises(psycopg.errors.StringDataRightTruncation, match=rf"^{column} is too long: 501 characters"):
        conn.execute(f"select cauce.publicar_evento('prueba', 'anotada', '{{}}', {column} => repeat('x', 501))")


@pytest.mark.parametrize("id_externo", [None, "one"])
def test_a_key_in_the_payload_that_is_too_long_is_named(conn: Conn, id_externo: str | None) -> None:
    """Where the catalog takes the key from the payload, the error names the column and, from the trigger, the field."""
    conn.execute("insert into cauce.catalogo (origen, tipo, prioridad, clave) values ('prueba', 'llave', 3, 'texto')")
    tipo, payload = PruebaEvents.con_llave, Nota(texto="x" * 501)
    field = "clave is too long: the field texto of the payload of prueba/llave has 501 characters"
    with pytest.raises(PublishError, match=f"prueba/llave was not published: {field}"):
        publicar_evento(conn, tipo, payload, own_transaction=True)
    named = field if id_externo is None else "clave is too long: 500 characters are allowed"
    with pytest.raises(PublishError, match=f"the events were not published: {named}"):
        publicar_eventos(conn, [NuevoEvento(tipo, payload, id_externo=id_externo)], own_transaction=True)


@pytest.mark.parametrize("prioridad", [10, -1])
def test_a_priority_out_of_bounds_is_refused_before_anything_is_sent(conn: Conn, prioridad: int) -> None:
    """0 to 9, and the error names the argument."""
    with pytest.raises(WrongArgument, match="prioridad"):
        publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a"), own_transaction=True, prioridad=prioridad)


def nested(depth: int) -> dict[str, Any]:
    """Return headers that hold lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return {"a": value}


@pytest.mark.parametrize("cabeceras", [nested(100_000), {"a": math.nan}, {"a": {1, 2}}])
@pytest.mark.parametrize("id_externo", [None, "one"])
def test_headers_that_json_cannot_hold_are_refused_in_our_words(
    conn: Conn, cabeceras: dict[str, Any], id_externo: str | None
) -> None:
    """In whichever way the event travels, and before anything is sent."""
    with pytest.raises(WrongArgument, match="cabeceras is a dict, and should be a dict that JSON can hold"):
        publicar_evento(
            conn,
            PruebaEvents.anotada,
            Nota(texto="a"),
            own_transaction=True,
            id_externo=id_externo,
            cabeceras=cabeceras,
        )
    evento = NuevoEvento(PruebaEvents.anotada, Nota(texto="a"), id_externo=id_externo, cabeceras=cabeceras)
    with pytest.raises(WrongArgument, match="cabeceras is a dict, and should be a dict that JSON can hold"):
        publicar_eventos(conn, [evento], own_transaction=True)


def test_a_known_external_id_returns_the_stored_event(conn: Conn) -> None:
    """Publishing twice is publishing once, whichever function is used, also within one call."""
    one = publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a"), id_externo="x", own_transaction=True)
    assert publicar_evento(conn, PruebaEvents.anotada, Nota(texto="b"), id_externo="x", own_transaction=True) == one
    many = [
        NuevoEvento(PruebaEvents.anotada, Nota(texto=t), id_externo=i) for t, i in (("c", "y"), ("d", "x"), ("e", "y"))
    ]
    two, again, same = publicar_eventos(conn, many, own_transaction=True)
    assert (again, same) == (one, two)
    assert sorted(drain(conn)) == [one, two]


def test_two_publishers_of_one_external_id_store_it_once(conn: Conn, connect: Callable[..., Conn]) -> None:
    """The second waits for the first; if that rolls back, the second's is stored."""
    first = connect()
    first.execute("begin")
    lost = publicar_evento(first, PruebaEvents.anotada, Nota(texto="a"), id_externo="x")
    conn.execute("set lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        publicar_evento(conn, PruebaEvents.anotada, Nota(texto="b"), id_externo="x", own_transaction=True)
    first.execute("rollback")
    kept = publicar_evento(conn, PruebaEvents.anotada, Nota(texto="b"), id_externo="x", own_transaction=True)
    assert kept != lost
    assert drain(conn) == [kept]


def test_an_external_id_stored_out_of_sight_says_to_run_again(conn: Conn, connect: Callable[..., Conn]) -> None:
    """In REPEATABLE READ the stored event may be invisible: a serialization failure, as its callers expect."""
    mine = connect()
    mine.execute("begin isolation level repeatable read")
    mine.execute("select 1 from cauce.eventos")
    publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a"), id_externo="x", own_transaction=True)
    with pytest.raises(psycopg.errors.SerializationFailure), mine.transaction():
        publicar_evento(mine, PruebaEvents.anotada, Nota(texto="a"), id_externo="x")
    with pytest.raises(psycopg.errors.SerializationFailure):
        mine.execute("select cauce.publicar_evento('prueba', 'prueba.anotada', '{}', id_externo => 'x')")


def test_an_external_id_that_is_deleted_meanwhile_says_to_run_again(conn: Conn) -> None:
    """The stored event was there for the INSERT, and is gone when its id is looked up."""
    publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a"), id_externo="x", own_transaction=True)
    conn.execute(
        "create function public.quitar() returns trigger language plpgsql as"
        " $$ begin delete from cauce.eventos; return null; end $$"
    )
    conn.execute("create trigger quitar after insert on cauce.eventos execute function public.quitar()")
    with pytest.raises(psycopg.errors.SerializationFailure):
        conn.execute("select cauce.publicar_evento('prueba', 'prueba.anotada', '{}', id_externo => 'x')")


def test_many_events_come_back_in_the_order_given(conn: Conn) -> None:
    """A thousand in one statement, their ids in order, delivered in order."""
    many = [NuevoEvento(PruebaEvents.anotada, Nota(texto="a", numero=n), clave=str(n)) for n in range(1000)]
    ids = publicar_eventos(conn, many, own_transaction=True)
    rows = conn.execute("select id, (payload ->> 'numero')::int from cauce.eventos order by id").fetchall()
    assert rows == [(evento, n) for n, evento in enumerate(ids)]
    assert drain(conn, size=300) == ids
    assert publicar_eventos(conn, [], own_transaction=True) == []


@pytest.mark.parametrize("is_async", [False, True])
def test_many_of_both_kinds_keep_their_order(conn: Conn, database: str, *, is_async: bool) -> None:
    """Copied or by statement, in runs of any length; events of the same transaction from before are not among them."""
    many = [
        NuevoEvento(PruebaEvents.anotada, Nota(texto="a", numero=n), id_externo=str(n) if (n // 700) % 2 else None)
        for n in range(3000)
    ]

    async def scene() -> list[int]:
        async with await psycopg.AsyncConnection.connect(database) as mine:
            await publicar_evento(mine, PruebaEvents.anotada, Nota(texto="b", numero=-1))
            return await publicar_eventos(mine, iter(many))

    if is_async:
        ids = asyncio.run(scene())
    else:
        with conn.transaction():
            publicar_evento(conn, PruebaEvents.anotada, Nota(texto="b", numero=-1))
            ids = publicar_eventos(conn, iter(many))
    rows = conn.execute("select id, (payload ->> 'numero')::int from cauce.eventos order by id").fetchall()
    assert rows == [(ids[0] - 1, -1), *((evento, n) for n, evento in enumerate(ids))]


def test_two_that_publish_many_at_once_get_their_own_ids(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Their ids are drawn in turns."""
    other = connect()

    def turns() -> Iterator[NuevoEvento[Nota]]:
        for _ in range(5):
            others.append(publicar_evento(other, PruebaEvents.anotada, Nota(texto="b"), own_transaction=True))
            for _ in range(100):
                yield NuevoEvento(PruebaEvents.anotada, Nota(texto="a"))

    others: list[int] = []
    ids = publicar_eventos(conn, turns(), own_transaction=True)
    assert len(ids) == 500
    assert sorted(ids + others) == column(conn, "select id from cauce.eventos order by id")
    assert set(others) == set(column(conn, "select id from cauce.eventos where payload ->> 'texto' = 'b'"))


def test_many_get_their_ids_where_sessions_take_them_in_advance(conn: Conn, connect: Callable[..., Conn]) -> None:
    """The sequence has a cache: as many ids were taken as were copied, but different ones."""
    conn.execute("alter sequence cauce.eventos_id_seq cache 50")
    mine = connect()
    first = publicar_evento(mine, PruebaEvents.anotada, Nota(texto="a"), own_transaction=True)
    ids = publicar_eventos(mine, [NuevoEvento(PruebaEvents.anotada, Nota(texto="b"))] * 50, own_transaction=True)
    assert [first, *ids] == column(conn, "select id from cauce.eventos order by id")


def test_many_are_sent_while_they_are_made(conn: Conn) -> None:
    """A generator of any length: sent events are not kept in memory."""
    alive: WeakValueDictionary[int, Nota] = WeakValueDictionary()
    most = 0

    def endless() -> Iterator[NuevoEvento[Nota]]:
        nonlocal most
        for number in range(2000):
            nota = Nota(texto="a", numero=number)
            alive[number] = nota
            most = max(most, len(alive))
            yield NuevoEvento(PruebaEvents.anotada, nota)

    assert len(publicar_eventos(conn, endless(), own_transaction=True)) == 2000
    assert most <= 2 * statements.COPY_LINES + 1


@pytest.mark.parametrize("wrong", [Nota.model_construct(texto=5), "no note"])
def test_a_wrong_payload_among_many_undoes_all_of_them(conn: Conn, wrong: Any) -> None:
    """Wherever it is in the call; the connection remains usable."""
    many = [NuevoEvento(PruebaEvents.anotada, Nota(texto="a"))] * 250
    many.append(NuevoEvento(PruebaEvents.anotada, wrong))
    with pytest.raises(InvalidPayload):
        publicar_eventos(conn, many, own_transaction=True)
    assert value(conn, "select count(*) from cauce.eventos") == 0


@given(texto=TEXT, clave=TEXT, cabecera=TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_arrives_as_it_was_published(conn: Conn, texto: str, clave: str, cabecera: str) -> None:
    """Tabs, backslashes, line ends, whatever COPY gives a meaning to; as by one statement each."""
    evento = NuevoEvento(PruebaEvents.anotada, Nota(texto=texto), clave=clave, cabeceras={"h": cabecera})
    (copied,) = publicar_eventos(conn, [evento], own_transaction=True)
    single = publicar_evento(
        conn, evento.tipo, evento.payload, clave=clave, cabeceras=evento.cabeceras, own_transaction=True
    )
    rows = conn.execute(
        "select payload, clave, cabeceras, prioridad, carril from cauce.eventos where id in (%s, %s)", (copied, single)
    ).fetchall()
    assert rows == [({"texto": texto, "numero": 0}, clave, {"h": cabecera}, 3, 3)] * 2


@pytest.mark.parametrize("form", FORMS)
def test_the_lane_is_the_catalogs_or_the_publishers(conn: Conn, form: str) -> None:
    """By the catalog that the publisher's code declares, or as the call says."""
    FORMS[form](conn, own_transaction=True)
    publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a"), prioridad=7, own_transaction=True)
    publicar_eventos(conn, [NuevoEvento(PruebaEvents.anotada, Nota(texto="a"), prioridad=8)], own_transaction=True)
    rows = conn.execute("select prioridad, carril from cauce.eventos order by id").fetchall()
    assert rows == [(3, 3), (7, 7), (8, 8)]


def test_the_key_is_the_payloads_field_or_the_publishers(conn: Conn) -> None:
    """The database takes it from the payload, as `catalogo` says, whichever way the event came."""
    conn.execute("insert into cauce.catalogo (origen, tipo, prioridad, clave) values ('prueba', 'llave', 3, 'texto')")
    llave, nota = PruebaEvents.con_llave, Nota(texto="k")
    publicar_evento(conn, llave, nota, own_transaction=True)
    publicar_evento(conn, llave, nota, clave="mine", own_transaction=True)
    publicar_eventos(conn, [NuevoEvento(llave, nota), NuevoEvento(llave, nota, clave="mine")], own_transaction=True)
    rows = conn.execute("select clave, prioridad, carril from cauce.eventos order by id").fetchall()
    assert rows == [("k", 3, 3), ("mine", 3, 3)] * 2


@pytest.mark.parametrize("form", FORMS)
def test_the_callers_row_and_cursor_factories_do_not_matter(conn: Conn, form: str) -> None:
    """Rows as dictionaries, parameters in another style: the connection is the caller's own."""
    conn.row_factory, conn.cursor_factory = dict_row, psycopg.RawCursor
    FORMS[form](conn, own_transaction=True)
    conn.row_factory, conn.cursor_factory = tuple_row, psycopg.Cursor
    assert len(drain(conn)) == 1


def test_a_pipeline_takes_many_events_too(conn: Conn) -> None:
    """It knows no COPY."""
    with conn.pipeline(), conn.transaction():
        ids = publicar_eventos(conn, [NuevoEvento(PruebaEvents.anotada, Nota(texto="a"))])
    assert drain(conn) == ids


@pytest.mark.parametrize(
    "statement",
    [
        "insert into cauce.eventos (origen, tipo) values ('p', 'x')",
        "insert into cauce.eventos (origen, tipo, payload, estado) values ('p', 'x', '{}', 'procesado')",
        "insert into cauce.eventos (origen, tipo, payload, procesado_en) values ('p', 'x', '{}', now())",
        "update cauce.eventos set estado = 'procesado'",
        "update cauce.eventos set procesado_en = now()",
        "update cauce.eventos set payload = null",
    ],
)
def test_an_event_contradicts_itself_for_nobody(conn: Conn, statement: Any) -> None:
    """Processed exactly when there is a time of it, and never without any content."""
    publish(conn)
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        conn.execute(statement)
    assert refused.value.diag.constraint_name == "eventos_coherente"


def test_a_row_that_brings_its_lane_may_not_be_empty(conn: Conn, plain_role: str) -> None:
    """It saves the lookup in the catalog, but an event still needs content; by INSERT or COPY."""
    conn.execute(sql.SQL("set role {}").format(sql.Identifier(plain_role)))
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        conn.execute("insert into cauce.eventos (origen, tipo, prioridad, carril) values ('p', 'x', 5, 5)")
    assert refused.value.diag.constraint_name == "eventos_coherente"
    columns = "copy cauce.eventos (origen, tipo, prioridad, carril) from stdin"
    with pytest.raises(psycopg.errors.CheckViolation), conn.cursor().copy(columns) as copy:
        copy.write("p\tx\t5\t5\n")


def test_a_row_without_a_payload_keeps_the_lane_that_it_brings(conn: Conn) -> None:
    """A webhook that is stored raw."""
    conn.execute("insert into cauce.eventos (origen, tipo, prioridad, carril, cuerpo) values ('p', 'x', 4, 3, '\\x00')")
    assert conn.execute("select prioridad, carril from cauce.eventos").fetchone() == (4, 3)


def test_an_event_that_broke_a_rule_before_can_still_be_worked_on(conn: Conn) -> None:
    """Shown as in process, failed, retried, rescued, dismissed, settled: none of that breaks a rule.

    It came with the trigger off, as a restored row may.
    """
    conn.execute("alter table cauce.eventos disable trigger eventos_completar")
    conn.execute("insert into cauce.eventos (origen, tipo, prioridad, carril) values ('p', 'x', 5, 5)")
    conn.execute(
        "insert into cauce.eventos (origen, tipo, prioridad, carril, payload, procesado_en)"
        " values ('p', 'x', 5, 5, '{}', now())"
    )
    conn.execute("alter table cauce.eventos enable trigger eventos_completar")
    empty, strange = (batch := claim(conn)).ids
    assert value(conn, "select cauce.marcar_en_proceso(%s, %s)", [batch.lote], [batch.ficha]) == 2
    settle(conn, batch, [outcome(evento, "s", "muerta") for evento in (empty, strange)])
    assert states(conn) == {"error": 2}
    assert value(conn, "select cauce.reintentar(%s)", empty) == 1
    assert claim(conn, lease=-1)
    assert value(conn, "select cauce.rescatar(3)") == 1
    assert value(conn, "select sum(cauce.descartar(id)) from cauce.eventos") == 2
    assert states(conn) == {"procesado": 2}


def test_nothing_of_many_is_stored_if_one_is_refused(conn: Conn) -> None:
    """One refused event fails the whole call, and none is stored."""
    many = [
        NuevoEvento(PruebaEvents.anotada, Nota(texto="a")),
        NuevoEvento(PruebaEvents.anotada, Nota(texto="a"), clave="x" * 501),
    ]
    with pytest.raises(PublishError):
        publicar_eventos(conn, many, own_transaction=True)
    assert value(conn, "select count(*) from cauce.eventos") == 0


def test_a_bare_insert_is_found_and_prioritised(conn: Conn) -> None:
    """As the seed's tests do it: origin, type and payload are enough."""
    conn.execute(
        "insert into cauce.eventos (origen, tipo, payload) values ('prueba', 'x', '{}'), ('stripe', 'x', '{}')"
    )
    assert drain(conn) == [2, 1]


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("tx", "'5'"),
        ("orden, tx", "'5', '5'"),
        ("orden", "'5'"),
        ("orden", "(pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000)::text::xid8"),
    ],
)
def test_a_forged_transaction_or_place_is_refused(conn: Conn, columns: str, values: str) -> None:
    """Such an event would never be delivered, or would delay later ones (review A11)."""
    statement = "insert into cauce.eventos (origen, tipo, payload, {}) values ('prueba', 'x', '{{}}', {})"
    with pytest.raises(psycopg.DatabaseError, match="written by the database") as refused:
        conn.execute(statement.format(columns, values).encode())
    assert refused.value.sqlstate == "CA003"
    assert value(conn, "select count(*) from cauce.eventos") == 0


def test_an_id_cannot_be_chosen(conn: Conn) -> None:
    """Ids are generated, always."""
    with pytest.raises(psycopg.errors.GeneratedAlways):
        conn.execute("insert into cauce.eventos (id, origen, tipo, payload) values (5, 'prueba', 'x', '{}')")


@pytest.fixture
def plain_role(conn: Conn) -> Iterator[str]:
    """A role without any privilege but those of a publisher; the connection acts as it."""
    role = f"publisher_of_{conn.info.dbname}"
    conn.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
    conn.execute("select cauce.permitir_publicar(%s)", (role,))
    yield role
    conn.execute("reset role")
    conn.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
    conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def test_a_plain_role_may_publish_in_every_way(conn: Conn, plain_role: str) -> None:
    """By the function, by a bare INSERT, many at once, with and without an external id."""
    conn.execute(sql.SQL("set role {}").format(sql.Identifier(plain_role)))
    publish(conn)
    conn.execute("insert into cauce.eventos (origen, tipo, payload) values ('prueba', 'x', '{}')")
    one = publicar_evento(conn, PruebaEvents.anotada, Nota(texto="a"), id_externo="x", own_transaction=True)
    many = [
        NuevoEvento(PruebaEvents.anotada, Nota(texto="a")),
        NuevoEvento(PruebaEvents.anotada, Nota(texto="a"), id_externo="x"),
    ]
    assert publicar_eventos(conn, many, own_transaction=True)[1] == one
    publicar_eventos(conn, many[:1], own_transaction=True)
    conn.execute("reset role")
    assert len(drain(conn)) == 5


@pytest.mark.parametrize(
    "statement",
    [
        "insert into cauce.eventos (origen, tipo, payload, tx) values ('p', 'x', '{}', '5')",
        "insert into cauce.eventos (origen, tipo, payload, orden) values ('p', 'x', '{}', '5')",
        "insert into cauce.eventos (origen, tipo, payload, estado) values ('p', 'x', '{}', 'procesado')",
        "copy cauce.eventos from stdin",
        "update cauce.eventos set estado = 'error'",
        "delete from cauce.eventos",
        "select payload from cauce.eventos",
        "select * from cauce.lotes",
        "update cauce.instancia set xid = '1'",
    ],
)
def test_a_plain_role_may_do_nothing_else(conn: Conn, plain_role: str, statement: Any) -> None:
    """Neither place an event in the log, nor read, change or delete any (review A11)."""
    publish(conn)
    conn.execute(sql.SQL("set role {}").format(sql.Identifier(plain_role)))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(statement)


def test_a_role_without_leave_may_not_publish(conn: Conn, plain_role: str) -> None:
    """Publishing many is no way around the privileges."""
    conn.execute(sql.SQL("drop owned by {}").format(sql.Identifier(plain_role)))
    conn.execute(sql.SQL("grant usage on schema cauce to {}").format(sql.Identifier(plain_role)))
    conn.execute(sql.SQL("set role {}").format(sql.Identifier(plain_role)))
    for form in FORMS.values():
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            form(conn, own_transaction=True)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="publicar_eventos"):
        conn.execute("""select cauce.publicar_eventos('[{"origen": "p", "tipo": "x", "payload": {}}]')""")


def test_a_webhook_that_is_no_json_is_kept_raw_and_is_an_error(conn: Conn) -> None:
    """Kept in `cuerpo`, in `error` from the start, with the reason."""
    conn.execute(
        "insert into cauce.eventos (origen, tipo, id_externo, cuerpo, estado, ultimo_error)"
        " values ('stripe', 'x', 'evt_1', '\\x00ff', 'error', 'not JSON')"
    )
    row = conn.execute("select estado::text, cuerpo, payload, ultimo_error from cauce.eventos").fetchone()
    assert row == ("error", b"\x00\xff", None, "not JSON")
    batch = claim(conn)
    assert batch.rows[0].payload is None
    settle(conn, batch, [{"evento": 1, "suscriptor": "*", "resultado": "muerta", "intento": 1, "error": "not JSON"}])
    assert value(conn, "select estado from cauce.eventos") == "error"


def test_many_events_never_return_an_id_that_was_not_stored(conn: Conn, connect: Callable[..., Conn]) -> None:
    """Two with the same new id_externo are one; one that this snapshot cannot see is an error to try again after."""
    both = "select cauce.publicar_eventos(jsonb_build_array(%s::jsonb, %s::jsonb))"
    one, other = (f'{{"origen": "prueba", "tipo": "x", "payload": {{}}, "id_externo": "{name}"}}' for name in "ab")
    ids = value(conn, both, one, one)
    assert ids == [value(conn, "select id from cauce.eventos")] * 2
    blind = connect()
    with blind.transaction():
        blind.execute("set transaction isolation level repeatable read")
        blind.execute("select count(*) from cauce.eventos")
        conn.execute(both, (other, other))
        with pytest.raises(psycopg.errors.SerializationFailure):
            blind.execute(both, (one, other))
        raise psycopg.Rollback
