-- How many events are in each state, counted up to `tope`. It need not read the whole log: an event that is not
-- `procesado` is unclaimed, or in a lease, or has a row in entregas. `procesado` is null if the count of these was cut off.
-- Index   eventos_log (cauce.retraso), entregas_debidas, entregas_muertas, eventos_pkey, backward for `procesado`
with por_leer as (
    select coalesce(sum(r.pendientes), 0) n, coalesce(max(r.pendientes), 0) en_un_carril
      from cauce.retraso('principal', %(tope)s) r),
tomados as (
    (select unnest(l.ids) id from cauce.lotes l where l.grupo = 'principal' limit %(tope)s)
    union
    (select d.evento from cauce.entregas d
      where d.estado = 'pendiente' and d.grupo = 'principal' limit %(tope)s)
    union
    (select d.evento from cauce.entregas d where d.estado = 'error' and d.grupo = 'principal' limit %(tope)s)),
abiertos as (
    select count(*) filter (where e.estado = 'pendiente') pendiente,
           count(*) filter (where e.estado = 'en_proceso') en_proceso,
           count(*) filter (where e.estado = 'error') error,
           count(*) filter (where e.estado <> 'procesado') n
      from tomados t join cauce.eventos e on e.id = t.id),
todos as (
    select count(*) n from (
        select from cauce.eventos q order by q.id desc limit (select %(tope)s + a.n + p.n from abiertos a, por_leer p)) e)
select least(a.pendiente + p.n, %(tope)s)::bigint pendiente,
       least(a.en_proceso, %(tope)s)::bigint en_proceso,
       case when greatest(a.n, p.en_un_carril) < %(tope)s then least(t.n - a.n - p.n, %(tope)s)::bigint end procesado,
       least(a.error, %(tope)s)::bigint error
  from abiertos a, por_leer p, todos t
