-- Groups: each has a position in every lane of the log.

-- The current snapshot, with this transaction among those in progress. PostgreSQL leaves the own xid out of the list; then
-- an event that this transaction publishes later would never be read.
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

-- The claim lock of a group: a view, locked by each claim so that one runs at a time. It needs no storage and no vacuum.
-- Anybody may hold an advisory lock, but locking a view takes a privilege; and a row lock would write to the row
-- (docs/adr/0004-claim-lock.md). Groups with long names that begin with the same letters share a lock.
create function cauce.turno(grupo text) returns text language sql stable as $$
    select format('cauce.%I', ('turno_' || grupo)::name)
$$;

-- Waits for the claim lock of a group and holds it to the end of the transaction.
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

-- Creates a group, or the missing parts of one. `principal` starts at the beginning of the log, another group at the present
-- unless `desde_el_principio`. All lanes get their position here: events of a lane without one would never be read.
create function cauce.crear_grupo(grupo text, desde_el_principio boolean default false) returns void
language plpgsql
security definer       -- creates the view
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

-- Stores an application's catalog, [{"origen", "tipo", "prioridad", "clave", "version"}], and its subscriptions,
-- [{"grupo", "suscriptor", "origen", "tipo"}]; creates new groups.
--
-- reemplazar  true for a deploy: overwrites what is stored and removes the application's other subscriptions. False for the
--             start of a worker, which may run an older program: adds what was never stored and changes nothing.
-- quitar      takes over subscriptions of other applications. Without it these raise CA007, and nothing is written.
--
-- Returns the subscriptions that a deploy removes; at a worker's start, those that it has but a deploy removed.
-- Events published after the commit are delivered by the new subscriptions: cauce.tomar returns the group's version
-- with each batch, and a worker that knows an older version reads the subscriptions again.
-- Locks   the table catalogo: one call at a time
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
    lock table cauce.catalogo in share row exclusive mode;
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
    -- A version never goes back: after a rollback its events wait for the newer program, and do not end in `error`.
    insert into cauce.catalogo as c (origen, tipo, prioridad, clave, version)
    select t.origen, t.tipo, t.prioridad, t.clave, coalesce(t.version, 1)
      from jsonb_populate_recordset(null::cauce.catalogo, $2) t
    on conflict (origen, tipo) do update
       set prioridad = case when $4 then excluded.prioridad else c.prioridad end,
           clave = case when $4 then excluded.clave else c.clave end,
           version = greatest(c.version, excluded.version), actualizado_en = now()
     where $4 and (c.prioridad, c.clave) is distinct from (excluded.prioridad, excluded.clave) or c.version < excluded.version;
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
    -- Deliveries that wait for an application that was renamed or removed would wait forever.
    perform cauce.adoptar_entregas($1);
end $$;

-- Updates `instancia` once the cluster is more than `holgura` transactions ahead of it. In a database that was restored into
-- a younger cluster (see comprobar_instancia), it stores the highest id seen, so that every connection notices. Takes
-- a transaction id only to write, or if the restore check needs one.
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
