-- What operators do: retry, dismiss, see the lag, prune.

-- Moves deliveries of applications that have no subscription in the group any more to one that has: this one, or the first
-- by name. Deliveries that workers hold stay, and so do those of a group without subscriptions. A due delivery becomes due
-- now, because its old time may lie before the mark of its new lane.
-- Locks   the rows, skipping locked ones, and only then reads lotes: a row without its lock may be claimed in between
create function cauce.adoptar_entregas(aplicacion text) returns void language plpgsql as $$
#variable_conflict use_column
declare
    eventos bigint[];
    grupos text[];
    suscriptores text[];
begin
    select array_agg(q.evento), array_agg(q.grupo), array_agg(q.suscriptor) into eventos, grupos, suscriptores from (
        select d.evento, d.grupo, d.suscriptor from cauce.entregas d
         where (d.grupo, d.aplicacion) not in (
                select s.grupo::text, s.aplicacion::text from cauce.suscripciones s where s.retirada_en is null)
           and d.grupo in (select s.grupo::text from cauce.suscripciones s where s.retirada_en is null)
           for update of d skip locked) q;
    update cauce.entregas d set aplicacion = h.aplicacion, proximo_en = greatest(d.proximo_en, clock_timestamp())
      from unnest(eventos, grupos, suscriptores) q(evento, grupo, suscriptor)
      join (select distinct on (s.grupo) s.grupo, s.aplicacion from cauce.suscripciones s
             where s.retirada_en is null order by s.grupo, s.aplicacion <> $1, s.aplicacion) h on h.grupo = q.grupo
     where d.evento = q.evento and d.grupo = q.grupo and d.suscriptor = q.suscriptor
       and (d.evento, d.grupo, d.suscriptor) not in (select m.evento, m.grupo, m.suscriptor from cauce.en_mano m);
end $$;

-- Whether an event is `ignorado` because it had no handler. A dismissed event is `ignorado` too.
-- Index   eventos_pkey, fallos_evento
create function cauce.sin_atender(evento bigint) returns boolean language sql stable as $$
    select exists (
        select from cauce.eventos e
         where e.id = $1 and e.ignorado and e.estado = 'procesado'
           and not exists (select from cauce.fallos f where f.evento = e.id and f.grupo = 'principal' and f.descartada))
$$;

-- Makes the failed or waiting deliveries of events due now, with all their attempts again, or dismisses them (`descartar`);
-- those of one group and subscriber, or all. Deliveries that a worker holds are left alone. Returns how many deliveries of each
-- event; null: there is no such event.
--
-- A retried event that had no handler is delivered to the subscribers that `principal` has now. Once an event has no
-- dismissed delivery left in `principal`, it is `procesado` and `ignorado`; its failures are kept, and a last row in fallos
-- records the dismissal (`descartada`).
-- Locks   the events by id, then their deliveries by key, so that claims skip them. A claim that already had one has
--         committed by then, so the next statement sees it in a lote
-- Index   eventos_pkey, entregas_pkey; pinned. One full scan of lotes, which has one row for each batch in progress
create function cauce.remediar(eventos bigint[], descartar boolean, grupo text default null, suscriptor text default null)
returns table (id bigint, entregas integer)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    hay constant bigint[] := array(select e.id from cauce.eventos e where e.id = any ($1) order by e.id for no key update);
    hechas bigint[];
    de_principal bigint[];
