-- The tables of the bus.
--
-- eventos      the log: one row for each event, inserted by its publisher, updated when `principal` settles it
-- catalogo     the priority and the key field of each event, from the applications' catalogs
-- suscripciones which subscriber of which group gets which event, and which application runs it
-- grupos       consumer groups; a group is a position in the log and the subscribers that share it
-- posiciones   how far each group has read each lane: append-only, the highest n counts
-- lotes        leases: which worker holds which events, until when, under which fencing token (ficha)
-- entregas     only deliveries that need another attempt, were given back, or are dead
-- marcas       how far each group has claimed its due retries in each lane: append-only, like posiciones
-- fallos       one row for each failed attempt and for each dismissed delivery
-- causas       why attempts failed, with a traceback: one row for each cause, however often it occurs
-- trabajadores the workers and when each was last seen
-- poda         how far retention has come (0007_operate.sql)
-- destinos     the destinations of outgoing webhooks that failed or are disabled (0008_destinations.sql)
-- rechazados   the quarantine of webhooks that were not verified (0009_quarantine.sql)
-- instancia    one row: a transaction id that this cluster has reached, to detect a restore into a younger cluster
--
-- migraciones  which of these files have been applied
--
-- No foreign key references eventos: its share locks on hot rows would create multixacts.

create schema if not exists cauce;

create table cauce.migraciones (
    numero      integer     primary key,
    nombre      text        not null,
    aplicada_en timestamptz not null default now()
);

-- Domains instead of CHECKs where a rule concerns one column: every statement parses all CHECKs of a table (3 us each;
-- ten of them took a tenth of a publish), but a connection reads the rules of a domain once.
create type cauce.estado as enum ('pendiente', 'en_proceso', 'procesado', 'error');
create domain cauce.nombre as varchar(255) check (value <> '');
create domain cauce.nivel as smallint check (value between 0 and 9);

