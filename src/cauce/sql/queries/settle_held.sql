-- Settles a whole batch; returns no row if its lease was lost. An error would also cancel the claim that follows in the
-- same pipeline.
-- Locks, Index   those of cauce.terminar; lotes_pkey
select cauce.terminar(l.id, l.ficha, null, %(entregas)s::jsonb)
  from cauce.lotes l where l.id = %(lote)s and l.ficha = %(ficha)s
