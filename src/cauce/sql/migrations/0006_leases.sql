-- Leases: the heartbeat renews them; batches of dead workers are taken over.

-- Extends the leases of these lotes. Returns those that still exist, so that a worker learns which it has lost.
-- Skips a lote that is being settled: while this waits for it, the others could expire.
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

-- Marks the pending events of these lotes as en_proceso. The heartbeat calls it in a transaction of its own.
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

-- Records that the worker runs nothing but this lote. Returns false if the lease is lost.
create function cauce.correr_a_solas(lote bigint, ficha bigint) returns boolean
language sql as $$
    with mio as (
        update cauce.lotes l set a_solas = true where l.id = $1 and l.ficha = $2 returning 1)
    select exists (select from mio)
$$;

-- Takes over an expired lote: each of its events becomes a delivery of its own that is claimed alone. After `limite_caidas`
-- dead workers it becomes an error. The last of these deaths counts only if nothing else ran in that worker: otherwise
-- another delivery may have caused it.
-- Locks   the caller holds the row of the lote
create function cauce.rescatar_lote(l cauce.lotes, limite_caidas integer) returns void
language plpgsql as $$
#variable_conflict use_column
declare
    tocados bigint[];
    intentos integer[];
    errores text[];
begin
    if l.grupo = 'principal' then
        perform 1 from cauce.eventos e where e.id = any (l.ids || l.reintentos) order by e.id for no key update;
    end if;
    delete from cauce.lotes q where q.id = l.id;
    with otra_vez as (
        update cauce.entregas d
           set proximo_en = clock_timestamp(), intentos = d.intentos + 1,
               caidas = case when l.a_solas or d.caidas + 1 < limite_caidas then d.caidas + 1 else d.caidas end,
               estado = case when l.a_solas and d.caidas + 1 >= limite_caidas then 'error' else 'pendiente' end::cauce.estado
          from unnest(l.reintentos, l.suscriptores) u(evento, suscriptor)
         where d.evento = any (l.reintentos) and d.evento = u.evento and d.grupo = l.grupo and d.suscriptor = u.suscriptor
        returning d.evento, d.suscriptor, d.intentos, d.caidas, d.estado),
    enteras as (
        insert into cauce.entregas (evento, grupo, suscriptor, aplicacion, prioridad, estado, intentos, caidas, proximo_en)
        select e.id, l.grupo, '*', l.aplicacion, e.prioridad,
               case when 1 >= limite_caidas then 'error' else 'pendiente' end::cauce.estado, 1, 1, clock_timestamp()
          from cauce.eventos e where e.id = any (l.ids)
        returning evento, suscriptor, intentos, caidas, estado),
    todas as (table otra_vez union all table enteras),
    apuntes as (
        insert into cauce.fallos (evento, grupo, suscriptor, intento, error, trabajador)
        select d.evento, l.grupo, d.suscriptor, d.intentos,
               format('worker %s died or lost its lease while it held this delivery (%s of %s times)',
                      l.trabajador, d.caidas, limite_caidas), l.trabajador
          from todas d)
    select array_agg(q.evento), array_agg(q.intentos), array_agg(q.error) into tocados, intentos, errores from (
        select d.evento, max(d.intentos) intentos,
               max(format('%s workers died while they held this event', d.caidas)) filter (where d.estado = 'error') error
          from todas d group by d.evento) q;
    if l.grupo = 'principal' and tocados is not null then
        perform cauce.actualizar_estado(tocados, intentos, errores);
    end if;
end $$;

-- Takes over the expired lotes of all groups, and returns how many. If one fails, it raises a warning and goes on.
create function cauce.rescatar(limite_caidas integer) returns integer
language plpgsql as $$
#variable_conflict use_column
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

-- Finds the due retries that claims have missed: those before the mark of their lane and in no lote. Their settlement
-- committed after a claim had moved the mark past their due time, or somebody held the row. They become due a moment from
-- now, after the mark. Returns how many.
--
-- It looks back from the mark by `alcance` or more. Workers pass the time since their last look, plus some seconds for slow
-- commits. To find older ones at a low average cost, it looks back further at random: at least twice as far in
-- one call of two, ten times in one of ten. A mark in the future means that the clock was set back: the lane is then read
-- from the beginning, and what workers hold in it gets 'infinity', so that claims do not find it.
-- Locks   the rows, skipping locked ones, and only then reads lotes: a claim may have taken them in between
-- Index   marcas_pkey, backward; entregas_debidas, as a range up to the mark; a full scan of lotes
create function cauce.repasar_reintentos(
    grupo text, aplicacion text default '', alcance interval default '10 seconds') returns bigint
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    ahora constant timestamptz := clock_timestamp();
    hasta_donde constant interval := alcance * least(1 / (1 - random()), 1e6);
    m record;
    eventos bigint[];
    suscriptores text[];
    cuantos bigint := 0;
    hallados bigint;
