-- At most `limite` refused deliveries before id `antes` that match, without their headers and bodies.
-- Order   newest first
-- Index   rechazados_pkey, backward; the table is bounded (cauce.rechazar)
select r.id, r.origen, r.recibido_en, r.razon, r.detalle, r.causa, r.url, r.tamano, r.cuerpo is not null entero
  from cauce.rechazados r
 where r.id < coalesce(%(antes)s::bigint, 9223372036854775807)
   and (%(origen)s::text is null or r.origen = %(origen)s)
   and (%(razon)s::text is null or r.razon = %(razon)s)
 order by r.id desc limit %(limite)s
