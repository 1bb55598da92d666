-- The family of an event, the root included: the `limite` newest of those before id `antes`.
-- Order   newest first
-- Index   eventos_familia, backward; eventos_pkey
select e.id, e.origen, e.tipo, e.clave, e.id_externo, e.prioridad, e.estado, e.intentos, e.ignorado,
       e.creado_en, e.procesado_en, e.ultimo_error, e.causa, e.correlacion
  from ((select q.* from cauce.eventos q
          where q.id = cauce.raiz_de(%(id)s) and q.id < coalesce(%(antes)s::bigint, 9223372036854775807))
        union all
        (select q.* from cauce.eventos q
          where q.correlacion = cauce.raiz_de(%(id)s) and q.id < coalesce(%(antes)s::bigint, 9223372036854775807)
          order by q.id desc limit %(limite)s)) e
 order by e.id desc limit %(limite)s
