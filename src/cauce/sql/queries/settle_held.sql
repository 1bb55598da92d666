-- Settles a whole batch if the lease is still there; no row if it was lost. In a pipeline an error would take the claim
-- behind it along.
-- Locks, Index   those of cauce.terminar; lotes_pkey
select cauce.terminar(l.id, l.ficha, null, %(entregas)s::jsonb)
  from cauce.lotes l where l.id = %(lote)s and l.ficha = %(ficha)s
