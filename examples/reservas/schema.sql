-- The application's own tables, in the same database as the bus: that is what lets an event and its cause commit together.

create table if not exists reservas (
    id          bigint      generated always as identity primary key,
    cliente     text        not null,
    correo      text        not null,
    noches      integer     not null check (noches > 0),
    importe     integer     not null check (importe >= 0),      -- cents
    estado      text        not null check (estado in ('pendiente', 'pagada', 'cancelada')),
    localizador text        unique,                             -- the guest's code, given once the reservation stands
    creada_en   timestamptz not null default now()
);

create table if not exists pagos (
    payment_intent text    primary key,
    reserva_id     bigint  references reservas,
    importe        integer not null,                            -- cents
    moneda         text    not null,
    devolver       boolean not null default false
);

create table if not exists bitacora (
    id          bigint      generated always as identity primary key,
    evento      bigint      not null unique,
    nota        text        not null,
    anotado_en  timestamptz not null default clock_timestamp()
);
