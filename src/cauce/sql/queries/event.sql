-- One event with all its columns.
-- Index   eventos_pkey
select e.id, e.origen, e.tipo, e.clave, e.id_externo, e.prioridad, e.estado, e.intentos, e.ignorado,
       e.creado_en, e.procesado_en, e.ultimo_error, e.causa, e.correlacion, e.disponible_en, e.payload, e.cabeceras, e.cuerpo
  from cauce.eventos e
 where e.id = %(id)s
