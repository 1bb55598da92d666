-- The version of the tables, and how many seconds ago a worker was last seen; both null if there is none.
-- Index   trabajadores is read whole, it has a row for every worker
select (select max(m.numero) from cauce.migraciones m),
       (select extract(epoch from clock_timestamp() - max(p.visto_en))::float8 from cauce.presencia p)
