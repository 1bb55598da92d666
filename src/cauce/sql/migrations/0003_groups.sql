-- Groups: a position per lane, and the log in front of it.

-- The current snapshot, in which the asking transaction itself is unfinished: PostgreSQL leaves the own xid out of the
-- list, and an event that this transaction publishes later would be passed over forever.
create function cauce.foto() returns pg_snapshot
language plpgsql as $$
declare
    s pg_snapshot := pg_current_snapshot();
    propia xid8 := pg_current_xact_id_if_assigned();
begin
    if propia is null or propia >= pg_snapshot_xmax(s) then
        return s;
    end if;
    return (select format('%s:%s:%s', least(propia, pg_snapshot_xmin(s)), pg_snapshot_xmax(s), string_agg(x::text, ',' order by x))
              from (select pg_snapshot_xip(s) x union select propia) u)::pg_snapshot;
end $$;

-- What a claim of a group locks, so that one runs at a time: a view of its own, which has no rows, no storage and nothing
-- to vacuum. Unlike an advisory lock, which whoever connects may hold, it takes a privilege; unlike a row's, it writes
-- nothing (docs/adr/0004-claim-lock.md). Groups whose long names begin alike share one, and take turns.
create function cauce.turno(grupo text) returns text language sql stable as $$
    select format('cauce.%I', ('turno_' || grupo)::name)
$$;

-- Waits for the group's turn, and keeps it to the end of the transaction.
create function cauce.tomar_turno(grupo text) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    turno constant text := cauce.turno(grupo);
begin
    if to_regclass(turno) is null then
        raise exception 'group % has no claim lock, %: it was never made, or not restored', grupo, turno
            using errcode = 'CA004', hint = 'Run: cauce migrate module:bus';
    end if;
    execute 'lock table ' || turno || ' in share update exclusive mode';
end $$;

-- Makes a group, or what is missing of it. `principal` starts at the beginning of the log; another group at now, unless
-- asked. Every lane gets its position here, under one transaction: a lane without one would be a black hole.
create function cauce.crear_grupo(grupo text, desde_el_principio boolean default false) returns void
language plpgsql
security definer       -- makes the view
set search_path = pg_catalog, pg_temp
as $$
declare
    nada constant pg_snapshot := '1:1:';      -- nothing is visible in it
    inicio pg_snapshot := case when crear_grupo.desde_el_principio or crear_grupo.grupo = 'principal' then nada
                               else cauce.foto() end;
begin
    insert into cauce.grupos (grupo) values (crear_grupo.grupo) on conflict do nothing;
    if found then
        insert into cauce.posiciones (grupo, carril, n, desde, hasta, orden, id)
        select crear_grupo.grupo, carril, 1, inicio, inicio, pg_snapshot_xmax(inicio), 0
          from generate_series(0, 9) carril;
    end if;
    if to_regclass(cauce.turno(crear_grupo.grupo)) is null then
        execute 'create view ' || cauce.turno(crear_grupo.grupo) || ' as select';
    end if;
end $$;

revoke execute on function cauce.tomar_turno, cauce.crear_grupo from public;

select cauce.crear_grupo('principal');

-- Writes what an application says of its events, [{"origen", "tipo", "prioridad", "clave"}], and of who listens to them,
-- [{"grupo", "suscriptor", "origen", "tipo"}]; makes the groups that are new.
--
-- reemplazar  a deploy: what is stored becomes what is given, and the application's other subscriptions are removed. A
--             worker that merely starts may be the older program: it adds what was never stored and changes nothing.
-- quitar      take over subscriptions that other applications own. Otherwise those raise CA007, and nothing is written.
--
-- Returns the subscriptions that a deploy removes; or those that the starting program has though a deploy removed them.
-- Events published after this has committed are delivered to the subscriptions it leaves: cauce.tomar tells the version
-- of the group with every batch, and a worker that has read an older one reads them again.
-- Locks   the table of the catalog: one at a time
create function cauce.guardar_catalogo(
    aplicacion text, tipos jsonb, suscripciones jsonb, reemplazar boolean, quitar boolean default false)
