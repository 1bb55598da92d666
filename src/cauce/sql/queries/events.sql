-- At most `limite` events that match, among the newest `alcance` events before id `antes`.
-- Order   newest first
-- Index   eventos_pkey, backward; with `ignorado`, also eventos_pkey and fallos_evento once for each ignored event
select e.id, e.origen, e.tipo, e.clave, e.id_externo, e.prioridad, e.estado, e.intentos, e.ignorado,
       e.creado_en, e.procesado_en, e.ultimo_error, e.causa, e.correlacion
  from (select q.* from cauce.eventos q
         where q.id < coalesce(%(antes)s::bigint, 9223372036854775807) order by q.id desc limit %(alcance)s) e
 where (%(estado)s::text is null or e.estado = %(estado)s::cauce.estado)
   and (%(origen)s::text is null or e.origen = %(origen)s)
   and (%(tipo)s::text is null or e.tipo = %(tipo)s)
   and (%(clave)s::text is null or e.clave = %(clave)s)
   and (not %(ignorado)s or e.ignorado and cauce.sin_atender(e.id))
 order by e.id desc limit %(limite)s
