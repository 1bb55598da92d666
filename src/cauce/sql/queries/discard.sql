-- Gives the failed or waiting deliveries of an event up; how many. Locks the event's row and theirs.
-- Index   eventos_pkey, entregas_pkey
select cauce.descartar(%(id)s, %(grupo)s, %(suscriptor)s)
