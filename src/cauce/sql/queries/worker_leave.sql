-- Deletes the row of a worker that stops.
-- Index   trabajadores_pkey
delete from cauce.trabajadores t where t.trabajador = %(trabajador)s
