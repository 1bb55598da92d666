-- All events, with the columns that tests need most.
-- Order   by id
select id, origen, tipo, estado, intentos, prioridad, payload, clave, id_externo, procesado_en, ignorado, ultimo_error
  from cauce.eventos order by id
