-- The events after an id, at most `limite`; `pedido`: it is one of those asked for, and only then its contents are read.
-- Order   by id
-- Index   eventos_pkey
select e.id, e.origen, e.tipo, p.pedido, case when p.pedido then e.payload::text end payload,
       case when p.pedido then e.cabeceras::text end cabeceras
  from (select q.* from cauce.eventos q where q.id > %(despues)s order by q.id limit %(limite)s) e
 cross join lateral (
    select (%(origen)s::text is null or e.origen = %(origen)s)
           and (%(tipo)s::text is null or e.tipo = %(tipo)s)
           and (%(desde)s::timestamptz is null or e.creado_en >= %(desde)s) pedido) p
 order by e.id
