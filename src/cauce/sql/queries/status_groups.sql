-- For each group, the batches and deliveries in progress, those waiting for a retry and the dead ones. Counts retries and
-- dead deliveries up to `tope`.
-- Order   principal, then by name
-- Index   entregas_debidas, entregas_muertas; a full scan of lotes, which has one row for each batch in progress
select g.grupo, l.lotes, l.en_mano, r.reintentos, r.proximo_en, m.muertas
  from cauce.grupos g
 cross join lateral (
    select count(*) lotes, coalesce(sum(cardinality(q.ids) + cardinality(q.reintentos)), 0)::bigint en_mano
      from cauce.lotes q where q.grupo = g.grupo) l
 cross join lateral (
    select count(*) reintentos, min(q.proximo_en) proximo_en from (
        select d.proximo_en from cauce.entregas d
         where d.grupo = g.grupo and d.estado = 'pendiente'
           and (d.grupo, d.evento, d.suscriptor) not in (select m.grupo, m.evento, m.suscriptor from cauce.en_mano m)
         limit %(tope)s) q) r
 cross join lateral (
    select count(*) muertas from (
        select from cauce.entregas d where d.grupo = g.grupo and d.estado = 'error' limit %(tope)s) q) m
 order by g.grupo <> 'principal', g.grupo
