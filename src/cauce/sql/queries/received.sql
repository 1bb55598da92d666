-- The events with the keys that are inserted between the parentheses.
-- Index   eventos_id_externo_unico, once for each
select n.origen, n.id_externo, e.id
  from (values /* rows */) n(origen, id_externo)
 cross join lateral (
       select q.id from cauce.eventos q where q.origen = n.origen and q.id_externo = n.id_externo limit 1) e
