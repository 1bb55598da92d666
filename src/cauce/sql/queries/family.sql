-- The family of an event, the root included: the `limite` oldest.
-- Order   oldest first
-- Index   eventos_familia, eventos_pkey
select e.id, e.origen, e.tipo, e.clave, e.id_externo, e.prioridad, e.estado, e.intentos, e.ignorado,
       e.creado_en, e.procesado_en, e.ultimo_error, e.causa, e.correlacion
  from ((select q.* from cauce.eventos q where q.id = cauce.raiz_de(%(id)s))
        union all
        (select q.* from cauce.eventos q where q.correlacion = cauce.raiz_de(%(id)s) order by q.id limit %(limite)s)) e
 order by e.id limit %(limite)s
