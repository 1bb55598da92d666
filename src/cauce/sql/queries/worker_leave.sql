-- Forgets a worker that has said goodbye.
-- Index   trabajadores_pkey
delete from cauce.trabajadores t where t.trabajador = %(trabajador)s
