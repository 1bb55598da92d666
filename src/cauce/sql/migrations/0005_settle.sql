-- Settling: a worker reports the results of its lote, in one transaction, fenced by (lote, ficha).

-- The result of one delivery; cauce.terminar explains the fields. leer_informe computes the last three: whether this lote
-- holds a row of entregas for the delivery, whether the delivery needs no row any more, and its cause.
create type cauce.informe as (
    evento bigint, suscriptor text, resultado text, intento integer, error text, espera double precision, aplicacion text,
    huella bigint, tipo text, mensaje text, traza text, tenida boolean, acabada boolean, causa bigint);

-- Reads a report. Refuses it if it is incomplete or contradicts itself, before anything is written. If it names deliveries
-- that are not in the lote, the worker has lost them: CA001. `ids`: the events that are settled with it.
create function cauce.leer_informe(l cauce.lotes, ids bigint[], entregas jsonb) returns cauce.informe[]
language plpgsql
set enable_hashjoin = on
set enable_nestloop = off
as $$
declare
    informes cauce.informe[];
    malo record;
begin
    informes := array(
        select row(i.evento, i.suscriptor, i.resultado, i.intento, i.error, i.espera, i.aplicacion, i.huella, i.tipo, i.mensaje,
                   i.traza, h.evento is not null, i.resultado in ('hecha', 'ignorada'),
                   case when i.resultado in ('reintentar', 'muerta') then coalesce(i.huella, hashtextextended(i.traza, 0)) end
               )::cauce.informe
          from jsonb_populate_recordset(null::cauce.informe, entregas) i
          left join unnest(l.reintentos, l.suscriptores) h(evento, suscriptor)
                 on h.evento = i.evento and h.suscriptor = i.suscriptor);
    select q.* into malo from (
        select i.evento, i.suscriptor, case
                when i.evento is null or i.suscriptor is null or i.intento is null then 'lacks evento, suscriptor or intento'
                when i.resultado is null
                     or i.resultado not in ('hecha', 'reintentar', 'muerta', 'devuelta', 'retenida', 'ignorada')
                     then format('has an unknown resultado, %L', i.resultado)
                when i.intento < 1 then format('counts attempt %s, and the first is 1', i.intento)
                when i.error is null and i.resultado in ('reintentar', 'muerta') then 'failed, and names no error'
                when count(*) over (partition by i.evento, i.suscriptor) > 1 then 'is reported twice'
                when i.suscriptor = '*' and i.resultado <> 'hecha' and count(*) over (partition by i.evento) > 1
                     then 'stands for its whole event, of which another delivery is reported beside it' end falta
          from unnest(informes) i) q
     where q.falta is not null limit 1;
    if found then
        raise exception 'the report of lote % is refused: event %, subscriber %, %', l.id, malo.evento, malo.suscriptor, malo.falta
            using errcode = 'invalid_parameter_value', hint = 'Nothing of it was settled. cauce.terminar says what a report holds.';
    end if;
    -- A delivery without a row in the lote belongs to an event that is delivered for the first time, or to all subscribers
    -- again ('*') and is now split. After a lost connection the same report may come twice.
    select i.evento, i.suscriptor into malo from unnest(informes) i
     where not i.tenida and (i.resultado = 'hecha' or i.evento not in (
            select n.id from unnest(l.ids) n(id)
            union all select w.evento from unnest(informes) w where w.tenida and w.suscriptor = '*' and w.resultado = 'hecha'))
     limit 1;
    if found then
        raise exception 'lote % no longer holds a delivery it reports: event %, subscriber %', l.id, malo.evento, malo.suscriptor
            using errcode = 'CA001', hint = 'It was settled, or another worker has it; nothing of this settlement was kept.';
    end if;
    -- An event that stays in the lote is delivered from there to all; a row of its own would deliver it twice.
    if ids <> l.ids then
        select i.evento, i.suscriptor into malo from unnest(informes) i
         where not i.tenida
           and i.evento in (select n.id from unnest(l.ids) n(id) except select s.id from unnest(ids) s(id))
         limit 1;
        if found then
            raise exception 'the report of lote % is refused: event %, subscriber %, comes for the first time, and its event is not among those settled',
                l.id, malo.evento, malo.suscriptor
                using errcode = 'invalid_parameter_value', hint = 'Nothing of it was settled. Name the event in ids.';
        end if;
    end if;
    return informes;
