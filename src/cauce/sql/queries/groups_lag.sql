-- How many events some groups have not been handed yet, each lane counted to `tope`.
-- Index   eventos_log, from each position (cauce.retraso)
select coalesce(sum(r.pendientes), 0)::bigint
  from unnest(%(grupos)s::text[]) g(grupo)
 cross join lateral cauce.retraso(g.grupo, %(tope)s) r
