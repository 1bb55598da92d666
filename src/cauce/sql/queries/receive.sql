-- Stores the rows that are inserted between the parentheses, in order, and rings. Returns the rows that are new.
-- Lane and key as in cauce.completar_evento: from the event's own row of the catalog, else its origin's, else lane 5.
-- Index   eventos_id_externo_unico, catalogo_pkey
insert into cauce.eventos as e
       (origen, tipo, id_externo, payload, cuerpo, cabeceras, ultimo_error, estado, prioridad, carril, clave)
select n.origen, n.tipo, n.id_externo, n.payload, n.cuerpo, n.cabeceras, n.motivo,
       case when n.payload is null then 'error' else 'pendiente' end::cauce.estado,
       v.nivel, v.nivel, n.payload ->> c.clave
  from (values /* rows */) n(o, origen, tipo, id_externo, payload, cuerpo, cabeceras, motivo)
  left join cauce.catalogo c on c.origen = n.origen and c.tipo = n.tipo
  left join cauce.catalogo d on d.origen = n.origen and d.tipo = '*'
 cross join lateral (select coalesce(c.prioridad, d.prioridad, 5)::smallint nivel) v
 order by n.o
    on conflict (origen, id_externo) where id_externo is not null do nothing
returning e.origen, e.id_externo, e.id, cauce.avisar()