begin
    for m in select u.* from unnest('{false,true}'::boolean[]) s(sospechosas) cross join generate_series(0, 9) p(prioridad)
               cross join lateral (
                select q.* from cauce.marcas q
                 where q.grupo = $1 and q.aplicacion = $2 and q.sospechosas = s.sospechosas and q.prioridad = p.prioridad
                 order by q.n desc limit 1) u loop
        if m.proximo_en > ahora + interval '1 second' then
            -- Only rows that it has locked: an open settlement may have made any other due, and will delete its lote.
            select array_agg(q.evento), array_agg(q.suscriptor) into eventos, suscriptores from (
                select d.evento, d.suscriptor from cauce.entregas d join cauce.en_mano h using (evento, grupo, suscriptor)
                 where d.grupo = $1 order by d.evento, d.suscriptor for update of d) q;
            update cauce.entregas d set proximo_en = 'infinity'
              from unnest(eventos, suscriptores) q(evento, suscriptor) join cauce.en_mano h using (evento, suscriptor)
             where h.grupo = $1 and d.evento = q.evento and d.grupo = $1 and d.suscriptor = q.suscriptor
               and d.aplicacion = $2 and (d.caidas > 0) = m.sospechosas and d.prioridad = m.prioridad;
            insert into cauce.marcas values ($1, $2, m.sospechosas, m.prioridad, m.n + 1, '-infinity', 0, '')
            on conflict do nothing;
            continue;
        end if;
        select array_agg(d.evento), array_agg(d.suscriptor) into eventos, suscriptores from (
            select q.evento, q.suscriptor from cauce.entregas q
             where q.grupo = $1 and q.aplicacion = $2 and (q.caidas > 0) = m.sospechosas and q.prioridad = m.prioridad
               and q.estado = 'pendiente' and q.proximo_en > m.proximo_en - hasta_donde
               and (q.proximo_en, q.evento, q.suscriptor) <= (m.proximo_en, m.evento, m.suscriptor)
               and (q.evento, q.suscriptor) not in (select h.evento, h.suscriptor from cauce.en_mano h where h.grupo = $1)
               for update skip locked) d;
        update cauce.entregas d set proximo_en = clock_timestamp() + interval '0.1 second'
          from unnest(eventos, suscriptores) q(evento, suscriptor)
         where d.evento = any (eventos) and d.evento = q.evento and d.grupo = $1 and d.suscriptor = q.suscriptor
           and (d.evento, d.suscriptor) not in (select h.evento, h.suscriptor from cauce.en_mano h where h.grupo = $1);
        get diagnostics hallados = row_count;
        cuantos := cuantos + hallados;
    end loop;
    return cuantos;
end $$;

-- Records that a worker is alive. With `con_cerrojo` this session holds lock 1128355144 shared, so the worker need not write
-- again. Behind a pooler, which gives sessions to others, the worker writes the time again and again instead.
create function cauce.presentar_trabajador(
    trabajador text, grupos text[], maquina text, pid integer, con_cerrojo boolean default false) returns void
language sql as $$
    insert into cauce.trabajadores as t (trabajador, grupos, maquina, pid)
    values (presentar_trabajador.trabajador, presentar_trabajador.grupos, presentar_trabajador.maquina, presentar_trabajador.pid)
    on conflict (trabajador) do update set visto_en = clock_timestamp(), perdido_en = null;
    select pg_advisory_lock_shared(1128355144, hashtext(presentar_trabajador.trabajador)) where con_cerrojo;
$$;

-- The workers and when each was last seen: the last activity of the session with its lock; the present, if this role may not
-- see that activity; the time in its row, if there is no lock. A frozen process keeps its lock, but its session is idle.
create view cauce.presencia as
select t.trabajador, t.grupos, t.maquina, t.pid, t.iniciado_en, c.pid is not null con_cerrojo, t.perdido_en,
       case when c.pid is not null then greatest(t.visto_en, coalesce(a.state_change, clock_timestamp()))
            else coalesce(t.perdido_en, t.visto_en) end visto_en
  from cauce.trabajadores t
  left join pg_locks c on c.locktype = 'advisory' and c.granted and c.objsubid = 2
        and c.database = (select d.oid from pg_database d where d.datname = current_database())
        and c.classid = 1128355144 and c.objid = hashtext(t.trabajador)::oid
  left join pg_stat_activity a on a.pid = c.pid;

-- Records which workers are gone, and deletes those that have been gone for an hour. Writes nothing if there are none.
create function cauce.pasar_lista() returns void
language sql as $$
    update cauce.trabajadores t set perdido_en = clock_timestamp()
      from cauce.presencia p
     where p.trabajador = t.trabajador and t.perdido_en is null
       and not p.con_cerrojo and p.visto_en < clock_timestamp() - interval '1 minute';
    delete from cauce.trabajadores t where t.perdido_en < clock_timestamp() - interval '1 hour';
$$;
