-- Deletes refused deliveries.
-- Index   rechazados_pkey
delete from cauce.rechazados r where r.id = any (%(ids)s)
