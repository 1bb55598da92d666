-- The failures of a destination and whether it is disabled. No row: nothing is recorded against it.
-- Index   destinos_pkey
select d.destino, d.fallando_desde, d.ultimo_fallo_en, d.ultimo_error, d.deshabilitado_en, d.motivo
  from cauce.destinos d where d.destino = %(destino)s
