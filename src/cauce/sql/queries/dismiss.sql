-- Dismisses the failed or waiting deliveries of events. Returns how many of each event, null if it does not exist.
-- Locks   each event's row, then their deliveries (cauce.descartar_varios)
-- Index   eventos_pkey, entregas_pkey; lotes is read whole, once
select u.id, r.entregas
  from unnest(%(ids)s::bigint[]) with ordinality u(id, o)
  left join cauce.descartar_varios(%(ids)s::bigint[], %(grupo)s, %(suscriptor)s) r on r.evento = u.id
 order by u.o
