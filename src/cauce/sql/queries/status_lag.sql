-- For each group and lane, how many events are not claimed yet, counted up to `tope`, and since when; no row for none.
-- Order   group, lane
-- Index   eventos_log, from each position (cauce.retraso)
select g.grupo, r.carril, r.pendientes, r.desde
  from cauce.grupos g
 cross join lateral cauce.retraso(g.grupo, %(tope)s) r
 where r.pendientes > 0
 order by g.grupo, r.carril
