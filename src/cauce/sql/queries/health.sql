-- The schema version, and how many seconds ago a worker was last seen; each is null if there is none.
-- Index   a full scan of trabajadores, which has one row for each worker
select (select max(m.numero) from cauce.migraciones m),
       (select extract(epoch from clock_timestamp() - max(p.visto_en))::float8 from cauce.presencia p)
