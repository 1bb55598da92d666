-- An event, its cause, the cause of that, and so on, at most `limite` of them. It ends at an event that nothing caused, whose
-- cause is not stored any more, or that comes a second time.
-- Order   the event first
-- Index   eventos_pkey
with recursive camino as (
    select e.id, e.causa, 1 paso from cauce.eventos e where e.id = %(id)s
    union all
    select e.id, e.causa, c.paso + 1 from camino c join cauce.eventos e on e.id = c.causa where c.paso < %(limite)s)
    cycle id set repetido using recorrido
select e.id, e.origen, e.tipo, e.clave, e.id_externo, e.prioridad, e.estado, e.intentos, e.ignorado,
       e.creado_en, e.procesado_en, e.ultimo_error, e.causa, e.correlacion
  from camino c join cauce.eventos e on e.id = c.id
 where not c.repetido
 order by c.paso