begin
    perform 1 from cauce.entregas d
      where d.evento = any ($1) and d.grupo = coalesce($3, d.grupo) and d.suscriptor = coalesce($4, d.suscriptor)
      order by d.evento, d.grupo, d.suscriptor for update;
    if not $2 then
        with nuevas as (
            insert into cauce.entregas (evento, grupo, suscriptor, aplicacion, prioridad, intentos, proximo_en)
            select e.id, s.grupo, s.suscriptor, s.aplicacion, e.prioridad, 0, clock_timestamp()
              from cauce.eventos e
              join cauce.suscripciones s on s.grupo = 'principal' and (s.origen, s.tipo) = (e.origen, e.tipo)
             where e.id = any ($1) and e.ignorado and cauce.sin_atender(e.id) and s.retirada_en is null
               and s.grupo = coalesce($3, s.grupo) and s.suscriptor = coalesce($4, s.suscriptor)
            returning evento)
        update cauce.eventos e set ignorado = false where e.id in (select n.evento from nuevas n);
    end if;
    with libres as materialized (
        select d.evento, d.grupo, d.suscriptor, d.intentos from cauce.entregas d
         where d.evento = any ($1) and d.grupo = coalesce($3, d.grupo) and d.suscriptor = coalesce($4, d.suscriptor)
           and (d.evento, d.grupo, d.suscriptor) not in (select m.evento, m.grupo, m.suscriptor from cauce.en_mano m)),
    ahora as (
        update cauce.entregas d
           set estado = 'pendiente', intentos = 0, caidas = 0, proximo_en = clock_timestamp()
          from libres l where not $2 and (d.evento, d.grupo, d.suscriptor) = (l.evento, l.grupo, l.suscriptor)),
    fuera as (
        delete from cauce.entregas d
         using libres l where $2 and (d.evento, d.grupo, d.suscriptor) = (l.evento, l.grupo, l.suscriptor)),
    apuntes as (
        insert into cauce.fallos (evento, grupo, suscriptor, intento, error, descartada)
        select l.evento, l.grupo, l.suscriptor, l.intentos, 'dismissed by hand', true from libres l where $2)
    select array_agg(l.evento), array_agg(distinct l.evento) filter (where l.grupo = 'principal')
      into hechas, de_principal from libres l;
    update cauce.eventos e set ignorado = true where $2 and e.id = any (de_principal);
    perform cauce.actualizar_estado(de_principal);
    perform pg_notify('cauce', '') where not $2 and hechas is not null;
    return query
    select u.id, case when u.id = any (hay) then count(h.id)::integer end
      from unnest($1) u(id) left join unnest(hechas) h(id) on h.id = u.id group by u.id order by u.id;
end $$;

-- Retries the deliveries of one event; returns how many, 0 if there is no such event.
create function cauce.reintentar(evento bigint, grupo text default null, suscriptor text default null) returns integer
language sql as $$
    select coalesce(r.entregas, 0) from cauce.remediar(array[$1], false, $2, $3) r
$$;

-- Dismisses the deliveries of one event; returns how many, 0 if there is no such event.
create function cauce.descartar(evento bigint, grupo text default null, suscriptor text default null) returns integer
language sql as $$
    select coalesce(r.entregas, 0) from cauce.remediar(array[$1], true, $2, $3) r
$$;

-- Dismisses, as `descartar` does, the failed or waiting deliveries of a subscriber, of one group or of all, among the next
-- `maximo` deliveries after the event `desde`. `hasta`: the event to continue from; null: there are no more.
-- Locks   as cauce.remediar
-- Index   entregas_pkey, from `desde`; pinned, because the table may never have been analyzed
create function cauce.descartar_suscriptor(
    suscriptor text, grupo text, desde bigint, maximo integer, out descartadas bigint, out hasta bigint)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_variable
begin
    select max(t.evento) into hasta from (
        select d.evento from cauce.entregas d where d.evento > desde order by d.evento limit maximo) t;
    select coalesce(sum(r.entregas), 0) into descartadas from cauce.remediar(array(
        select distinct d.evento from cauce.entregas d
         where d.evento > desde and d.evento <= hasta
           and d.suscriptor = descartar_suscriptor.suscriptor and d.grupo = coalesce(descartar_suscriptor.grupo, d.grupo)),
        true, grupo, suscriptor) r;
end $$;

-- The lag of a group in each lane: how many events it has not claimed yet (counted up to `maximo`), and since when.
create function cauce.retraso(grupo text, maximo integer) returns table (carril smallint, pendientes bigint, desde timestamptz)
language sql
-- with these, counting stops at the maximum, also on a table that was never analyzed
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
    select l.carril, count(e.creado_en), min(e.creado_en)
      from (select generate_series(0, 9)::smallint carril) l
     cross join lateral (select p.desde, p.hasta, p.orden, p.id from cauce.posiciones p
                          where p.grupo = retraso.grupo and p.carril = l.carril order by p.n desc limit 1) p
      left join lateral (
        select e.creado_en from cauce.eventos e
         where e.carril = l.carril
           and e.orden >= case when p.orden >= pg_snapshot_xmax(p.hasta) then pg_snapshot_xmin(p.hasta)
                               else pg_snapshot_xmin(p.desde) end
           and not pg_visible_in_snapshot(e.tx, p.desde)
           and not (pg_visible_in_snapshot(e.tx, p.hasta) and (e.orden, e.id) <= (p.orden, p.id))
         order by e.orden, e.id limit maximo) e on true
     group by l.carril order by l.carril
