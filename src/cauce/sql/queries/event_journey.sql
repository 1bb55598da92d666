-- The state of one event for each subscriber of each group; '*' stands for a group without subscribers to it.
--
-- estado     pendiente   not claimed yet, or waiting for another attempt at `proximo_en`
--            en_proceso  held by the worker `trabajador`
--            procesado   done
--            error       dead
--            descartado  dismissed
--            ignorado    had no handler in `principal`; `cauce retry` delivers it to the handlers that exist now
--            anterior    published before the group existed, so never delivered to it
-- fallos     failed attempts so far
-- Order      principal, then by name; the dedicated handler before the subscribers
-- Index      eventos_pkey, posiciones_pkey, entregas_pkey, fallos_evento; a full scan of lotes
with este as (
    select e.id, e.origen, e.tipo, e.carril, e.tx, e.orden, e.creado_en, cauce.sin_atender(e.id) sin_atender
      from cauce.eventos e where e.id = %(id)s),
oyentes as (
    select s.grupo, s.suscriptor from cauce.suscripciones s join este e on (s.origen, s.tipo) = (e.origen, e.tipo)
     where s.retirada_en is null),
nombres as (
    select grupo, suscriptor from oyentes
    union select d.grupo, d.suscriptor from cauce.entregas d where d.evento = %(id)s and d.suscriptor <> '*'
    union select f.grupo, f.suscriptor from cauce.fallos f where f.evento = %(id)s and f.suscriptor <> '*'
    union select 'principal', '*' where not exists (select from oyentes o where o.grupo = 'principal')),
lecturas as (
    select p.grupo,
           not pg_visible_in_snapshot(e.tx, p.desde)
           and not (pg_visible_in_snapshot(e.tx, p.hasta) and (e.orden, e.id) <= (p.orden, p.id)) por_leer
      from este e
      join (select distinct on (q.grupo) q.grupo, q.desde, q.hasta, q.orden, q.id
              from cauce.posiciones q join este e on q.carril = e.carril order by q.grupo, q.n desc) p on true)
select n.grupo, n.suscriptor,
       case when r.por_leer then 'pendiente'
            when l.id is not null then 'en_proceso'
            when d.estado = 'error' then 'error'
            when d.evento is not null then 'pendiente'
            when f.descartada then 'descartado'
            when n.grupo = 'principal' and e.sin_atender then 'ignorado'
            when g.creado_en > e.creado_en and n.grupo <> 'principal' and f.fallos = 0 then 'anterior'
            else 'procesado' end estado,
       f.fallos, coalesce(d.error, f.error) error,
       case when d.estado = 'pendiente' and l.id is null then d.proximo_en end proximo_en, l.id lote, l.trabajador
  from nombres n
 cross join este e
  left join cauce.grupos g on g.grupo = n.grupo
  left join lecturas r on r.grupo = n.grupo
  left join lateral (
    select q.* from cauce.entregas q
     where q.evento = e.id and q.grupo = n.grupo and q.suscriptor in (n.suscriptor, '*')
     order by q.suscriptor = '*' limit 1) d on true
  left join lateral (
    select q.id, q.trabajador from cauce.lotes q
     where q.grupo = n.grupo and (e.id = any (q.ids) or exists (
                select from unnest(q.reintentos, q.suscriptores) u(evento, suscriptor)
                 where u.evento = e.id and u.suscriptor = d.suscriptor)) limit 1) l on true
 cross join lateral (
    select count(*) filter (where not q.descartada) fallos,
           (array_agg(q.error order by q.id desc))[1] error,
           (array_agg(q.descartada order by q.id desc))[1] descartada
      from cauce.fallos q
     where q.evento = e.id and q.grupo = n.grupo and q.suscriptor in (n.suscriptor, '*')) f
 order by n.grupo <> 'principal', n.grupo, n.suscriptor <> 'manejador', n.suscriptor
