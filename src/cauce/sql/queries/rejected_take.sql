-- One refused delivery, locked so that only one caller stores it as an event and deletes it.
-- Locks   the row
-- Index   rechazados_pkey
select r.id, r.origen, r.recibido_en, r.razon, r.detalle, r.causa, r.url, r.tamano, r.cuerpo is not null entero,
       r.cabeceras, r.cuerpo
  from cauce.rechazados r
 where r.id = %(id)s
   for update