$$;

-- How far pruning has come in the log, so that events that must stay are not read again by every call.
create table cauce.poda (
    unica boolean primary key default true check (unica),
    hasta bigint  not null default 0
);
insert into cauce.poda default values;

-- Looks at the next `maximo` events by id, and deletes those that were processed longer ago than `antes`. An event stays while
-- a group has not read it, a lote holds it or a delivery of it is left. All three are read in one snapshot, because a claim
-- moves an event from one to another. Failures are deleted with their event, causes with their last failure.
-- `queda`: there is more to look at; otherwise the next call begins at the oldest event again.
-- Locks   the table `poda`, without waiting: a second call at the same time has nothing to do. A lock on its row would write,
--         and retention writes no WAL in an idle database
-- Index   eventos_pkey, from where the last call ended; pinned, because the table may never have been analyzed
create function cauce.purgar(antes interval, maximo integer, out borrados bigint, out queda boolean)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    desde bigint;
    ultimo bigint;
    huellas bigint[];
begin
    borrados := 0;
    queda := false;
    begin
        lock table cauce.poda in share row exclusive mode nowait;
    exception when lock_not_available then
        return;
    end;
    select p.hasta into desde from cauce.poda p;
    with tanda as materialized (
        select e.id, e.tx, e.carril, e.creado_en
          from cauce.eventos e where e.id > desde order by e.id limit maximo),
    libres as materialized (
        select e.id from tanda e
         where e.id <> all (array(select unnest(l.ids) from cauce.lotes l))
           and not exists (select from cauce.entregas d where d.evento = e.id)
           and not exists (
                select from cauce.grupos g
                 cross join lateral (select p.desde from cauce.posiciones p
                                      where p.grupo = g.grupo and p.carril = e.carril order by p.n desc limit 1) p
                 where not pg_visible_in_snapshot(e.tx, p.desde))),
    -- checks procesado_en of the locked row, because whoever held the lock may have retried the event
    fuera as (delete from cauce.eventos e using libres v where e.id = v.id and e.procesado_en < now() - antes returning e.id),
    sin_fallos as (delete from cauce.fallos f using fuera v where f.evento = v.id returning f.huella)
    select (select count(*) from fuera), (select array_agg(distinct s.huella) from sin_fallos s), max(t.id),
           count(*) = maximo and min(t.creado_en) < now() - antes
      into borrados, huellas, ultimo, queda from tanda t;
    delete from cauce.causas c
     where c.huella = any (huellas) and not exists (select from cauce.fallos f where f.huella = c.huella);
    ultimo := case when queda then ultimo else 0 end;
    update cauce.poda p set hasta = ultimo where p.hasta <> ultimo;
end $$;

-- Lets a role read everything and change nothing, for `cauce status`, `events`, `show` and dashboards. Tables of later
-- migrations are included.
create function cauce.permitir_mirar(rol text) returns void language plpgsql as $$
begin
    execute format('grant usage on schema cauce to %I', rol);
    execute format('grant select on all tables in schema cauce to %I', rol);
    execute format('alter default privileges in schema cauce grant select on tables to %I', rol);
end $$;

-- Lets a role do all that Cauce's processes do: run workers, upkeep and the inbox, publish, and operate. The role cannot change
-- the schema, choose the place of an event in the log, or rewrite what was published. Tables of later migrations
-- are included. Of `eventos` it may write only the columns named here.
create function cauce.permitir_trabajar(rol text) returns void language plpgsql as $$
declare
    tabla regclass;
begin
    perform cauce.permitir_mirar(rol), cauce.permitir_publicar(rol);
    for tabla in select c.oid from pg_class c
                  where c.relnamespace = 'cauce'::regnamespace and c.relkind in ('r', 'p')
                    and c.relname not in ('eventos', 'migraciones') loop
        execute format('grant insert, update, delete on %s to %I', tabla, rol);
    end loop;
    execute format('grant usage on all sequences in schema cauce to %I', rol);
    execute format('grant execute on function cauce.tomar_turno, cauce.crear_grupo to %I', rol);
    execute format('grant insert (cuerpo, estado, ultimo_error),
                    update (procesado_en, estado, intentos, ignorado, ultimo_error), delete on cauce.eventos to %I', rol);
    execute format('alter default privileges in schema cauce grant insert, update, delete on tables to %I', rol);
    execute format('alter default privileges in schema cauce grant usage on sequences to %I', rol);
end $$;
