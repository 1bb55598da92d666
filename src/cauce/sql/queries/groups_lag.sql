-- How many events these groups have not claimed yet, counting at most `tope` in each lane.
-- Index   eventos_log, from each position (cauce.retraso)
select coalesce(sum(r.pendientes), 0)::bigint
  from unnest(%(grupos)s::text[]) g(grupo)
 cross join lateral cauce.retraso(g.grupo, %(tope)s) r
