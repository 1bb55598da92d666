-- Events with a dead delivery in a group, or in any, at most `limite` of them before id `antes`, however old.
-- Order   newest first
-- Index   entregas_muertas, eventos_pkey
select e.id, e.origen, e.tipo, e.clave, e.id_externo, e.prioridad, e.estado, e.intentos, e.ignorado,
       e.creado_en, e.procesado_en, e.ultimo_error
  from (select distinct d.evento from cauce.entregas d
         where d.estado = 'error' and d.evento < coalesce(%(antes)s::bigint, 9223372036854775807)
           and (%(grupo)s::text is null or d.grupo = %(grupo)s)
         order by d.evento desc limit %(limite)s) d
  join cauce.eventos e on e.id = d.evento
 order by e.id desc