end $$;

-- Derives the state of events (`tocados`) from their remaining deliveries in `principal`, the only group that writes it.
-- The other arrays, if given, have one entry for each event: the highest attempt, the last error, whether it has no handler.
-- Locks   the caller has locked the rows of the events, or no other transaction can hold them
create function cauce.actualizar_estado(
    tocados bigint[], intentos integer[] default null, errores text[] default null, ignorados boolean[] default null)
returns void language plpgsql as $$
#variable_conflict use_column
begin
    update cauce.eventos e
       set estado = q.estado,
           procesado_en = case when q.estado = 'procesado' then coalesce(e.procesado_en, clock_timestamp()) end,
           intentos = greatest(e.intentos, case when q.intento > 32767 then 32767 else q.intento end), ultimo_error = coalesce(q.error, e.ultimo_error),
           ignorado = e.ignorado or coalesce(q.ignorado, false)
      from (
        select t.id, t.intento, t.error, t.ignorado, case
                when d.alguna_muerta then 'error'
                when d.cuantas = 0 then 'procesado'
                when d.sin_empezar then 'pendiente'
                else 'en_proceso' end::cauce.estado estado
          from unnest($1, $2, $3, $4) t(id, intento, error, ignorado)
         cross join lateral (
            select count(*) cuantas, bool_or(d.estado = 'error') alguna_muerta,
                   bool_and(d.suscriptor = '*' and d.intentos = 0) sin_empezar
              from cauce.entregas d where d.evento = t.id and d.grupo = 'principal') d) q
     where e.id = q.id
       and (q.intento is not null or (e.estado, e.procesado_en is null) is distinct from (q.estado, q.estado <> 'procesado'));
end $$;

-- Locks these deliveries of a group in the order of their key, as operators do. Where the events are not locked first,
-- another order would cause deadlocks with operators.
-- Index   entregas_pkey
create function cauce.bloquear_entregas(grupo text, eventos bigint[], suscriptores text[]) returns void language plpgsql as $$
begin
    perform 1 from unnest($2, $3) u(evento, suscriptor)
      join cauce.entregas d on d.evento = u.evento and d.grupo = $1 and d.suscriptor = u.suscriptor
     order by d.evento, d.suscriptor for update of d;
end $$;

-- Writes the results of single deliveries into entregas.
-- Index     entregas_pkey, eventos_pkey: a list of keys, then a hash join. Without the settings the planner expects few
--           deliveries in the group and reads them all
create function cauce.anotar_entregas(l cauce.lotes, informes cauce.informe[], ahora timestamptz) returns void
language plpgsql
set enable_hashjoin = on
set enable_nestloop = off
as $$
declare
    eventos constant bigint[] := array(select i.evento from unnest(informes) i);
    faltan bigint;
