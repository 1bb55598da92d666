-- What an event holds: its payload, and the bytes as they came.
-- Index   eventos_pkey
select e.payload, e.cuerpo from cauce.eventos e where e.id = %(id)s