create table cauce.eventos (
    id            bigint       generated always as identity primary key,
    -- decides visibility: the publisher's transaction
    tx            xid8         not null default pg_current_xact_id(),
    -- decides the delivery order: after every transaction that had finished when this row was inserted
    orden         xid8         not null default greatest(
                                   pg_current_xact_id(),
                                   ((pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text)::xid8),
    creado_en     timestamptz  not null default now(),
    disponible_en timestamptz,
    -- written when the event is settled; no index covers them, so the update stays in its page (HOT)
    procesado_en  timestamptz,
    estado        cauce.estado not null default 'pendiente',
    intentos      smallint     not null default 0,
    ignorado      boolean      not null default false,
    carril        cauce.nivel  not null,
    prioridad     cauce.nivel  not null,
    origen        cauce.nombre not null,
    tipo          cauce.nombre not null,
    clave         varchar(500),
    id_externo    varchar(500),
    ultimo_error  text,
    payload       jsonb,
    cabeceras     jsonb,
    cuerpo        bytea,
    -- both null: nothing in this bus caused it. No defaults: each would take 2 us of every INSERT (docs/adr/0021-families.md)
    causa         bigint,                     -- the event whose handler published this one
    correlacion   bigint                      -- the root of their family: the first event, which nothing caused
) with (fillfactor = 50);

-- The rules between columns. An UPDATE must not break them, but a row that already breaks them can still be settled, failed
-- or dismissed. The trigger eventos_completar checks INSERTs. This is no CHECK, because every INSERT would parse it (13 us
-- for these two); the WHEN below is parsed once for each settlement of hundreds of rows.
create function cauce.es_coherente(estado cauce.estado, procesado_en timestamptz, payload jsonb, cuerpo bytea)
returns boolean language sql immutable as $$
    select (estado = 'procesado') = (procesado_en is not null) and (payload is not null or cuerpo is not null)
$$;

create function cauce.rechazar_evento() returns trigger language plpgsql as $$
begin
    raise exception 'an event has a payload or a body, and procesado_en exactly when it is procesado (event %)', new.id
        using errcode = 'check_violation', table = 'eventos', constraint = 'eventos_coherente';
end $$;

create trigger eventos_coherente after update on cauce.eventos for each row
    when (not cauce.es_coherente(new.estado, new.procesado_en, new.payload, new.cuerpo)
          and cauce.es_coherente(old.estado, old.procesado_en, old.payload, old.cuerpo))
    execute function cauce.rechazar_evento();

create index eventos_log on cauce.eventos (carril, orden, id) include (tx);
create index eventos_familia on cauce.eventos (correlacion, id) where correlacion is not null;
create unique index eventos_id_externo_unico on cauce.eventos (origen, id_externo) where id_externo is not null;

create table cauce.catalogo (
    origen         cauce.nombre not null,
    tipo           cauce.nombre not null,     -- '*': the default for all events of that origin
    prioridad      cauce.nivel not null,
    clave          text,                      -- the field of the payload that holds the event's key
    version        smallint    not null default 1 check (version > 0),   -- the highest that was ever deployed
    actualizado_en timestamptz not null default now(),
    primary key (origen, tipo)
);
insert into cauce.catalogo (origen, tipo, prioridad) values ('stripe', '*', 0);

create table cauce.suscripciones (
    grupo       cauce.nombre,
    suscriptor  cauce.nombre,
    origen      cauce.nombre,
    tipo        cauce.nombre,
    aplicacion  varchar(255) not null default '',   -- the owner: only this application's workers run it
    retirada_en timestamptz,                         -- removed by a deploy; kept, or the old program would add it again
    primary key (grupo, origen, tipo, suscriptor)
);

create table cauce.grupos (
    grupo     cauce.nombre primary key,
    version   bigint      not null default 1,        -- grows with each change of the group's subscriptions
    creado_en timestamptz not null default now()
);

create table cauce.posiciones (
    grupo  text        not null,
    carril cauce.nivel not null,
    n      bigint      not null,
    desde  pg_snapshot not null,              -- the window: visible in hasta and not in desde
    hasta  pg_snapshot not null,
    orden  xid8        not null,              -- in the window, events up to (orden, id) are claimed
    id     bigint      not null,
    primary key (grupo, carril, n)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

create sequence cauce.lotes_id;
create table cauce.lotes (
    id             bigint      primary key,
    -- random, not a counter: after a server crash the same id may be drawn again, but not the same token
    ficha          bigint      not null default hashtextextended(gen_random_uuid()::text, 0),
    grupo          text        not null,
    aplicacion     text        not null default '',      -- the application of the worker
    ids            bigint[]    not null,      -- events delivered for the first time
    -- the rows of entregas that this lote holds, by event and subscriber
    reintentos     bigint[]    not null default '{}',
    suscriptores   text[]      not null default '{}',
    sospechosa     boolean     not null default false,   -- a worker died with it; such a lote holds one delivery
    trabajador     text        not null,
    tomado_en      timestamptz not null default clock_timestamp(),
    arriendo_hasta timestamptz not null,
    a_solas        boolean     not null default false,   -- the worker runs nothing else at the same time
    constraint lotes_algo check (cardinality(ids) + cardinality(reintentos) > 0
                                 and cardinality(reintentos) = cardinality(suscriptores))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
-- uncompressed: compressing 500 ids costs the claim 200 us and saves three kilobytes that are deleted a moment later
alter table cauce.lotes alter column ids set storage external, alter column reintentos set storage external,
    alter column suscriptores set storage external;
create index lotes_sospechosos on cauce.lotes (trabajador) where sospechosa;

-- The rows of entregas that workers hold.
create view cauce.en_mano as
    select l.id lote, l.grupo, u.evento, u.suscriptor, l.trabajador, l.tomado_en, l.arriendo_hasta
      from cauce.lotes l cross join lateral unnest(l.reintentos, l.suscriptores) u(evento, suscriptor);

create table cauce.entregas (
    evento     bigint      not null,
    grupo      text        not null,
    suscriptor text        not null,          -- '*': every subscriber of the group
    aplicacion text        not null default '',   -- only this application's workers claim the delivery
    prioridad  smallint    not null,
    estado     cauce.estado not null default 'pendiente' check (estado in ('pendiente', 'error')),
    intentos   integer     not null check (intentos >= 0),   -- finished attempts
    caidas     smallint    not null default 0 check (caidas >= 0),   -- workers that died with it
    proximo_en timestamptz not null,          -- 'infinity': a lote holds it, and claims must not find it
    error      text,
    creado_en  timestamptz not null default now(),
    primary key (evento, grupo, suscriptor)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

create index entregas_debidas on cauce.entregas
    (grupo, aplicacion, (caidas > 0), prioridad, proximo_en, evento, suscriptor) where estado = 'pendiente';
create index entregas_muertas on cauce.entregas (grupo, evento) where estado = 'error';

-- A claim reads due retries from the mark of their lane on. Before the mark, a delivery is claimed or gone, or was missed:
-- cauce.repasar_reintentos finds those. So a claim never reads the dead index entries that an old snapshot keeps.
create table cauce.marcas (
    grupo       text        not null,
    aplicacion  text        not null,
    sospechosas boolean     not null,         -- caidas > 0
    prioridad   smallint    not null,
    n           bigint      not null,
    proximo_en  timestamptz not null,         -- with evento, suscriptor: the last claimed, in the order of entregas_debidas
    evento      bigint      not null,
    suscriptor  text        not null,
    primary key (grupo, aplicacion, sospechosas, prioridad, n)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

create table cauce.causas (
    huella   bigint      primary key,         -- hash of the type, the place, and the message without numbers and quoted text
    tipo     text        not null,
    mensaje  text        not null,            -- of the first attempt that failed for this cause, like the traceback
    traza    text        not null,
    visto_en timestamptz not null default clock_timestamp()
);

create table cauce.fallos (
    id         bigint      generated always as identity primary key,
    evento     bigint      not null,
    grupo      text        not null,
    suscriptor text        not null,
    intento    integer     not null,
    error      text        not null,
    huella     bigint,                        -- its cause, if it has a traceback
    trabajador text,                          -- null if descartada
    descartada boolean     not null default false,   -- not an attempt: somebody dismissed the delivery
    ocurrido_en timestamptz not null default clock_timestamp()
);
create index fallos_evento on cauce.fallos (evento, id);
create index fallos_huella on cauce.fallos (huella) where huella is not null;

create table cauce.trabajadores (
    trabajador  text        primary key,
    grupos      text[]      not null,
    maquina     text        not null,
    pid         integer     not null,
    iniciado_en timestamptz not null default clock_timestamp(),
    visto_en    timestamptz not null default clock_timestamp(),   -- when it last wrote here; see cauce.presencia
    perdido_en  timestamptz                                       -- when another worker noticed that it is gone
) with (fillfactor = 70);

create table cauce.instancia (
    unica boolean primary key default true check (unica),
    xid   xid8    not null default pg_current_xact_id()
);
insert into cauce.instancia default values;