begin
    with informe as materialized (
        select i.*, coalesce(i.aplicacion, l.aplicacion) para,
               case i.resultado when 'muerta' then 'error' else 'pendiente' end::cauce.estado estado,
               i.intento - (i.resultado in ('devuelta', 'retenida'))::integer intentos,
               case i.resultado when 'retenida' then 'infinity'
                                else ahora + make_interval(secs => coalesce(i.espera, 0)) end proximo_en
          from unnest(informes) i),
    fuera as (
        delete from cauce.entregas d using informe i
         where i.tenida and i.acabada and d.evento = any (eventos) and d.evento = i.evento and d.grupo = l.grupo and d.suscriptor = i.suscriptor
        returning 1),
    cambiadas as (
        update cauce.entregas d
           set aplicacion = i.para, estado = i.estado, intentos = i.intentos, proximo_en = i.proximo_en,
               error = coalesce(i.error, d.error), caidas = case when i.error is null then d.caidas else 0 end
          from informe i
         where i.tenida and not i.acabada and d.evento = any (eventos) and d.evento = i.evento and d.grupo = l.grupo and d.suscriptor = i.suscriptor
        returning 1),
    nuevas as (
        insert into cauce.entregas (evento, grupo, suscriptor, aplicacion, prioridad, estado, intentos, proximo_en, error)
        select i.evento, l.grupo, i.suscriptor, i.para, e.prioridad, i.estado, i.intentos, i.proximo_en, i.error
          from informe i join cauce.eventos e on e.id = i.evento
         where not i.tenida and not i.acabada and e.id = any (eventos)
        on conflict do nothing
        returning 1)
    select (select count(*) from informe i where i.tenida or not i.acabada)
           - (select count(*) from fuera) - (select count(*) from cambiadas) - (select count(*) from nuevas) into faltan;
    if faltan > 0 then
        raise exception 'lote % no longer holds % of the deliveries it reports', l.id, faltan
            using errcode = 'CA001', hint = 'Their rows or events were deleted; nothing of this settlement was kept.';
    end if;
end $$;

-- Writes failed attempts into fallos and their new causes into causas. Returns the causes that are still unknown.
-- Locks     each cause that it stores, by an advisory lock, without waiting: an open transaction may have stored the same
-- Index     causas_pkey, by a list of keys
create function cauce.anotar_fallos(l cauce.lotes, informes cauce.informe[]) returns bigint[]
language plpgsql as $$
declare
    causas constant bigint[] := array(select distinct i.causa from unnest(informes) i where i.causa is not null);
    conocidas bigint[];
begin
    insert into cauce.fallos (evento, grupo, suscriptor, intento, error, huella, trabajador)
    select i.evento, l.grupo, i.suscriptor, i.intento, i.error, i.causa, l.trabajador
      from unnest(informes) i where i.resultado in ('reintentar', 'muerta');
    conocidas := array(select c.huella from cauce.causas c where c.huella = any (causas));
    with explicables as materialized (
        select distinct on (i.causa) i.causa, coalesce(i.tipo, split_part(i.error, ':', 1)) tipo,
               coalesce(i.mensaje, i.error) mensaje, i.traza
          from unnest(informes) i
         where i.traza is not null and i.causa is not null and i.causa <> all (conocidas)
         order by i.causa),
    explicadas as (
        insert into cauce.causas (huella, tipo, mensaje, traza)
        select e.causa, e.tipo, e.mensaje, e.traza from explicables e
         where pg_try_advisory_xact_lock(1128355143, hashint8(e.causa))
        on conflict do nothing
        returning huella)
    select conocidas || coalesce(array_agg(e.huella), '{}') into conocidas from explicadas e;
    return array(select n.causa from unnest(causas) n(causa) where n.causa <> all (conocidas));
end $$;

