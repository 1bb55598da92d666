-- The payload of an event, and the raw body as it was received.
-- Index   eventos_pkey
select e.payload, e.cuerpo from cauce.eventos e where e.id = %(id)s
