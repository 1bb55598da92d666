-- Publishes one event; returns its id.
select cauce.publicar_evento(%(origen)s, %(tipo)s, %(payload)s::jsonb, %(clave)s, %(prioridad)s::smallint, %(id_externo)s,
                             %(cabeceras)s::jsonb)
