-- What people do to the bus: retry, discard, look at the lag, prune.

-- Makes the failed or waiting deliveries of an event due at once, with all their attempts before them; of one group and
-- subscriber, or of all. Returns how many; those that a worker holds right now are left to it.
create function cauce.reintentar(evento bigint, grupo text default null, suscriptor text default null) returns integer
language plpgsql as $$
declare
    cuantas integer;
begin
    perform 1 from cauce.eventos e where e.id = reintentar.evento for no key update;
    update cauce.entregas d
       set estado = 'pendiente', intentos = 0, caidas = 0, proximo_en = clock_timestamp()
     where d.evento = reintentar.evento and d.lote is null
       and d.grupo = coalesce(reintentar.grupo, d.grupo) and d.suscriptor = coalesce(reintentar.suscriptor, d.suscriptor);
    get diagnostics cuantas = row_count;
    perform cauce.actualizar_estado(array[reintentar.evento]) where cuantas > 0;
    perform pg_notify('cauce', '') where cuantas > 0;
    return cuantas;
end $$;

-- Gives the failed or waiting deliveries of an event up, for good: once none is left in `principal`,
-- the event is `procesado` and `ignorado`. Its failures stay to be read, with a last one that says so. Returns how many;
-- those a worker holds right now are left to it.
create function cauce.descartar(evento bigint, grupo text default null, suscriptor text default null) returns integer
language plpgsql as $$
declare
    cuantas integer;
    de_principal boolean;
begin
    perform 1 from cauce.eventos e where e.id = descartar.evento for no key update;
    with fuera as (
        delete from cauce.entregas d
         where d.evento = descartar.evento and d.lote is null
           and d.grupo = coalesce(descartar.grupo, d.grupo) and d.suscriptor = coalesce(descartar.suscriptor, d.suscriptor)
        returning d.evento, d.grupo, d.suscriptor, d.intentos),
    apuntes as (
        insert into cauce.fallos (evento, grupo, suscriptor, intento, error)
        select f.evento, f.grupo, f.suscriptor, f.intentos, 'discarded by hand' from fuera f)
    select count(*), bool_or(f.grupo = 'principal') into cuantas, de_principal from fuera f;
    if de_principal then
        update cauce.eventos e set ignorado = true where e.id = descartar.evento;
        perform cauce.actualizar_estado(array[descartar.evento]);
    end if;
    return cuantas;
end $$;

-- What a group has not yet been handed, lane by lane: how many events (counted to `maximo`), and since when.
create function cauce.retraso(grupo text, maximo integer) returns table (carril smallint, pendientes bigint, desde timestamptz)
language sql
-- counting to a maximum means stopping there, also on a table that nobody has analyzed
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

-- Deletes processed events older than `antes`, at most `maximo` of them, oldest id first. What any group has still to
-- read, holds under a lease or owes a delivery stays; told by one snapshot, for a claim moves an event from one to another.
create function cauce.purgar(antes interval, maximo integer) returns bigint
language plpgsql as $$
declare
    cuantos bigint;
begin
    with viejos as materialized (
        select e.id from cauce.eventos e
         where e.estado = 'procesado' and e.procesado_en < now() - antes
           and e.id <> all (array(select unnest(l.ids) from cauce.lotes l))
           and not exists (select from cauce.entregas d where d.evento = e.id)
           and not exists (
                select from cauce.grupos g
                 cross join lateral (select p.desde from cauce.posiciones p
                                      where p.grupo = g.grupo and p.carril = e.carril order by p.n desc limit 1) p
                 where not pg_visible_in_snapshot(e.tx, p.desde))
         order by e.id limit maximo),
    sin_fallos as (delete from cauce.fallos f using viejos v where f.evento = v.id),
    borrados as (delete from cauce.eventos e using viejos v where e.id = v.id returning 1)
    select count(*) into cuantos from borrados;
    return cuantos;
end $$;
