-- Settling: what a worker reports of its lote, in one transaction, fenced by (lote, ficha).

-- Derives the state of events from what is left of their deliveries in `principal`, the only group that writes it.
-- `tocados`: the events; their rows are locked already or nobody else can hold them.
create function cauce.actualizar_estado(tocados bigint[]) returns void language sql as $$
    update cauce.eventos e
       set estado = q.estado,
           procesado_en = case when q.estado = 'procesado' then coalesce(e.procesado_en, clock_timestamp()) end
      from (
        select t.id,
               case when bool_or(d.estado = 'error') then 'error'
                    when count(d.evento) = 0 then 'procesado'
                    when bool_and(d.suscriptor = '*' and d.intentos = 0) then 'pendiente'
                    else 'en_proceso' end::cauce.estado estado
          from unnest(tocados) t(id)
          left join cauce.entregas d on d.evento = t.id and d.grupo = 'principal'
         group by t.id) q
     where e.id = q.id and (e.estado, e.procesado_en is null) is distinct from (q.estado, q.estado <> 'procesado')
$$;

-- Writes the outcomes of single deliveries into entregas and fallos, and what they mean onto their events.
create function cauce.anotar_entregas(
    grupo text, lote bigint, trabajador text, nuevos bigint[], entregas jsonb, ahora timestamptz, aplicacion text)
returns void
language plpgsql as $$
#variable_conflict use_column
declare
    acabadas bigint;      -- rows written, to be compared with what was reported
begin
    -- What is reported must be in this lote: an event that comes for the first time, or is handed out whole, or a stored
    -- delivery under its lease. After a lost connection the same report may come twice.
    if exists (select from jsonb_to_recordset($5) r(evento bigint, suscriptor text)
                where r.evento <> all ($4)
                  and not exists (select from cauce.entregas d where d.evento = r.evento and d.grupo = $1
                                     and d.suscriptor in (r.suscriptor, '*') and d.lote = $2)) then
        raise exception 'lote % no longer holds a delivery it reports', $2 using errcode = 'CA001';
    end if;
    delete from cauce.entregas d
     using jsonb_to_recordset($5) r(evento bigint, suscriptor text, resultado text)
     where d.evento = r.evento and d.grupo = $1 and d.suscriptor = r.suscriptor and d.lote = $2 and r.resultado = 'hecha';
    get diagnostics acabadas = row_count;
    if acabadas <> (select count(*) from jsonb_to_recordset($5) r(resultado text) where r.resultado = 'hecha') then
        raise exception 'lote % no longer holds a delivery it reports as done', $2 using errcode = 'CA001';
    end if;

    delete from cauce.entregas d
     using jsonb_to_recordset($5) r(evento bigint, suscriptor text, resultado text)
     where d.evento = r.evento and d.grupo = $1 and d.suscriptor = r.suscriptor and d.lote = $2 and r.resultado = 'ignorada';

    insert into cauce.fallos (evento, grupo, suscriptor, intento, error, traza, trabajador)
    select r.evento, $1, r.suscriptor, r.intento, r.error, r.traza, $3
      from jsonb_to_recordset($5)
           r(evento bigint, suscriptor text, resultado text, intento integer, error text, traza text)
     where r.resultado in ('reintentar', 'muerta');

    insert into cauce.entregas as d (evento, grupo, suscriptor, aplicacion, prioridad, estado, intentos, proximo_en, lote, error)
    select r.evento, $1, r.suscriptor, coalesce(r.aplicacion, $7), e.prioridad,
           case r.resultado when 'muerta' then 'error' else 'pendiente' end::cauce.estado,
           r.intento - (r.resultado = 'devuelta')::integer,
           $6 + make_interval(secs => coalesce(r.espera, 0)),
           case r.resultado when 'retenida' then $2 end, r.error
      from jsonb_to_recordset($5)
           r(evento bigint, suscriptor text, aplicacion text, resultado text, intento integer, error text,
             espera double precision)
      join cauce.eventos e on e.id = r.evento
     where r.resultado in ('reintentar', 'muerta', 'devuelta', 'retenida')
    on conflict (evento, grupo, suscriptor) do update
       set aplicacion = excluded.aplicacion, estado = excluded.estado, intentos = excluded.intentos,
           proximo_en = excluded.proximo_en, lote = excluded.lote,
           error = coalesce(excluded.error, d.error),
           caidas = case when excluded.error is null then d.caidas else 0 end
     where d.lote = $2;
    get diagnostics acabadas = row_count;
    if acabadas <> (select count(*) from jsonb_to_recordset($5) r(evento bigint, resultado text)
                      join cauce.eventos e on e.id = r.evento
                     where r.resultado in ('reintentar', 'muerta', 'devuelta', 'retenida')) then
        raise exception 'lote % no longer holds a delivery it reports', $2 using errcode = 'CA001';
    end if;

    if $1 = 'principal' then
        update cauce.eventos e
           set intentos = greatest(e.intentos, q.intento), ultimo_error = coalesce(q.error, e.ultimo_error),
               ignorado = e.ignorado or q.ignorado
          from (select r.evento, least(max(r.intento - (r.resultado = 'devuelta')::integer), 32767) intento,
                       (array_agg(r.error order by r.intento desc) filter (where r.error is not null))[1] error,
                       bool_or(r.resultado = 'ignorada') ignorado
                  from jsonb_to_recordset($5)
                       r(evento bigint, suscriptor text, resultado text, intento integer, error text)
                 group by r.evento) q
         where e.id = q.evento;
    end if;
