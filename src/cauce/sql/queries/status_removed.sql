-- Deliveries of subscribers that no application has any more: those waiting for another attempt, which will end in
-- `error`, and the dead ones. Looks at the first `tope` of each kind in a group.
-- Order   principal, then by name
-- Index   entregas_debidas, entregas_muertas; suscripciones_pkey, once for each subscriber
select d.grupo, d.suscriptor, d.reintentos, d.muertas
  from (
    select q.grupo, q.suscriptor,
           count(*) filter (where q.estado = 'pendiente') reintentos, count(*) filter (where q.estado = 'error') muertas
      from cauce.grupos g
     cross join lateral (
        (select e.grupo, e.suscriptor, e.estado from cauce.entregas e
          where e.grupo = g.grupo and e.estado = 'pendiente'
            and (e.grupo, e.evento, e.suscriptor) not in (select m.grupo, m.evento, m.suscriptor from cauce.en_mano m)
          limit %(tope)s)
        union all
        (select e.grupo, e.suscriptor, e.estado from cauce.entregas e
          where e.grupo = g.grupo and e.estado = 'error' limit %(tope)s)) q
     group by q.grupo, q.suscriptor) d
 where d.suscriptor <> '*'
   and not exists (
        select from cauce.suscripciones s
         where s.grupo = d.grupo and s.suscriptor = d.suscriptor and s.retirada_en is null)
 order by d.grupo <> 'principal', d.grupo, d.suscriptor
