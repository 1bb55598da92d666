-- Whether any application's catalog has this event, as 1 or 0.
-- Index   catalogo_pkey
select count(*) from cauce.catalogo c where c.origen = %(origen)s and c.tipo = %(tipo)s and c.tipo <> '*'
