-- The floor: the smallest queue that loses nothing. One table, one index of ready jobs, leases, no retries.
create table trabajos (
    id             bigint      generated always as identity primary key,
    tipo           text        not null,
    payload        jsonb       not null,
    prioridad      smallint    not null default 0,
    estado         text        not null default 'listo',
    intentos       smallint    not null default 0,
    disponible_en  timestamptz not null default now(),
    creado_en      timestamptz not null default now(),
    hecho_en       timestamptz,
    arriendo_hasta timestamptz
);
create index trabajos_listos on trabajos (prioridad, id) where estado = 'listo';

-- The floor of the inbox: the smallest table that keeps a provider's event once.
create table recibidos (
    id          text        primary key,
    tipo        text        not null,
    payload     jsonb       not null,
    recibido_en timestamptz not null default now()
);
