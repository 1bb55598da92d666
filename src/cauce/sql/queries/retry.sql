-- Makes the failed or waiting deliveries of an event due at once; how many. Locks the event's row and theirs.
-- Index   eventos_pkey, entregas_pkey
select cauce.reintentar(%(id)s, %(grupo)s, %(suscriptor)s)
