-- Gives the failed or waiting deliveries of events up; of each, how many, null if there is no such event.
-- Locks   each event's row and its deliveries, in the order given
-- Index   eventos_pkey, entregas_pkey
select u.id, case when (select e.id from cauce.eventos e where e.id = u.id) is not null
                  then cauce.descartar(u.id, %(grupo)s, %(suscriptor)s) end entregas
  from unnest(%(ids)s::bigint[]) with ordinality u(id, o)
 order by u.o
