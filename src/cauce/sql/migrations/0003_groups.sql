-- Groups: a position per lane, and the log in front of it.

-- The current snapshot, in which the asking transaction itself is unfinished: PostgreSQL leaves the own xid out of the
-- list, and an event that this transaction publishes later would be passed over for ever.
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

-- Makes a group, or does nothing. `principal` starts at the beginning of the log; another group at now, unless asked.
-- Every lane gets its position here, under one transaction: a lane without one would be a black hole.
create function cauce.crear_grupo(grupo text, desde_el_principio boolean default false) returns void
language plpgsql as $$
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
end $$;

select cauce.crear_grupo('principal');

-- Writes what an application says of its events, [{"origen", "tipo", "prioridad", "clave"}], and of who listens to them,
-- [{"grupo", "suscriptor", "origen", "tipo"}]; makes the groups that are new. A deploy (`reemplazar`) also forgets the
-- listeners that its groups no longer have; a worker that merely starts does not, since it may be the older program.
create function cauce.guardar_catalogo(tipos jsonb, suscripciones jsonb, reemplazar boolean) returns void
language plpgsql as $$
#variable_conflict use_column
begin
    perform pg_advisory_xact_lock(1128355141, 0);
    insert into cauce.catalogo as c (origen, tipo, prioridad, clave)
    select t.origen, t.tipo, t.prioridad, t.clave
      from jsonb_to_recordset($1) t(origen text, tipo text, prioridad smallint, clave text)
    on conflict (origen, tipo) do update
       set prioridad = excluded.prioridad, clave = excluded.clave, actualizado_en = now()
     where (c.prioridad, c.clave) is distinct from (excluded.prioridad, excluded.clave);
    if $3 then
        delete from cauce.suscripciones s
         where s.grupo in (select n.grupo from jsonb_to_recordset($2) n(grupo text))
           and not exists (
                select from jsonb_to_recordset($2) n(grupo text, suscriptor text, origen text, tipo text)
                 where (n.grupo, n.suscriptor, n.origen, n.tipo) = (s.grupo, s.suscriptor, s.origen, s.tipo));
    end if;
    insert into cauce.suscripciones (grupo, suscriptor, origen, tipo)
    select n.grupo, n.suscriptor, n.origen, n.tipo
      from jsonb_to_recordset($2) n(grupo text, suscriptor text, origen text, tipo text)
    on conflict do nothing;
    perform cauce.crear_grupo(n.grupo) from (select distinct r.grupo from jsonb_to_recordset($2) r(grupo text)) n;
end $$;

-- What the database knows of an event type: whether any catalog has it, and whether the subscriber of the group, or with
-- '*' any of them, listens to it.
create function cauce.conocido(grupo text, suscriptor text, origen text, tipo text, out en_catalogo boolean, out en_grupo boolean)
language sql stable as $$
    select exists (select from cauce.catalogo c where c.origen = conocido.origen and c.tipo = conocido.tipo),
           exists (select from cauce.suscripciones s where s.grupo = conocido.grupo
                      and s.origen = conocido.origen and s.tipo = conocido.tipo and conocido.suscriptor in ('*', s.suscriptor))
$$;

-- Notes how far the cluster has come; or, in a database restored into a younger one (see comprobar_instancia), the
-- highest id stored, so that every connection learns of it.
create function cauce.comprobar_restauracion() returns void language plpgsql as $$
declare
    visto constant bigint := cauce.xid_visto();
begin
    if visto >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint and visto > pg_current_xact_id()::text::bigint then
        update cauce.instancia set xid = visto::text::xid8;
        perform set_config('cauce.comprobada', 'no', false);
        return;
    end if;
    update cauce.instancia set xid = pg_current_xact_id() where xid < pg_current_xact_id();
end $$;