returns table (grupo text, suscriptor text, origen text, tipo text)
language plpgsql as $$
#variable_conflict use_column
declare
    dichas constant cauce.suscripciones[] := array(select n from jsonb_populate_recordset(null::cauce.suscripciones, $3) n);
    ajenas text;
    cambiados text[];        -- groups whose subscriptions were written or removed
begin
    lock table cauce.catalogo in share row exclusive mode;      -- several that start at once take turns
    select string_agg(format('%s of %s/%s in group %s belongs to application %L; this one is %L',
                             s.suscriptor, s.origen, s.tipo, s.grupo, s.aplicacion, $1), E'\n' order by s.grupo, s.origen, s.tipo, s.suscriptor) into ajenas
      from unnest(dichas) n
      join cauce.suscripciones s using (grupo, suscriptor, origen, tipo)
     where s.aplicacion <> $1 and s.retirada_en is null;
    if ajenas is not null and not $5 then
        raise exception 'application % brings subscribers that other applications own', quote_literal($1)
            using errcode = 'CA007', detail = ajenas,
                  hint = 'Give it up in one of them, or give this bus the name of that application. '
                         'To move it here for good: cauce migrate module:bus --take-over';
    end if;
    insert into cauce.catalogo as c (origen, tipo, prioridad, clave)
    select t.origen, t.tipo, t.prioridad, t.clave
      from jsonb_populate_recordset(null::cauce.catalogo, $2) t
    on conflict (origen, tipo) do update
       set prioridad = excluded.prioridad, clave = excluded.clave, actualizado_en = now()
     where $4 and (c.prioridad, c.clave) is distinct from (excluded.prioridad, excluded.clave);
    return query
    update cauce.suscripciones s set retirada_en = now()
     where $4 and s.aplicacion = $1 and s.retirada_en is null
       and not exists (
            select from unnest(dichas) n
             where (n.grupo, n.suscriptor, n.origen, n.tipo) = (s.grupo, s.suscriptor, s.origen, s.tipo))
    returning s.grupo::text, s.suscriptor::text, s.origen::text, s.tipo::text;
    return query
    select s.grupo::text, s.suscriptor::text, s.origen::text, s.tipo::text
      from unnest(dichas) n
      join cauce.suscripciones s using (grupo, suscriptor, origen, tipo)
     where not $4 and s.retirada_en is not null;
    with escritas as (
        insert into cauce.suscripciones as s (grupo, suscriptor, origen, tipo, aplicacion)
        select n.grupo, n.suscriptor, n.origen, n.tipo, $1
          from unnest(dichas) n
        on conflict (grupo, origen, tipo, suscriptor) do update set aplicacion = excluded.aplicacion, retirada_en = null
         where $4 and (s.aplicacion <> excluded.aplicacion or s.retirada_en is not null)
        returning s.grupo)
    select array_agg(e.grupo) into cambiados from escritas e;
    perform cauce.crear_grupo(n.grupo) from (select distinct d.grupo from unnest(dichas) d) n;
    update cauce.grupos g set version = g.version + 1
     where g.grupo = any (cambiados)
        or g.grupo in (select s.grupo from cauce.suscripciones s where s.aplicacion = $1 and s.retirada_en = now());
    -- What waits for an application that has been renamed or is gone would wait forever: another one looks after it.
    perform cauce.adoptar_entregas($1);
end $$;

-- Notes how far the cluster has come, when it has come more than `holgura` transactions further; or, in a database restored
-- into a younger one (see comprobar_instancia), the highest id stored, so that every connection learns of it. Takes no
-- transaction id of its own unless it writes.
create function cauce.comprobar_restauracion(holgura bigint default 0) returns void language plpgsql as $$
declare
    visto constant bigint := cauce.xid_visto();
    terminado constant bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1;
begin
    if visto > terminado and visto > pg_current_xact_id()::text::bigint then
        update cauce.instancia set xid = visto::text::xid8;
        perform set_config('cauce.comprobada', 'no', false);
        return;
    end if;
    update cauce.instancia set xid = terminado::text::xid8 where xid::text::bigint < terminado - holgura;
end $$;
