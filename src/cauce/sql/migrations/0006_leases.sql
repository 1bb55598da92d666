-- Leases: kept by the heartbeat, taken away from the dead.

-- Extends the leases of exactly these lotes; returns those that still exist, so that a worker learns what it lost.
-- Skips a lote that is being settled right now: waiting for it would let the others expire.
create function cauce.renovar(lotes bigint[], fichas bigint[], arriendo interval) returns setof bigint
language sql as $$
    with vivos as materialized (
        select l.id from cauce.lotes l join unnest(lotes, fichas) u(id, ficha) on l.id = u.id and l.ficha = u.ficha
         order by l.id for no key update of l skip locked),
    renovados as (
        update cauce.lotes l set arriendo_hasta = clock_timestamp() + arriendo
          from vivos v where l.id = v.id returning l.id)
    select l.id from cauce.lotes l join unnest(lotes, fichas) u(id, ficha) on l.id = u.id and l.ficha = u.ficha
$$;

-- Shows events as en_proceso while a worker holds them: a transaction of its own, only over pendiente.
create function cauce.marcar_en_proceso(lotes bigint[], fichas bigint[]) returns bigint
language sql as $$
    with mios as materialized (
        select e.id from cauce.lotes l
          join unnest(lotes, fichas) u(id, ficha) on l.id = u.id and l.ficha = u.ficha
         cross join unnest(l.ids) i(id)
          join cauce.eventos e on e.id = i.id
         where l.grupo = 'principal' and e.estado = 'pendiente'
         order by e.id for no key update of e skip locked),
    marcados as (
        update cauce.eventos e set estado = 'en_proceso' from mios m where e.id = m.id and e.estado = 'pendiente' returning 1)
    select count(*) from marcados
$$;

-- Notes that nothing else runs in the worker while it runs this lote; false: the lease is lost.
create function cauce.correr_a_solas(lote bigint, ficha bigint) returns boolean
language sql as $$
    with mio as (
        update cauce.lotes l set a_solas = true where l.id = $1 and l.ficha = $2 returning 1)
    select exists (select from mio)
$$;

-- Takes an expired lote over: every event of it becomes a delivery of its own, to be handed out alone, and after
-- `limite_caidas` dead workers an error. The death that decides counts only if nothing else ran in that worker: otherwise
-- the guilty one may have been beside it.
-- Locks   the caller holds the row of the lote
create function cauce.rescatar_lote(l cauce.lotes, limite_caidas integer) returns void
language plpgsql as $$
declare
    tocados bigint[];
begin
    tocados := l.ids || array(select d.evento from cauce.entregas d where d.lote = l.id);
    if l.grupo = 'principal' then
        perform 1 from cauce.eventos e where e.id = any (tocados) order by e.id for no key update;
    end if;
    delete from cauce.lotes q where q.id = l.id;
    with otra_vez as (
        update cauce.entregas d
           set lote = null, proximo_en = clock_timestamp(),
               caidas = case when l.a_solas or d.caidas + 1 < limite_caidas then d.caidas + 1 else d.caidas end,
               estado = case when l.a_solas and d.caidas + 1 >= limite_caidas then 'error' else 'pendiente' end::cauce.estado
         where d.lote = l.id
        returning d.evento, d.suscriptor, d.intentos, d.caidas),
    enteras as (
        insert into cauce.entregas (evento, grupo, suscriptor, aplicacion, prioridad, estado, intentos, caidas, proximo_en)
        select e.id, l.grupo, '*', l.aplicacion, e.prioridad,
               case when 1 >= limite_caidas then 'error' else 'pendiente' end::cauce.estado, 1, 1, clock_timestamp()
          from cauce.eventos e where e.id = any (l.ids)
        returning evento, suscriptor, intentos, caidas)
    insert into cauce.fallos (evento, grupo, suscriptor, intento, error, trabajador)
    select d.evento, l.grupo, d.suscriptor, d.intentos,
           format('worker %s died or lost its lease while it held this delivery (%s of %s times)',
                  l.trabajador, d.caidas, limite_caidas), l.trabajador
      from (table otra_vez union all table enteras) d;
    if l.grupo = 'principal' then
        update cauce.eventos e set intentos = greatest(e.intentos, least(d.intentos, 32767)),
               ultimo_error = case when d.estado = 'error' then format('%s workers died while they held this event', d.caidas)
                                   else e.ultimo_error end
          from cauce.entregas d where d.evento = e.id and d.grupo = 'principal' and e.id = any (tocados);
        perform cauce.actualizar_estado(tocados);
    end if;
end $$;

-- Takes over the expired lotes of all groups; one that cannot be is left, with a warning, and stops no other. Returns how
-- many were taken over.
create function cauce.rescatar(limite_caidas integer) returns integer
language plpgsql as $$
declare
    l cauce.lotes;
    cuantos integer := 0;
begin
    for l in select q.* from cauce.lotes q where q.arriendo_hasta < clock_timestamp() order by q.id for update skip locked loop
        begin
            perform cauce.rescatar_lote(l, limite_caidas);
            cuantos := cuantos + 1;
        exception when others then
            raise warning 'lote % of group % expired and could not be taken over: %', l.id, l.grupo, sqlerrm;
        end;
    end loop;
    return cuantos;
end $$;

-- Says that a worker is alive, and forgets those that have been silent for an hour.
create function cauce.presentar_trabajador(trabajador text, grupos text[], maquina text, pid integer) returns void
language sql as $$
    insert into cauce.trabajadores as t (trabajador, grupos, maquina, pid)
    values (presentar_trabajador.trabajador, presentar_trabajador.grupos, presentar_trabajador.maquina, presentar_trabajador.pid)
    on conflict (trabajador) do update set visto_en = clock_timestamp();
    delete from cauce.trabajadores t where t.visto_en < clock_timestamp() - interval '1 hour';
$$;
