-- The lowest and the highest id of the events that are stored.
-- Index   eventos_pkey, both ends
select min(e.id), max(e.id) from cauce.eventos e