end $$;

-- Settles a lote, whole or in part.
--
-- ids       events of their first delivery that are finished with, whatever became of each delivery; null: all of them
-- entregas  what else there is to say, one object a delivery:
--           {"evento", "suscriptor", "resultado", "intento", "error", "traza", "espera", "aplicacion"}; the last names
--           the application whose workers shall have it, if not the one that claimed the lote
--             hecha       a retry is done: its row goes
--             reintentar  failed: due again in `espera` seconds
--             muerta      failed for good
--             devuelta    given back: due in `espera` seconds, the attempt is not spent
--             retenida    still in hand: becomes a row of its own, under the same lease
--             ignorada    nobody anywhere knows the event
-- Raises CA001, and undoes everything of its transaction, when the lease was lost.
-- Locks     the lote's row; then the rows of events with failures in id order, before their entregas
create function cauce.terminar(lote bigint, ficha bigint, ids bigint[], entregas jsonb default null) returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    l cauce.lotes;
    ahora constant timestamptz := clock_timestamp();
    escritos bigint;
    tocados bigint[] := '{}';
begin
    delete from cauce.lotes q where q.id = $1 and q.ficha = $2 returning q.* into l;
    if not found then
        raise exception 'the lease of lote % was lost', $1
            using errcode = 'CA001', hint = 'Another worker has its deliveries now; nothing of this settlement was kept.';
    end if;
    $3 := coalesce($3, l.ids);
    if $3 <> l.ids and not $3 <@ l.ids then
        raise exception 'lote % does not hold all of the events %', $1, $3 using errcode = 'CA006';
    end if;
    if $4 is not null then
        tocados := array(select distinct r.evento from jsonb_to_recordset($4) r(evento bigint) order by 1);
        if l.grupo = 'principal' then
            perform 1 from cauce.eventos e where e.id = any (tocados) order by e.id for no key update;
        end if;
        perform cauce.anotar_entregas(l.grupo, $1, l.trabajador, l.ids, $4, ahora, l.aplicacion);
        -- the workers of the other application may sleep
        perform cauce.avisar() where exists (
            select from jsonb_to_recordset($4) r(aplicacion text) where r.aplicacion <> l.aplicacion);
    end if;
    if l.grupo = 'principal' then
        update cauce.eventos e set estado = 'procesado', procesado_en = ahora, intentos = greatest(e.intentos, 1)
         where e.id = any ($3) and e.id <> all (tocados);
        get diagnostics escritos = row_count;
        if tocados <> '{}' then
            escritos := escritos + (select count(*) from unnest($3) u(id) where u.id = any (tocados));
        end if;
        if escritos <> cardinality($3) then
            raise exception 'lote % settles events that are not there any more', $1 using errcode = 'CA006';
        end if;
        if tocados <> '{}' then
            perform cauce.actualizar_estado(tocados);
        end if;
    end if;
    if cardinality($3) < cardinality(l.ids) or l.reintentos > 0 or $4 is not null then
        l.ids := array(select u.id from unnest(l.ids) with ordinality u(id, o) where u.id <> all ($3) order by u.o);
        l.reintentos := (select count(*) from cauce.entregas d where d.lote = $1);
        if cardinality(l.ids) + l.reintentos > 0 then
            insert into cauce.lotes values (l.*);
        end if;
    end if;
end $$;