-- Settles all or part of a lote.
--
-- ids       the events, among those delivered for the first time, that leave the lote now; null: all of them
-- entregas  one object for each delivery that did not simply succeed, and for each retry:
--           {"evento", "suscriptor", "resultado", "intento"}. `resultado` is one of
--             hecha       a retry succeeded: its row is deleted
--             reintentar  failed because of "error"; due again in "espera" seconds
--             muerta      failed for good because of "error"
--             devuelta    given back: due in "espera" seconds, the attempt does not count
--             retenida    not finished: gets a row of its own, under the same lease
--             ignorada    no application's catalog knows the event
--           "aplicacion" is the application whose workers get it next; by default the one that claimed the lote. "huella"
--           identifies the cause of a failure. A report with a new cause also has its "tipo", "mensaje" and "traza" (traceback).
-- Returns the causes in the report that the database does not know: the next report with one of them must explain it.
-- Raises CA001 if the lease was lost; the transaction is then rolled back.
-- Locks     the row of the lote. In `principal`, then the rows of the events in `entregas` by id, then their deliveries. In
--           another group, the deliveries of the lote by key, as operators do. A cause that it stores, as in anotar_fallos
-- Index     lotes_pkey, eventos_pkey, entregas_pkey; pinned by its settings
create function cauce.terminar(lote bigint, ficha bigint, ids bigint[], entregas jsonb default null) returns bigint[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    l cauce.lotes;
    ahora constant timestamptz := clock_timestamp();
    informes cauce.informe[];
    tocados bigint[] := '{}';
    limpios bigint[];
    escritos bigint;
    desconocidas bigint[] := '{}';
begin
    delete from cauce.lotes q where q.id = $1 and q.ficha = $2 returning q.* into l;
    if not found then
        raise exception 'the lease of lote % was lost', $1
            using errcode = 'CA001', hint = 'Another worker has its deliveries now; nothing of this settlement was kept.';
    end if;
    $3 := coalesce($3, l.ids);
    if $3 <> l.ids and (not $3 <@ l.ids or cardinality($3) <> (select count(distinct u.id) from unnest($3) u(id))) then
        raise exception 'lote % does not hold all of the events %, each once', $1, $3 using errcode = 'CA006';
    end if;
    limpios := $3;
    if $4 is not null then
        informes := cauce.leer_informe(l, $3, $4);
        tocados := array(select distinct i.evento from unnest(informes) i order by 1);
        if l.grupo = 'principal' then
            perform 1 from cauce.eventos e where e.id = any (tocados) order by e.id for no key update;
        else
            perform cauce.bloquear_entregas(l.grupo, array_agg(i.evento), array_agg(i.suscriptor)) from unnest(informes) i where i.tenida;
        end if;
        perform cauce.anotar_entregas(l, informes, ahora);
        desconocidas := cauce.anotar_fallos(l, informes);
        limpios := array(select u.id from unnest($3) u(id) except select t.id from unnest(tocados) t(id));
        -- the workers of the other application may sleep
        perform cauce.avisar() where exists (select from unnest(informes) i where i.aplicacion <> l.aplicacion);
    end if;
    if l.grupo = 'principal' then
        update cauce.eventos e set estado = 'procesado', procesado_en = ahora, intentos = greatest(e.intentos, 1)
         where e.id = any (limpios);
        get diagnostics escritos = row_count;
        if escritos <> cardinality(limpios) then
            raise exception 'lote % settles events that are not there any more', $1 using errcode = 'CA006';
        end if;
        perform cauce.actualizar_estado(array_agg(q.evento), array_agg(q.intento), array_agg(q.error), array_agg(q.ignorado))
           from (select i.evento, max(i.intento - (i.resultado = 'devuelta')::integer) intento,
                        (array_agg(i.error order by i.intento desc) filter (where i.error is not null))[1] error,
                        bool_or(i.resultado = 'ignorada') ignorado
                   from unnest(informes) i group by i.evento) q
         having count(*) > 0;
    end if;
    if $3 <> l.ids or l.reintentos <> '{}' or informes is not null then
        l.ids := case when $3 = l.ids then '{}'
                      else array(select u.id from unnest(l.ids) with ordinality u(id, o) where u.id <> all ($3) order by u.o) end;
        select coalesce(array_agg(q.evento), '{}'), coalesce(array_agg(q.suscriptor), '{}') into l.reintentos, l.suscriptores from (
            select h.evento, h.suscriptor from unnest(l.reintentos, l.suscriptores) h(evento, suscriptor)
            except select i.evento, i.suscriptor from unnest(informes) i
            union select i.evento, i.suscriptor from unnest(informes) i where i.resultado = 'retenida') q;
        if l.ids <> '{}' or l.reintentos <> '{}' then
            insert into cauce.lotes values (l.*);
        end if;
    end if;
    return desconocidas;
end $$;
