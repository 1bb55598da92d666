-- Settles a batch, whole or in part, with the effects of handlers: the transaction must be the one that claims.transaction
-- began, which carries the fencing token as a setting. Where that is gone, a handler ended the transaction and this is
-- another: no row, and nothing is settled.
-- Locks, Index   those of cauce.terminar
select cauce.terminar(%(lote)s, %(ficha)s, %(ids)s::bigint[], %(entregas)s::jsonb)
 where current_setting('cauce.asiento', true) = %(asiento)s
