-- The highest version of this event that was ever deployed; 0 if no application's catalog has it.
-- Index   catalogo_pkey
select coalesce(max(c.version), 0) from cauce.catalogo c where c.origen = %(origen)s and c.tipo = %(tipo)s and c.tipo <> '*'
