-- At most `limite` events before id `antes`, of any age, that have a dead delivery in this group, or in any group.
-- Order   newest first
-- Index   entregas_muertas, backward in each group, eventos_pkey
select e.id, e.origen, e.tipo, e.clave, e.id_externo, e.prioridad, e.estado, e.intentos, e.ignorado,
       e.creado_en, e.procesado_en, e.ultimo_error, e.causa, e.correlacion
  from (select distinct m.evento
          from cauce.grupos g
         cross join lateral (
            select distinct d.evento from cauce.entregas d
             where d.grupo = g.grupo and d.estado = 'error' and d.evento < coalesce(%(antes)s::bigint, 9223372036854775807)
             order by d.evento desc limit %(limite)s) m
         where %(grupo)s::text is null or g.grupo = %(grupo)s
         order by m.evento desc limit %(limite)s) d
  join cauce.eventos e on e.id = d.evento
 order by e.id desc
