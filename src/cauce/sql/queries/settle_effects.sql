-- Settles all or part of a batch in the transaction of its handlers. claims.transaction began that transaction and set the
-- fencing token in it as a setting. If the setting is gone, a handler ended the transaction: then this returns no row
-- and settles nothing.
-- So it does if `ultimo_hijo` is not the last event that a handler published by SQL while several shared the transaction:
-- then nobody knows which of them published what.
-- Locks, Index   those of cauce.terminar
select cauce.terminar(%(lote)s, %(ficha)s, %(ids)s::bigint[], %(entregas)s::jsonb)
 where current_setting('cauce.asiento', true) = %(asiento)s
   and coalesce(current_setting('cauce.ultimo_hijo', true), '') = %(ultimo_hijo)s
