-- One refused delivery with its headers and body.
-- Index   rechazados_pkey
select r.id, r.origen, r.recibido_en, r.razon, r.detalle, r.causa, r.url, r.tamano, r.cuerpo is not null entero,
       r.cabeceras, r.cuerpo
  from cauce.rechazados r
 where r.id = %(id)s
