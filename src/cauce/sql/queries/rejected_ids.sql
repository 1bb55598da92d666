-- The ids of the refused deliveries that match: those given, or all of an origin.
-- Order   oldest first
-- Index   rechazados_pkey, or rechazados_cubo
select r.id
  from cauce.rechazados r
 where (%(ids)s::bigint[] is null or r.id = any (%(ids)s))
   and (%(origen)s::text is null or r.origen = %(origen)s)
   and (%(razon)s::text is null or r.razon = %(razon)s)
 order by r.id
